"""Convert published PyTorch models into models of this toolkit: ``python -m synth.pytorch FILE FOLDER``."""
