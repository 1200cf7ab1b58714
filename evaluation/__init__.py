"""What is made of probabilities: agreement with a scorer, a hypnogram, breathing events, pictures and a page."""
