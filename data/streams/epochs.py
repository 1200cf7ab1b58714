"""The stream of single epochs for pretraining: several channels of many nights, well mixed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.nights.night import read_night
from data.recipe import Recipe
from data.streams.windows import untuned
from data.terms import EPOCH_SAMPLES

NIGHTS_MIXED = 6
"""How many nights are in memory at a time, however many there are."""
BATCHES_MIXED = 8
"""Each batch is drawn at random from the epochs of so many batches."""


def epochs(
    nights: Sequence[Path], recipe: Recipe, batch: int, seed: Sequence[int], apart: bool = False
) -> tf.data.Dataset:
    """Stream all epochs of ``nights``, scored or not, in an order drawn from ``seed``; the last batch must be full.

    With ``apart``, all channels of the recipe have the same modality, and the epochs of each are separate examples.

    Returns:
        Batches of each stream's signals, float32 (batch, 3000), by its name; with ``apart``, by the first one's name.

    Raises:
        InputError: a night could no longer be read; use the dataset inside :func:`data.streams.windows.reading`.
    """
    names = [*recipe.channels][: 1 if apart else None]
    order = np.random.default_rng(seed).permutation(len(nights))

    def read(path: bytes, number: np.int64) -> np.ndarray:
        signals = np.stack([*read_night(path.decode(), recipe.names).inputs(recipe).values()], axis=1)
        if apart:
            signals = signals.reshape(-1, 1, EPOCH_SAMPLES)
        return signals[np.random.default_rng((*seed, int(number))).permutation(len(signals))]

    def load(path: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        signals = tf.numpy_function(read, [path, number], tf.float32, stateful=False)
        return tf.ensure_shape(signals, (None, len(names), EPOCH_SAMPLES))

    def by_name(signals: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: signals[:, number] for number, name in enumerate(names)}

    return untuned(
        tf.data.Dataset.from_tensor_slices(([str(nights[i]) for i in order], order))
        .map(load, num_parallel_calls=2)
        .interleave(tf.data.Dataset.from_tensor_slices, cycle_length=NIGHTS_MIXED)
        .shuffle(BATCHES_MIXED * batch, seed=int(np.random.default_rng(seed).integers(2**31)))
        .batch(batch, drop_remainder=True)
        .map(by_name)
        .prefetch(2)
    )
