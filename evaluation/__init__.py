"""What comes after the model: scores."""
