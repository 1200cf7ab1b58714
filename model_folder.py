"""A saved model: a folder with ``config.json`` (how it is built), ``model.weights.h5`` and ``metadata.json``.

The model is built from its arguments and only numbers are loaded: nothing in the folder is executed. ``metadata.json``
(versions, split, seed, scores, hashes of the other two) is written last: a folder that holds it is complete.
"""

import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from config import InputError
from data.store import read_json, write_json, written_aside

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"

Network = TypeVar("Network", bound=keras.layers.Layer)


def save_model(folder: Path, network: keras.layers.Layer, metadata: dict[str, Any]) -> None:
    """Write ``network``, a model or a layer that was built, and what ``metadata`` tells of it into ``folder``."""
    with written_aside(folder / WEIGHTS) as aside:
        _as_model(network).save_weights(aside, overwrite=True)
    arguments = network.get_config()
    for name in ("name", "trainable", "dtype"):
        arguments.pop(name)
    config = {"model": type(network).__name__, "arguments": arguments, "build": network.get_build_config()}
    write_json(folder / CONFIG, config)
    hashes = {name: sha256(folder / name) for name in (CONFIG, WEIGHTS)}
    write_json(folder / METADATA, {**metadata, "parameters": network.count_params(), "sha256": hashes})


def load_model(folder: Path, kinds: Iterable[type[Network]], dtype: str = "float32") -> Network:
    """The model in ``folder``.

    Args:
        folder: as :func:`save_model` left it.
        kinds: the classes that are welcome.
        dtype: dtype policy, such as ``float32`` or ``mixed_bfloat16``.

    Raises:
        InputError: there is none, it is damaged, or of another kind.
    """
    read_metadata(folder)
    config, kinds = read_json(folder / CONFIG), {kind.__name__: kind for kind in kinds}
    if not isinstance(config, dict) or not isinstance(config.get("model"), str) or config["model"] not in kinds:
        raise InputError(f"{folder / CONFIG} does not describe a {' or '.join(kinds)}.")
    try:
        network = kinds[config["model"]](**config["arguments"], dtype=dtype)
        if not network.built:
            network.build_from_config(config["build"])
        _as_model(network).load_weights(folder / WEIGHTS)
    # Keras meets wrong arguments and weights with almost any exception.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"{folder} does not hold the weights its {CONFIG} describes ({reason}).") from None
    return network


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the model in ``folder``, after a check that its files are the ones it describes.

    Raises:
        InputError: a file is missing, damaged or was exchanged.
    """
    metadata = read_json(folder / METADATA)
    try:
        hashes = {name: metadata["sha256"][name] for name in (CONFIG, WEIGHTS)}
    except (KeyError, TypeError, IndexError):
        raise InputError(
            f"{folder / METADATA} does not describe a trained model: train it again in another folder."
        ) from None
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist: the model is incomplete; train it again.")
        if sha256(folder / name) != expected:
            raise InputError(f"{folder / name} is not the file that {METADATA} describes: it is damaged or exchanged.")
    return metadata


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
    }


class _Holder(keras.Model):
    """A model of one layer, for Keras saves the weights of models alone."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__()
        self.layer = layer
        self.built = True


def _as_model(network: keras.layers.Layer) -> keras.Model:
    return network if isinstance(network, keras.Model) else _Holder(network)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
