"""What the benchmarks share: the machine, its matrix-multiply rate, and medians of interleaved runs."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

EPOCH_FLOP = 2 * (500 * 128 * 50 + 3 * 63 * 128 * 128 * 8)
"""Of one epoch's convolutions when staging: the first one and the block's three forward ones."""

RECONSTRUCTION_FLOP = 2 * (2 * 63 * 128 * 128 * 8)
"""Of the two reconstruction convolutions, which training adds."""


def machine() -> str:
    """One line that says where the figures come from."""
    return (
        f"{_processor()}, {os.cpu_count()} threads; Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def interleaved(tasks: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each task; one run of each in turn, so that all meet the same disturbances."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matrix_multiply(dtype: str, size: int = 2048) -> Callable[[], object]:
    """A task of 2 · size³ floating-point operations."""
    matrix = tf.cast(np.random.default_rng(0).normal(size=(size, size)), dtype)
    multiply = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    return lambda: multiply().numpy()
