"""Save and load a network with Keras; :mod:`runs.saved` says what a saved model is."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import keras

from data.store import read_json
from data.terms import InputError
from data.writing import write_json, written_aside
from runs.card import CARD, card
from runs.saved import CONFIG, METADATA, WEIGHTS, read_metadata, sha256, versions

Network = TypeVar("Network", bound=keras.layers.Layer)


def save_model(folder: Path, network: keras.layers.Layer, metadata: dict[str, Any]) -> None:
    """Write ``network``, a model or a built layer, into ``folder``, with its ``metadata``, versions and model card."""
    with written_aside(folder / WEIGHTS) as aside:
        _as_model(network).save_weights(aside, overwrite=True)
    config = {"model": type(network).__name__, "arguments": _arguments(network), "build": network.get_build_config()}
    write_json(folder / CONFIG, config)
    hashes = {name: sha256(folder / name) for name in (CONFIG, WEIGHTS)}
    backend = keras.backend.backend()
    trained_with = {**versions(), "backend": backend, backend: import_module(backend).__version__}
    about = {**metadata, "versions": trained_with, "parameters": network.count_params(), "sha256": hashes}
    with written_aside(folder / CARD) as aside:
        aside.write_text(card(type(network).__name__, about), encoding="utf-8")
    write_json(folder / METADATA, about)


def load_model(folder: Path, kinds: Iterable[type[Network]], dtype: str = "float32") -> Network:
    """The model in ``folder``.

    Its class must be one of ``kinds``; ``dtype`` is its dtype policy, such as ``float32`` or ``mixed_bfloat16``.

    Raises:
        InputError: there is no model, it is damaged, or it is of another class.
    """
    read_metadata(folder)
    config, named = read_json(folder / CONFIG), {kind.__name__: kind for kind in kinds}
    if not isinstance(config, dict) or not isinstance(config.get("model"), str) or config["model"] not in named:
        raise InputError(f"{folder / CONFIG} does not describe a {' or '.join(named)}: name another folder.")
    try:
        network = _made(named[config["model"]], config["arguments"], config.get("build"), dtype)
        _as_model(network).load_weights(folder / WEIGHTS)
    # Keras raises almost any exception for wrong arguments and weights.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{folder} does not hold the weights that its {CONFIG} describes ({reason}): restore it."
        ) from None
    return network


def _made(kind: type[Network], arguments: dict[str, Any], build: dict[str, Any] | None, dtype: str) -> Network:
    # The first models of version 1 have no ``build``; their networks are complete without it.
    network = kind.from_config({**arguments, "dtype": dtype})
    if not network.built:
        network.build_from_config(build)
    return network


def _arguments(network: keras.layers.Layer) -> dict[str, Any]:
    """The arguments that ``network`` is built with, except its name and its dtype."""
    return {name: value for name, value in network.get_config().items() if name not in ("name", "trainable", "dtype")}


class _Holder(keras.Model):
    """A model of one layer, because Keras saves only the weights of models."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__()
        self.layer = layer
        self.built = True


def _as_model(network: keras.layers.Layer) -> keras.Model:
    return network if isinstance(network, keras.Model) else _Holder(network)
