"""ONNX Runtime: Keras trains the networks, and this computes what they say of a night, without Keras and TensorFlow."""

import json
from pathlib import Path
from typing import Any

import onnxruntime

from data.terms import InputError, in_one_line

ONNX = "model.onnx"
"""The file, in a model's folder or in a folder of folds, that holds the network or all folds' networks as a graph."""


def open_session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session for an ONNX file, or for what such a file would hold.

    Args:
        model: the file or its bytes.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: it is no ONNX file that can be run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that waits for work would otherwise keep its core busy, which other processes could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Only errors: its warnings are nothing that a user can act on.
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # Its exceptions have no base class of their own.
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else model
        raise InputError(f"{name} cannot be run by ONNX Runtime ({in_one_line(error)}).") from None


def metadata_of(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file says of its networks, by name; empty where a value is not JSON, which none of our files holds."""
    try:
        return {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    except ValueError:
        return {}
