"""Recordings and scorings, the night files they become, the recipe of a network, and the streams that feed it."""

import os

# TensorFlow's start-up notes are nothing that a user can act on. It reads this when it is first imported, before which
# every package of ours that may do so imports this one: the commands, the Python interface and worker processes alike.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
