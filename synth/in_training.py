"""Whole nights through networks that are being trained, by Keras; :mod:`synth.predictor` stages with finished ones."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from data.recipe import Recipe
from synth.models.classifier import FineTuned

EPOCHS_AT_ONCE = 64
"""Epochs that are embedded at once, whatever the batch is in training: memory does not grow with that batch."""
STRETCHES_AT_ONCE = 32
"""Stretches of embeddings that are classified at once."""


def compiled(function: Callable) -> Callable:
    """``function`` as a graph where the backend is TensorFlow, which computes it many times faster then."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def in_batches(function: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """What ``function`` makes of the epochs of ``signals``, float32, :data:`EPOCHS_AT_ONCE` of them at a time.

    Args:
        function: from a batch of each stream's signals to an array with a row for each epoch.
        signals: of each stream (epochs, ...), as ``function`` takes them.
    """
    epochs = len(next(iter(signals.values())))
    for first in range(0, epochs, EPOCHS_AT_ONCE):
        count = min(EPOCHS_AT_ONCE, epochs - first)
        batch = {}
        for name, values in signals.items():
            # Filled up to the one size that is compiled.
            batch[name] = np.zeros((EPOCHS_AT_ONCE, *values.shape[1:]), "float32")
            batch[name][:count] = values[first : first + count]
        yield keras.ops.convert_to_numpy(keras.ops.cast(function(batch), "float32"))[:count]


def embed_epochs(embed: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Embeddings (epochs, features), float32; arguments as of :func:`in_batches`."""
    return np.concatenate([*in_batches(embed, signals)])


class TrainingPredictor:
    """A network that is being fine-tuned; a :class:`staging.predictor.Predictor`.

    It is compiled in three parts, of which fine-tuning uses the first alone as well: the convolutions of each stream,
    from these to embeddings, and from stretches of embeddings to probabilities. Weights that change afterwards count.

    Args:
        network: on which it is judged pass after pass.
        recipe: of the signals that it takes.
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
        # What the convolutions made of the signals has one axis more.
        return self._describe(
            {name: self.convolve[name](part) if part.ndim == 2 else part for name, part in signals.items()}
        )

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, classes) of a night, stretch after stretch, none overlapping.

        Args:
            signals: of each stream (epochs, 3000), or what the frozen convolutions made of them (epochs, frames,
                flat).
        """
        embeddings, found = embed_epochs(self._embed, signals), []
        length, batch = self.stretch_epochs, STRETCHES_AT_ONCE
        for first in range(0, len(embeddings), length * batch):
            part = embeddings[first : first + length * batch]
            padded = np.zeros((batch * length, part.shape[1]), "float32")
            padded[: len(part)] = part
            mask = (np.arange(batch * length) < len(part)).reshape(batch, length)
            # A stretch of padding alone, which is cut off, must not attend to nothing at all.
            mask = mask | ~mask.any(axis=1, keepdims=True)
            outputs = keras.ops.convert_to_numpy(
                self._classify(keras.ops.convert_to_tensor(padded.reshape(batch, length, -1)), mask)
            )
            found.append(outputs.reshape(batch * length, -1)[: len(part)])
        return np.concatenate(found)
