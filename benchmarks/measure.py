"""What the benchmarks share: medians of interleaved runs, a command that trains, recordings and links to nights."""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RANDOM = ("unimodal_passes=1", "multimodal_passes=1", "pretraining_rate=1e-12")
"""Values of config.py by which pretraining leaves the weights random, but fits the normalisation to the signals."""


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


def trainer(db: str, nights: Path, out: Path, settings: Sequence[str], *options: str) -> list[str]:
    """The command that trains SynthSleepNet's ``tiny`` preset on the nights of a database."""
    values = [part for value in settings for part in ("--set", value)]
    common = ["--model", "synthsleepnet", "--preset", "tiny", "--db", db]
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
