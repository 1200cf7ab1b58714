"""ONNX Runtime: Keras trains the networks, and this computes what they say of a night, without Keras and TensorFlow."""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import onnxruntime

from data.terms import FAILURES, InputError, failure, in_one_line
from data.writing import write_json, written_aside
from runs.saved import METADATA, sha256

ONNX = "model.onnx"
"""The file, in a model's folder or in a folder of folds, that holds the network or all folds' networks as a graph."""


class _Opened(Protocol):
    """An ONNX file's networks; ``about`` is what the file says of them."""

    about: dict[str, Any]


Network = TypeVar("Network", bound=_Opened)


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


def kept_or_made(
    folder: Path,
    metadata: Mapping[str, Any],
    about: Mapping[str, Any],
    make: Callable[[], bytes],
    opened: Callable[[Path | bytes], Network],
) -> Network:
    """The networks in the ONNX file in ``folder``, which is made where it is absent, damaged or not as it should be.

    Args:
        folder: of a model, or of folds whose networks are one graph.
        metadata: of the model in ``folder``, which get the file's hash; empty for a folder of folds.
        about: what the file should say of its networks.
        make: makes the file's content from the networks' weights.
        opened: opens the file, or its content.

    Raises:
        InputError: the networks cannot be read, or cannot be such a file.
    """
    path = folder / ONNX
    if path.is_file() and (not metadata or metadata["sha256"].get(ONNX) == sha256(path)):
        with suppress(InputError):
            network = opened(path)
            if network.about == about:
                return network
    print(f"{path}: being made from the weights in {folder}.", file=sys.stderr)
    content = make()
    try:
        with written_aside(path) as aside:
            aside.write_bytes(content)
        if metadata:
            hashes = {**metadata["sha256"], ONNX: sha256(path)}
            write_json(folder / METADATA, {**metadata, "sha256": hashes})
    except FAILURES as error:
        print(f"{failure(error, path)} Every run will make it again, which takes some seconds.", file=sys.stderr)
    return opened(content)
