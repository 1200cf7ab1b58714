"""Estimate what a training takes from its first updates: time, memory and disk space."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import tensorflow as tf


class Enough(Exception):
    """Raised when enough updates were timed."""


class FirstUpdates:
    """Times the first updates of some units, without the first update of each unit; call it after each update.

    Args:
        then: is called once, when enough updates were timed, with the seconds that an update takes.
    """

    def __init__(self, then: Callable[[float], Any]) -> None:
        self.then = then
        self.timed: list[float] = []
        # TensorFlow cannot wait for the devices of several machines, so nothing is timed there.
        self.enough = "TF_CONFIG" in os.environ
        self.last: float | None = None

    def begin(self) -> None:
        """Begin a unit, whose first update also waits for its nights and perhaps for the network's compilation."""
        self.last = None

    def __call__(self) -> None:
        if self.enough:
            return
        # A GPU may still be computing while Python has gone on.
        tf.test.experimental.sync_devices()
        now = time.monotonic()
        if self.last is not None:
            self.timed.append(now - self.last)
        self.enough = len(self.timed) >= 10 or (len(self.timed) >= 3 and sum(self.timed) > 10)
        self.last = now
        if self.enough:
            self.then(median(self.timed))


@dataclass(frozen=True)
class Cost:
    """What the rest of a run, or of its units of one kind, takes.

    Attributes:
        title: the name of the run, and of the kind of unit.
        updates: the number of updates that are left.
        update_seconds: seconds per update.
        other_seconds: seconds for validation, test and other work on whole nights; None if not known yet.
        memory: bytes of the whole process at its peak.
        disk: bytes of the run's folder at its peak.
    """

    title: str
    updates: int
    update_seconds: float
    other_seconds: float | None
    memory: int
    disk: int

    @property
    def seconds(self) -> float:
        return self.updates * self.update_seconds + (self.other_seconds or 0)

    def line(self) -> str:
        besides = " without validation" if self.other_seconds is None else ""
        return (
            f"{self.title}: about {duration(self.seconds)} for {self.updates:,} updates{besides}; "
            f"{size(self.memory)} of memory, {size(self.disk)} of disk."
        )


def duration(seconds: float) -> str:
    """Seconds as text, such as ``2 h 10 min``, ``4 min`` or ``12 s``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes as text, such as ``1.9 GiB`` or ``85 MiB``."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def table(costs: Sequence[Cost]) -> str:
    """A row for each of ``costs``, under a heading."""
    width = max(len(cost.title) for cost in costs)
    names = f"{'s an update':>11} {'updates':>9} {'training':>11} {'other':>11} {'memory':>8} {'disk':>8}"
    rows = (
        f"{cost.title:{width}} {cost.update_seconds:11.3f} {cost.updates:9,} "
        f"{duration(cost.updates * cost.update_seconds):>11} {duration(cost.other_seconds or 0):>11} "
        f"{size(cost.memory):>8} {size(cost.disk):>8}"
        for cost in costs
    )
    return "\n".join((f"{'':{width}} {names}", *rows))
