"""A scoring: a stage for every 30-s epoch, and breathing events."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.store import content
from data.terms import EPOCH_SECONDS, STAGES, UNSCORED, InputError

W, N1, N2, N3, REM = range(len(STAGES))

LONGEST_EPOCHS = 7 * 24 * 3600 // EPOCH_SECONDS
TOLERANCE = 0.05
"""How many seconds the written times may differ from the grid of epochs."""
LEAST_OVERLAP = 1.0
"""An event counts for an epoch if it covers this many seconds of it, unless preparation is told another value."""


@dataclass(frozen=True)
class Event:
    """A breathing event: its name in ``data.terms.EVENTS``, its start in the recording and its duration, in seconds."""

    name: str
    start: float
    duration: float


@dataclass(frozen=True)
class Scoring:
    """The scoring of one recording.

    Attributes:
        stages: int32 (epochs,), positions in ``data.terms.STAGES``, or -1 for an unscored epoch.
        start: the seconds after the recording's start at which the first epoch begins.
        events: the breathing events.
        event_names: the kinds of event that the scorer looked for.
        notes: what was left out, to tell the user.
        positions: onset in seconds of the recording and name of each position in which the sleeper lay, if known.
        events_in_sleep: how many events of each kind begin in sleep, if ``events`` are runs of epochs and this number
            is known besides; None if ``events`` are single events.
    """

    stages: np.ndarray
    start: float = 0.0
    events: tuple[Event, ...] = ()
    event_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    positions: tuple[tuple[float, str], ...] = ()
    events_in_sleep: dict[str, int] | None = None

    def event_labels(self, epochs: int, overlap: float = LEAST_OVERLAP) -> np.ndarray:
        """0/1, uint8 (epochs, event names): 1 where an event covers ``overlap`` seconds of the epoch or more."""
        labels = np.zeros((epochs, len(self.event_names)), np.uint8)
        edges = self.start + EPOCH_SECONDS * np.arange(epochs)
        for event in self.events:
            covered = np.minimum(edges + EPOCH_SECONDS, event.start + event.duration) - np.maximum(edges, event.start)
            labels[covered >= overlap - 1e-9, self.event_names.index(event.name)] = 1
        return labels

    def event_counts(self, epochs: np.ndarray) -> dict[str, int]:
        """How many events of each kind begin in the epochs with the numbers ``epochs`` (n,)."""
        begun = [e.name for e in self.events if (e.start - self.start) // EPOCH_SECONDS in epochs]
        return {name: begun.count(name) for name in self.event_names}


def from_codes(path: Path, codes: Sequence[str], labels: dict[str, int]) -> np.ndarray:
    """Stages (epochs,) from one code per epoch; InputError if a code is not among ``labels``, or there is none."""
    if not codes:
        raise InputError(f"{path} scores no epoch: name another scoring.")
    for number, code in enumerate(codes):
        if code not in labels:
            known = ", ".join(map(repr, labels))
            raise InputError(f"{path}: epoch {number} is scored {code[:40]!r}: the only codes are {known}.")
    return np.array([labels[code] for code in codes], np.int32)


def from_intervals(path: Path, intervals: Iterable[tuple[float, float, int]]) -> tuple[np.ndarray, float]:
    """Stages (epochs,) and the first epoch's start in seconds, from (onset in s, duration in s, stage) entries.

    Epochs are aligned with the first scored entry; what no entry covers is unscored.

    Raises:
        InputError: no entry is scored, or one does not fit the grid of 30-s epochs.
    """
    intervals = sorted(intervals)
    if not np.isfinite(intervals).all():
        raise InputError(f"{path}: a stage's start or duration is not a number: correct it there.")
    scored = [onset for onset, _, stage in intervals if stage != UNSCORED]
    if not scored:
        raise InputError(f"{path} scores no epoch: name another scoring.")
    start = scored[0] % EPOCH_SECONDS
    if min(start, EPOCH_SECONDS - start) < TOLERANCE:
        start = 0.0
    last = max((onset + duration - start) / EPOCH_SECONDS for onset, duration, _ in intervals)
    if not last <= LONGEST_EPOCHS or scored[0] < -TOLERANCE:
        raise InputError(
            f"{path} scores from {scored[0]:g} s to {last * EPOCH_SECONDS:g} s, which is not a night: correct it there."
        )
    stages = np.full(max(0, math.floor(last + TOLERANCE / EPOCH_SECONDS)), UNSCORED, np.int32)
    for onset, duration, stage in intervals:
        if stage == UNSCORED:
            continue
        what = f"{path}: the stage at {onset:g} s"
        first, count = (onset - start) / EPOCH_SECONDS, duration / EPOCH_SECONDS
        on_grid = max(abs(first - round(first)), abs(count - round(count))) * EPOCH_SECONDS < TOLERANCE
        if count <= 0 or (round(count) < 1 and on_grid):
            raise InputError(f"{what} has no duration: add it there.")
        if not on_grid:
            grid = f"30-s epochs that begin at {start:g} s"
            raise InputError(f"{what} lasts {duration:g} s, which does not fit {grid}: correct it there.")
        span = stages[max(0, round(first)) : round(first + count)]
        if ((span != UNSCORED) & (span != stage)).any():
            raise InputError(f"{what} contradicts another entry for the same epoch: remove one of them.")
        span[:] = stage
    return stages, start


def read_text(path: Path) -> str:
    """The text of a scoring file, local or remote; InputError if it is missing, too large or not text."""
    read = content(path)
    if b"\0" in read:
        raise InputError(f"{path} is not a text file: name another file.")
    return read.decode("utf-8-sig", errors="replace")
