"""Run networks in ONNX Runtime: Keras trains them, and staging uses them without Keras and TensorFlow."""

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
"""The file in a model's folder with its network, or in a folder of folds with all their networks in one graph."""


class _Opened(Protocol):
    """An ONNX file's networks; ``about`` is what the file says about them."""

    about: dict[str, Any]


Network = TypeVar("Network", bound=_Opened)


def open_session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session for an ONNX file, or for its content.

    Args:
        model: the file or its bytes.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: it is not an ONNX file that can be run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Otherwise a thread that waits for work would keep its core busy, which other processes could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Log only errors, because a user could do nothing about the warnings.
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    # The exceptions of ONNX Runtime have no common base class.
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else model
        raise InputError(f"{name} cannot be run by ONNX Runtime ({in_one_line(error)}): replace it.") from None


def metadata_of(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """What the file says about its networks, by name; empty if a value is not JSON, so that the file is not ours."""
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
    """The networks in the ONNX file in ``folder``, which is made if it is absent, damaged or of other networks.

    Args:
        folder: the folder of a model, or of folds whose networks are one graph.
        metadata: the metadata of the model in ``folder``, which get the file's hash; empty for a folder of folds.
        about: what the file should say about its networks.
        make: makes the file's content from the networks' weights.
        opened: opens the file, or its content.

    Raises:
        InputError: the networks cannot be read, or cannot become an ONNX file.
    """
    path = folder / ONNX
    if path.is_file() and (not metadata or metadata["sha256"].get(ONNX) == sha256(path)):
        with suppress(InputError):
            network = opened(path)
            if network.about == about:
                return network
    print(f"{path}: is being made from the weights in {folder}.", file=sys.stderr)
    content = make()
    try:
        with written_aside(path) as aside:
            aside.write_bytes(content)
        if metadata:
            hashes = {**metadata["sha256"], ONNX: sha256(path)}
            write_json(folder / METADATA, {**metadata, "sha256": hashes})
    except FAILURES as error:
        print(
            f"{failure(error, path)} So every run will make this file again, which takes some seconds.", file=sys.stderr
        )
    return opened(content)
