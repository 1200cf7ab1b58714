"""Trainings that survive being killed, saved models, and worker processes."""

import data  # noqa: F401 - before TensorFlow
