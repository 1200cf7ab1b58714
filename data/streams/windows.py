"""The stream of windows for training: it reads night files, and gives batches of several nights side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.nights.night import read_night
from data.recipe import Recipe
from data.terms import EPOCH_SAMPLES, UNSCORED, InputError


def windows(nights: Sequence[Path], recipe: Recipe, batch_nights: int, window_epochs: int) -> tf.data.Dataset:
    """Stream ``nights``, in their order, as windows of consecutive 30-s epochs.

    Groups of ``batch_nights`` nights run side by side; a night shorter than its group's longest is padded with zeros of
    weight 0. The recipe has one channel. Memory holds three groups, however many nights there are.

    Returns:
        Batches ``(inputs, stages, weights)``: ``inputs["signals"]`` float32 (nights, epochs, 3000); ``inputs["start"]``
        bool (nights,), true where a window is its night's first; ``stages`` int32 (nights, epochs); ``weights`` float32
        (nights, epochs), 0 for padding and for unscored epochs, else 1.

    Raises:
        InputError: a night could no longer be read; use the dataset inside :func:`reading`.
    """

    def read(path: bytes) -> tuple[np.ndarray, np.ndarray]:
        night = read_night(path.decode(), recipe.names)
        (signals,) = night.inputs(recipe).values()
        return signals, night.known_labels("sleep_stage", recipe.labelled_wake_minutes)

    def load(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        signals, stages = tf.numpy_function(read, [path], (tf.float32, tf.int32), stateful=False)
        return tf.ensure_shape(signals, (None, EPOCH_SAMPLES)), tf.ensure_shape(stages, (None,))

    def cut(signals: tf.Tensor, stages: tf.Tensor) -> tf.data.Dataset:
        count = -(-tf.shape(stages)[1] // window_epochs)
        padding = count * window_epochs - tf.shape(stages)[1]
        signals = tf.pad(signals, [[0, 0], [0, padding], [0, 0]])
        stages = tf.pad(stages, [[0, 0], [0, padding]], constant_values=UNSCORED)

        def window(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            now = slice(number * window_epochs, (number + 1) * window_epochs)
            labels = stages[:, now]
            inputs = {"signals": signals[:, now], "start": tf.fill([tf.shape(stages)[0]], number == 0)}
            return inputs, tf.maximum(labels, 0), tf.cast(labels != UNSCORED, tf.float32)

        return tf.data.Dataset.range(tf.cast(count, tf.int64), output_type=tf.int32).map(window)

    return untuned(
        tf.data.Dataset.from_tensor_slices([str(path) for path in nights])
        .map(load, num_parallel_calls=2)
        .padded_batch(batch_nights, padding_values=(0.0, UNSCORED))
        .prefetch(1)
        .flat_map(cut)
        .prefetch(4)
    )


def untuned(stream: tf.data.Dataset) -> tf.data.Dataset:
    """``stream`` without autotuning: there is nothing to tune, and its thread delays the end of a pass by seconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)


def count_windows(night_epochs: Sequence[int], batch_nights: int, window_epochs: int) -> int:
    """How many batches :func:`windows` gives for nights with ``night_epochs`` epochs, in that order."""
    groups = (night_epochs[first : first + batch_nights] for first in range(0, len(night_epochs), batch_nights))
    return sum(-(-max(group) // window_epochs) for group in groups)


@contextmanager
def reading() -> Iterator[None]:
    """Turn the InputError of a bad night, which TensorFlow wraps in its own error, back into an InputError."""
    try:
        yield
    except (tf.errors.UnknownError, tf.errors.InvalidArgumentError) as error:
        _, marker, sentence = error.message.partition("InputError: ")
        if not marker:
            raise
        raise InputError(sentence.splitlines()[0]) from None
