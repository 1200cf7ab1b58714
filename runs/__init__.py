"""Trainings that survive being killed, saved models, and worker processes."""
