"""The check of every night file before training, and the index that remembers what was checked.

The index is a hidden file beside the nights. A night is read again if other channels are needed or its files have
changed in size or time, and always if the store keeps no times or the folder cannot be written.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.nights.files import read_arrays
from data.nights.night import read_night
from data.store import reaching, read_json
from data.terms import InputError
from data.writing import write_json

INDEX = ".checked.json"
"""Name of the index in a folder of nights."""

FORMAT = 1
"""Number of the index's format. If the check gets a new rule, a new number here makes it check every night again."""

SAVE_EVERY = 100
"""The index is saved again after so many nights, so that a killed check loses no more than these."""


@dataclass(frozen=True)
class NightFile:
    """A night file that passed the check: its number of epochs, and the checksum of all that was read.

    ``amplitude`` (see :attr:`data.nights.night.Night.amplitude`) and ``offset``, the mean, are of the first channel.
    """

    path: Path
    epochs: int
    amplitude: float
    offset: float
    checksum: int


class NightIndex:
    """What is remembered about the nights of one folder, local or remote; a damaged index counts as empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / INDEX
        self.unsaved = 0
        self.nights: dict[str, Any] = {}
        try:
            with reaching(folder):
                held = read_json(self.path) if self.path.is_file() else None
        except (InputError, OSError):
            return
        if isinstance(held, dict) and held.get("format") == FORMAT and isinstance(held.get("nights"), dict):
            self.nights = held["nights"]

    def entry(self, path: Path) -> dict[str, Any]:
        """What is remembered about the night at ``path``, to read and to add to; it is empty for a changed night.

        ``files`` holds the sizes and times of change of the night's files. ``checked`` holds the findings of
        :func:`check_nights` by the channels that were read. ``channels`` are those that :func:`channels_of` found, once
        it has. There may be other values besides.
        """
        files = _sizes_and_times(path)
        entry = self.nights.get(path.name)
        if files is None:
            # A change could not be noticed, so nothing is remembered: this entry is not kept in the index.
            return {"checked": {}}
        if not isinstance(entry, dict) or entry.get("files") != files or not isinstance(entry.get("checked"), dict):
            entry = self.nights[path.name] = {"files": files, "checked": {}}
        return entry

    def added(self) -> None:
        """Count one change of an entry, and save the index when there are many."""
        self.unsaved += 1
        if self.unsaved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the changes, if there are any and the folder can be written."""
        if self.unsaved:
            self.unsaved = 0
            try:
                write_json(self.path, {"format": FORMAT, "nights": self.nights})
            except (InputError, OSError):
                # The nights may lie in someone else's folder. The check works without the index.
                return


def _sizes_and_times(path: Path) -> list[list[int]] | None:
    """Size in bytes and time of change in ns of a night's files; None where they cannot be known."""
    files = [path] if path.suffix == ".npz" else [path / "x.parquet", path / "y.parquet"]
    try:
        with reaching(path):
            known = [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in files)]
    except OSError:
        return None
    return known if all(time for _, time in known) else None


@contextmanager
def _indexed(nights: Mapping[int, Sequence[Path]], doing: str) -> Iterator[Iterator[tuple[int, Path, NightIndex]]]:
    """Each night's subject, file and index of its folder, with a progress bar; at the end the indices are saved."""
    each = [(subject, path) for subject, paths in nights.items() for path in paths]
    indices = {folder: NightIndex(folder) for folder in {path.parent for _, path in each}}
    try:
        with tqdm(each, desc=doing, unit="night", leave=False) as bar:
            yield ((subject, path, indices[path.parent]) for subject, path in bar)
    finally:
        for index in indices.values():
            index.save()


def channels_of(nights: Mapping[int, Sequence[Path]]) -> dict[Path, list[str]]:
    """The channels' names of each night in ``nights``, which are by subject; empty if its only channel has no name.

    Raises:
        InputError: a file cannot be read.
    """
    found = {}
    with _indexed(nights, "looking for channels") as each:
        for _, path, index in each:
            entry = index.entry(path)
            names = entry.get("channels")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                names = np.atleast_1d(read_arrays(path, ("ch_names",)).get("ch_names", ())).astype(str).tolist()
                entry["channels"] = names
                index.added()
            found[path] = names
    return found


def check_nights(nights: Mapping[int, Sequence[Path]], channels: Sequence[str]) -> dict[int, list[NightFile]]:
    """Check ``channels`` of every night, so that a bad one is found before training starts.

    Args:
        nights: night files by subject; those in the index of their folder are not read again.
        channels: the channels that training will read.

    Returns:
        The nights, by subject.

    Raises:
        InputError: a file is not a valid night with these channels.
    """
    checked: dict[int, list[NightFile]] = {}
    with _indexed(nights, "checking nights") as each:
        for subject, path, index in each:
            checked.setdefault(subject, []).append(_check(path, channels, index))
    return checked


def _check(path: Path, channels: Sequence[str], index: NightIndex) -> NightFile:
    """The night at ``path`` as the index remembers it, or else as it is read now."""
    # The entry is made before the night is read: a night that is replaced meanwhile will be read again.
    findings, key = index.entry(path)["checked"], json.dumps(list(channels))
    remembered = _as_found(path, findings.get(key))
    if remembered is not None:
        return remembered
    night = read_night(path, channels)
    offset = float(night.signals[:, 0].mean(dtype="float64"))
    numbers: list[Any] = [len(night.stages), float(night.amplitude[0]), offset, night.checksum]
    if _as_found(path, numbers):
        findings[key] = numbers
        index.added()
    return NightFile(path, *numbers)


def _as_found(path: Path, numbers: Any) -> NightFile | None:
    """The night that the index's four ``numbers`` describe, or None if they are not such numbers."""
    if not isinstance(numbers, list) or [type(number) for number in numbers] != [int, float, float, int]:
        return None
    epochs, amplitude, offset, checksum = numbers
    if epochs < 1 or not (math.isfinite(amplitude) and math.isfinite(offset)):
        return None
    return NightFile(path, epochs, amplitude, offset, checksum)
