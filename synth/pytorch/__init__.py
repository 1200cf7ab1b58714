"""The published PyTorch models as models of this toolkit: ``python -m synth.pytorch FILE FOLDER``."""
