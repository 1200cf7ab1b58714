"""Trainings that continue after they were killed, saved models, and worker processes."""

import data  # noqa: F401 - before TensorFlow
