"""The stream of single epochs that pretrains a model: several channels of many nights, well mixed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.nights.night import read_night
from data.recipe import Recipe
from data.streams.windows import untuned
from data.terms import EPOCH_SAMPLES

NIGHTS_MIXED = 6
"""Nights open at a time: what memory holds of them, however many there are."""
BATCHES_MIXED = 8
"""Batches' worth of epochs that a batch is drawn from."""


def epochs(nights: Sequence[Path], recipe: Recipe, batch: int, seed: Sequence[int]) -> tf.data.Dataset:
    """Stream all epochs of ``nights``, scored or not, in an order drawn from ``seed``, but for a last batch not full.

    Returns:
        Batches of each modality's signals, float32 (batch, 3000), by its name.

    Raises:
        InputError: a night turned bad while it streamed; use the dataset inside :func:`data.streams.windows.reading`.
    """
    order = np.random.default_rng(seed).permutation(len(nights))

    def read(path: bytes, number: np.int64) -> np.ndarray:
        signals = np.stack([*read_night(path.decode(), recipe.names).inputs(recipe).values()], axis=1)
        return signals[np.random.default_rng((*seed, int(number))).permutation(len(signals))]

    def load(path: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        signals = tf.numpy_function(read, [path, number], tf.float32, stateful=False)
        return tf.ensure_shape(signals, (None, len(recipe.channels), EPOCH_SAMPLES))

    def by_modality(signals: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: signals[:, number] for number, name in enumerate(recipe.channels)}

    return untuned(
        tf.data.Dataset.from_tensor_slices(([str(nights[i]) for i in order], order))
        .map(load, num_parallel_calls=2)
        .interleave(tf.data.Dataset.from_tensor_slices, cycle_length=NIGHTS_MIXED)
        .shuffle(BATCHES_MIXED * batch, seed=int(np.random.default_rng(seed).integers(2**31)))
        .batch(batch, drop_remainder=True)
        .map(by_modality)
        .prefetch(2)
    )
