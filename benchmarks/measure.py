"""What the benchmarks share: the machine, its matrix-multiply rate, and medians of interleaved runs."""

import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runs.machine import processor

if TYPE_CHECKING:
    import keras

    from synth.learner import Learner

EPOCH_FLOP = 2 * (500 * 128 * 50 + 3 * 63 * 128 * 128 * 8)
"""Of one epoch's convolutions when staging: the first one and the block's three forward ones."""

RECONSTRUCTION_FLOP = 2 * (2 * 63 * 128 * 128 * 8)
"""Of the two reconstruction convolutions, which training adds."""


def machine() -> str:
    """One line that says where the figures come from."""
    import keras
    import tensorflow as tf

    libraries = f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return f"{processor()}; {libraries}"


def interleaved(
    tasks: dict[str, Callable[[], object]], rounds: int = 7, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each task by ``clock``; one run of each in turn, so that all meet the same disturbances."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = clock()
            task()
            seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matrix_multiply(dtype: str, size: int = 2048) -> Callable[[], object]:
    """A task of 2 · size³ floating-point operations."""
    import tensorflow as tf

    matrix = tf.cast(np.random.default_rng(0).normal(size=(size, size)), dtype)
    multiply = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    return lambda: multiply().numpy()


def learner(network: "keras.Model", losses: Callable[[Any], dict[str, Any]]) -> "Learner":
    """An update as published: AdamW, the gradient's norm clipped at 2."""
    from synth.learner import Learner
    from synth.replicas import replicas

    about: dict[str, Any] = {"rate": 1e-4, "updates": 10_000, "weight_decay": 0.01, "clip_norm": 2.0}
    return Learner(network, losses, **about, accumulation=1, replicas=replicas(None))


def pretraining(network: "keras.Model") -> "Learner":
    """The update of a network's pretraining, of inputs as the network takes them."""

    def losses(inputs: Any) -> dict[str, Any]:
        found = network(inputs, training=True)
        return {"loss": found["reconstruction"] + found["contrastive"]}

    return learner(network, losses)


def trainer(nights: Path, out: Path, settings: Sequence[str], *options: str) -> list[str]:
    """The command that trains SynthSleepNet's ``tiny`` preset on synthetic nights."""
    values = [part for value in settings for part in ("--set", value)]
    common = ["--model", "synthsleepnet", "--preset", "tiny", "--db", "synthetic"]
    return [sys.executable, "trainer.py", *common, "--data", str(nights), "--out", str(out), *values, *options]


def write_edf(path: Path, signals: dict[str, np.ndarray], rate: int) -> None:
    """An EDF of these signals in µV, in 16 bits of up to ±400."""
    import edfio

    unit: dict[str, Any] = {"physical_dimension": "uV", "physical_range": (-400, 400)}
    edfio.Edf([edfio.EdfSignal(x, rate, label=name, **unit) for name, x in signals.items()]).write(path)


def linked(folder: Path, names: Iterable[str], sources: Sequence[Path]) -> Path:
    """``folder``, with files of these names that are the sources in turn."""
    folder.mkdir(exist_ok=True)
    for name, source in zip(names, itertools.cycle(sources)):
        if not (folder / name).exists():
            (folder / name).hardlink_to(source)
    return folder
