"""What a training takes, told from its first updates: time, memory and disk."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import tensorflow as tf


class Enough(Exception):
    """The updates that were to be timed are done."""


class FirstUpdates:
    """To be called after each update of some units; it times the first ones, but for those that begin a unit.

    Args:
        then: is called once, when enough of them were timed, with the seconds of an update.
    """

    def __init__(self, then: Callable[[float], Any]) -> None:
        self.then = then
        self.timed: list[float] = []
        # TensorFlow cannot wait for the devices of several machines, so that nothing is timed there.
        self.enough = "TF_CONFIG" in os.environ
        self.last: float | None = None

    def begin(self) -> None:
        """A unit begins: its first update waits for its nights, and perhaps for the network to be compiled."""
        self.last = None

    def __call__(self) -> None:
        if self.enough:
            return
        # A GPU works on while Python goes ahead.
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
    """What is left of a run takes, or its units of one kind.

    Attributes:
        title: names the run, and the kind of unit.
        updates: that are left.
        update_seconds: of one of them.
        other_seconds: of validation, test and other work on whole nights; None where nobody knows yet.
        memory: bytes, of the whole process at its peak.
        disk: bytes, of the run's folder at its peak.
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
        besides = ", validation besides" if self.other_seconds is None else ""
        return (
            f"{self.title}: about {duration(self.seconds)} for {self.updates:,} updates{besides}; "
            f"{size(self.memory)} of memory, {size(self.disk)} of disk."
        )


def duration(seconds: float) -> str:
    """Such as ``2 h 10 min``, ``4 min`` or ``12 s``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes, such as ``1.9 GiB`` or ``85 MiB``."""
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
