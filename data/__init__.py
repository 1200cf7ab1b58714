"""Recordings and scorings, the night files they become, the recipe of a network, and the streams that feed it."""

import os
import platform

# TensorFlow, ONNX Runtime and MNE read these variables when they are first imported. Every package of ours that may
# import them imports this one before: in the commands, the Python interface and worker processes alike. What the user
# has set stays.
#
# TensorFlow's start-up notes say nothing that a user could act on.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# By itself, TensorFlow uses oneDNN's kernels only on processors with AVX-512 VNNI; they are faster on others too.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# ONNX Runtime would tell its makers about each start and each model, and give the user an identity for that. Nothing of
# a patient's night must leave the machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Where Numba is installed but can write to neither its own folder nor the user's, as in a container without a home, MNE
# cannot be imported with it. Nothing of MNE that is used here is faster with it.
os.environ.setdefault("MNE_USE_NUMBA", "false")
