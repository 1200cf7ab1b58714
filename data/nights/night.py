"""A night of 30-s epochs with their stages, read from its file and checked."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.nights.files import about_of, read_arrays
from data.recipe import Recipe, settings_in
from data.recordings.quality import at_level, deviations
from data.store import location
from data.terms import EPOCH_SAMPLES, EPOCH_SECONDS, SAMPLING_RATE, STAGES, TASKS, UNSCORED, InputError


class MissingChannel(InputError):
    """A night does not have the channel that was asked for."""


@dataclass(frozen=True)
class Night:
    """Signals and scoring of one night.

    Attributes:
        name: the file's name without suffix.
        signals: float32 of shape (epochs, channels, 3000), in the file's units (µV unless its database says otherwise).
        channels: the channels' names.
        stages: int32 of shape (epochs,), 0..4 for W, N1, N2, N3, REM, or -1 for unscored.
        events: bool of shape (epochs,) for each kind of breathing event that was scored, by its name in
            ``data.terms.EVENTS``.
        about: what preparation noted about the night; empty if another program prepared it.
    """

    name: str
    signals: np.ndarray
    channels: tuple[str, ...]
    stages: np.ndarray
    events: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def labels(self, task: str, wake_minutes: float) -> np.ndarray | None:
        """The labels (epochs,) of a task: stages, or 1 where an event of the task covers the epoch and 0 elsewhere.

        They are -1 where an epoch is not scored and, in a night that preparation kept whole, more than ``wake_minutes``
        before or after all sleep. The result is None if the night was not scored for the task.
        """
        stages = counted(self.stages, self.about, wake_minutes)
        if task == "sleep_stage":
            return stages
        if not all(name in self.events for name in TASKS[task]):
            return None
        found = np.any([self.events[name] for name in TASKS[task]], axis=0)
        return np.where(stages == UNSCORED, UNSCORED, found).astype(np.int32)

    def known_labels(self, task: str, wake_minutes: float) -> np.ndarray:
        """The :meth:`labels` (epochs,) of a task to learn; InputError if the night was not scored for it."""
        labels = self.labels(task, wake_minutes)
        if labels is None:
            what = f"{task} cannot be learnt from night {self.name}, which holds no scored breathing events"
            raise InputError(f"{what}: prepare it again with a scoring that has them, or leave it out.")
        return labels

    @property
    def events_in_sleep(self) -> dict[str, int]:
        """How many events of each kind the scorer found to begin in sleep; empty where the night does not say."""
        counts = self.about.get("events_in_sleep")
        if not isinstance(counts, dict) or not all(isinstance(count, int) for count in counts.values()):
            return {}
        return counts

    def inputs(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """What a network with this recipe takes from the night's channels: float32 (epochs, 3000) for each modality.

        Raises:
            InputError: the night is to be calibrated, but holds too little signal to measure its level.
        """
        found = {
            modality: recipe.applied(modality, self.signals[:, self.channels.index(spec.name)], self.channel(spec.name))
            for modality, spec in recipe.channels.items()
        }
        if recipe.nights_calibrated and recipe.level:
            try:
                found["eeg"] = at_level(found["eeg"], recipe.level)
            except InputError as error:
                raise InputError(f"the level of night {self.name} cannot be measured: {error}") from None
        return found

    def channel(self, name: str) -> dict[str, Any]:
        """What the night says about a channel, in the form that :meth:`data.recipe.Recipe.applied` takes."""
        return channel_about(self.about, name)

    @property
    def checksum(self) -> int:
        """Checksum of signals, stages and events: it shows whether a night that was prepared again has changed."""
        found = zlib.crc32(self.signals.data, zlib.crc32(self.stages.data))
        for name, there in sorted(self.events.items()):
            found = zlib.crc32(there.data, zlib.crc32(name.encode(), found))
        return found

    @property
    def amplitude(self) -> np.ndarray:
        """Each channel's level (channels,), unaffected by drift and artefacts: the median of its epochs' deviations."""
        return np.median(deviations(self.signals), axis=0)


def counted(stages: np.ndarray, about: Mapping[str, Any], wake_minutes: float) -> np.ndarray:
    """The ``stages`` of a night, int32 (epochs,), with -1 in each epoch that is neither learnt nor tested.

    These are the epochs that are not scored and, in a night that ``about`` says was kept whole, those more than
    ``wake_minutes`` before or after all sleep.
    """
    known = np.full(len(stages), not settings_in(about).get("whole"))
    known[around_sleep(stages, wake_minutes)] = True
    return np.where(known, stages, UNSCORED).astype(np.int32)


def around_sleep(stages: np.ndarray, wake_minutes: float) -> slice:
    """The epochs from ``wake_minutes`` before the first sleep to as long after the last; all, if there is no sleep."""
    asleep = np.flatnonzero(stages > STAGES.index("W"))
    if not len(asleep):
        return slice(None)
    margin = round(wake_minutes * 60 / EPOCH_SECONDS)
    return slice(max(0, int(asleep[0]) - margin), int(asleep[-1]) + margin + 1)


def channel_about(about: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What preparation's notes ``about`` say about the channel ``name``; only values of the right form are taken."""
    found: dict[str, Any] = {}
    # Version 1 kept the band among the settings.
    for said in (settings_in(about), about):
        listed = said.get("channels")
        for channel in listed if isinstance(listed, list) else ():
            if isinstance(channel, dict) and channel.get("name") == name:
                found |= channel
    spread: Any = found.get("quartiles")
    numbers = isinstance(spread, list) and [type(value) in (int, float) for value in spread] == [True] * 3
    known = spread if numbers and np.isfinite(spread).all() and spread == sorted(spread) else None
    filtered = bool(found.get("band_hz", True))
    return {"prepared": True, "filtered": filtered, "unit": str(found.get("unit") or ""), "quartiles": known}


def read_night(path: str | Path, channels: Sequence[str]) -> Night:
    """Read ``channels`` of a night file, local or remote.

    The file is an ``.npz`` with ``x`` of shape (n, 3000), (n, 3000, 1), (n, 1, 3000), or (n, channels, 3000) with the
    names ``ch_names``, and ``y`` of shape (n,); or it is a folder with ``x.parquet`` and ``y.parquet``. A single
    channel without a name is taken for whatever channel is wanted.

    Raises:
        InputError: the file is missing, damaged, or not such a night.
    """
    path = location(path)
    keys = ("x", "y", "fs", "ch_names", "events", "event_names", "about")
    return night_from_arrays(path, read_arrays(path, keys, channels), channels)


def read_scoring(path: Path) -> Night:
    """A night without its signals, which a local file is not read for; InputError as from :func:`read_night`."""
    arrays = read_arrays(path, ("y", "events", "event_names", "about"))
    stages = arrays.get("y", np.empty(0))
    epochs = len(np.atleast_1d(stages))
    known = _stages(path, stages, epochs, unscored_allowed=True, scored=True)
    signals = np.empty((epochs, 0, EPOCH_SAMPLES), np.float32)
    return Night(path.stem, signals, (), known, _events(path, arrays, epochs), about_of(arrays))


def night_from_arrays(path: Path, arrays: dict[str, np.ndarray], channels: Sequence[str], scored: bool = True) -> Night:
    """The night in ``arrays``, checked; ``path`` names it in messages.

    Without ``scored``, for a night that is to be staged, stages may be missing, and channels may be flat or hold NaN.

    Raises:
        InputError: the arrays are not a valid night with these channels.
    """
    if not scored and "x" in arrays:
        arrays = {"y": np.full(len(np.atleast_1d(arrays["x"])), UNSCORED), **arrays}
    for key in ("x", "y"):
        if key not in arrays:
            raise InputError(f"{path} has no array {key!r}: a night file needs the signals x and the stages y.")
    names = tuple(map(str, np.atleast_1d(arrays["ch_names"]))) if "ch_names" in arrays else None
    signals = _signals(path, arrays["x"], names, channels, scored)
    fs = arrays.get("fs")
    if fs is not None and (fs.size != 1 or fs.dtype.kind not in "fiu" or fs.item() != SAMPLING_RATE):
        raise InputError(f"{path} is sampled at {fs} Hz, but night files need {SAMPLING_RATE} Hz: prepare it again.")
    stages = _stages(path, arrays["y"], len(signals), names is not None or not scored, scored)
    return Night(path.stem, signals, tuple(channels), stages, _events(path, arrays, len(signals)), about_of(arrays))


def _signals(
    path: Path, x: np.ndarray, names: tuple[str, ...] | None, wanted: Sequence[str], whole: bool
) -> np.ndarray:
    if x.dtype.kind not in "fiu":
        raise InputError(f"{path}: x must hold numbers, not {x.dtype} values: prepare this night again.")
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[:, :, 0]
    if x.ndim == 2:
        x = x[:, None, :]
    if x.ndim != 3:
        raise InputError(
            f"{path}: x has the shape {x.shape}, but needs (epochs, {EPOCH_SAMPLES}) or (epochs, channels, "
            f"{EPOCH_SAMPLES}): prepare this night again."
        )
    if x.shape[2] != EPOCH_SAMPLES:
        needed = f"{EPOCH_SECONDS} s at {SAMPLING_RATE} Hz are {EPOCH_SAMPLES} samples"
        raise InputError(f"{path} has epochs of {x.shape[2]} samples, but {needed}: prepare this night again.")
    if names is None:
        if x.shape[1] > 1 or len(wanted) > 1:
            raise InputError(f"{path} has {x.shape[1]} channels but no array ch_names with their names: add it.")
        names = tuple(wanted)
    elif len(names) != x.shape[1]:
        raise InputError(f"{path} has {x.shape[1]} channels but {len(names)} names in ch_names: prepare it again.")
    missing = [channel for channel in wanted if channel not in names]
    if missing:
        raise MissingChannel(f"{path} has no channel {missing[0]!r}: choose among {', '.join(names)}.")
    if len(x) == 0:
        raise InputError(f"{path} has no epochs: remove it, or prepare it again.")
    if tuple(wanted) != names:
        x = x[:, [names.index(channel) for channel in wanted]]
    signals = np.ascontiguousarray(x, dtype=np.float32)
    for number, channel in enumerate(wanted if whole else ()):
        signal = signals[:, number]
        bad = ~np.isfinite(signal).all(axis=1)
        if bad.any():
            where = f"{bad.sum()} of {len(bad)} epochs, first in epoch {bad.argmax()}"
            raise InputError(
                f"{path}: channel {channel} holds NaN or infinite values in {where}: prepare the night again, or "
                "remove it."
            )
        if signal.min() == signal.max():
            raise InputError(
                f"{path}: channel {channel} is flat, {signal.flat[0]:g} all night: use another channel, or remove the "
                "night."
            )
    return signals


def _stages(path: Path, y: np.ndarray, epochs: int, unscored_allowed: bool, scored: bool) -> np.ndarray:
    if y.shape != (epochs,):
        raise InputError(f"{path}: y has the shape {y.shape}, but x has {epochs} epochs: prepare this night again.")
    if y.dtype.kind not in "fiu":
        raise InputError(f"{path}: y holds {y.dtype} values; stages are numbers 0..{len(STAGES) - 1}.")
    stray = ~np.isin(y, range(UNSCORED if unscored_allowed else 0, len(STAGES)))
    if stray.any():
        first, stages = stray.argmax(), f"0..{len(STAGES) - 1} for {', '.join(STAGES)}"
        raise InputError(f"{path}: epoch {first} is labelled {y[first]:g}; stages are {stages}.")
    if scored and (y == UNSCORED).all():
        raise InputError(f"{path}: none of its epochs is scored: remove this night, or prepare it again.")
    return y.astype(np.int32)


def _events(path: Path, arrays: dict[str, np.ndarray], epochs: int) -> dict[str, np.ndarray]:
    events = arrays.get("events")
    if events is None:
        return {}
    names = tuple(map(str, np.atleast_1d(arrays.get("event_names", ()))))
    wanted = (epochs, len(names))
    if events.shape != wanted:
        raise InputError(
            f"{path}: events has the shape {events.shape}, but needs {wanted}, its epochs and event_names: prepare "
            "this night again."
        )
    if events.dtype.kind not in "biuf" or not np.isin(events, (0, 1)).all():
        raise InputError(f"{path}: events may hold only 0 and 1, but holds other values: prepare this night again.")
    return {name: events[:, number].astype(bool) for number, name in enumerate(names)}
