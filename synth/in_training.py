"""Run whole nights through networks in training, with Keras; :mod:`synth.predictor` stages with finished networks."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from data.recipe import Recipe
from synth.models.classifier import FineTuned

EPOCHS_AT_ONCE = 64
"""How many epochs are embedded at once, whatever the batch in training, so that memory does not grow with it."""
STRETCHES_AT_ONCE = 32
"""How many stretches of embeddings are classified at once."""


def compiled(function: Callable) -> Callable:
    """``function`` as a graph if the backend is TensorFlow, which makes it many times faster."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    # TensorFlow warns if the same code is compiled often. With ``partial``, it counts for each function on its own,
    # also if several functions are the same method of different networks.
    return tf.function(partial(function), autograph=False)


def in_batches(function: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """The results of ``function`` for the epochs of ``signals``, float32, for :data:`EPOCHS_AT_ONCE` at a time.

    Args:
        function: a function from a batch of each stream's signals to an array with a row for each epoch.
        signals: each stream's signals (epochs, ...), as ``function`` takes them.
    """
    epochs = len(next(iter(signals.values())))
    for first in range(0, epochs, EPOCHS_AT_ONCE):
        count = min(EPOCHS_AT_ONCE, epochs - first)
        batch = {}
        for name, values in signals.items():
            # Padded, because the function is compiled for only one size.
            batch[name] = np.zeros((EPOCHS_AT_ONCE, *values.shape[1:]), "float32")
            batch[name][:count] = values[first : first + count]
        yield keras.ops.convert_to_numpy(keras.ops.cast(function(batch), "float32"))[:count]


def embed_epochs(embed: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Embeddings (epochs, features), float32; the arguments are those of :func:`in_batches`."""
    return np.concatenate([*in_batches(embed, signals)])


class TrainingPredictor:
    """A network that is being fine-tuned; a :class:`staging.predictor.Predictor`.

    It is compiled in three parts: the convolutions of each stream, which fine-tuning also uses alone; from their
    outputs to embeddings; and from stretches of embeddings to probabilities. It uses the network's current weights.

    Args:
        network: the network in training.
        recipe: the recipe of the signals that it takes.
        task: one of ``data.terms.TASKS``.
        stretch_epochs: how many consecutive epochs its temporal context module sees at once.

    Attributes:
        convolve: the convolutions of each stream, from (epochs, 3000) to (epochs, frames, flat).
    """

    variant, transitions = "", None

    def __init__(self, network: FineTuned, recipe: Recipe, task: str, stretch_epochs: int) -> None:
        self.recipe, self.task, self.stretch_epochs = recipe, task, stretch_epochs
        self.models: list[dict[str, str]] = []
        self.convolve = {name: compiled(part.convolve) for name, part in network.encoder.backbones.items()}
        self._describe = compiled(network.encoder)

        def classify(embeddings: Any, mask: Any) -> Any:
            return keras.ops.softmax(keras.ops.cast(network.classifier(embeddings, mask=mask), "float32"))

        self._classify = compiled(classify)

    def _embed(self, signals: dict[str, Any]) -> Any:
        # The outputs of the convolutions have one axis more than signals.
        return self._describe(
            {name: self.convolve[name](part) if part.ndim == 2 else part for name, part in signals.items()}
        )

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probabilities float32 (epochs, classes) of a night, in consecutive stretches that do not overlap.

        Args:
            signals: each stream's signals (epochs, 3000), or the outputs of its frozen convolutions (epochs, frames,
                flat).
        """
        embeddings, found = embed_epochs(self._embed, signals), []
        length, batch = self.stretch_epochs, STRETCHES_AT_ONCE
        for first in range(0, len(embeddings), length * batch):
            part = embeddings[first : first + length * batch]
            padded = np.zeros((batch * length, part.shape[1]), "float32")
            padded[: len(part)] = part
            mask = (np.arange(batch * length) < len(part)).reshape(batch, length)
            # Attention needs at least one step, so a stretch that is all padding is unmasked; its result is cut off.
            mask = mask | ~mask.any(axis=1, keepdims=True)
            outputs = keras.ops.convert_to_numpy(
                self._classify(keras.ops.convert_to_tensor(padded.reshape(batch, length, -1)), mask)
            )
            found.append(outputs.reshape(batch * length, -1)[: len(part)])
        return np.concatenate(found)
