"""What becomes of probabilities: scores against a scorer, a hypnogram, breathing events, pictures and a page."""
