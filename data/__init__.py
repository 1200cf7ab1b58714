"""Nights: their files, the folds they are split into, and the stream that feeds a model."""
