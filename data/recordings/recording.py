"""Recordings in any format, one channel at a time, in µV or as stored: EDF and BDF by ourselves, others by MNE."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.recordings.edf import BDF_MAGIC, EDF_MAGIC, ENDINGS, MICROVOLTS, Channel, read_header
from data.store import is_remote, on_disk, reaching
from data.terms import InputError, in_one_line

if TYPE_CHECKING:
    import mne

LOWEST_RATE = 0.5
"""Hz, of a channel that can be used."""

SEVERAL_FILES = (".vhdr", ".set")
"""Endings of recordings whose samples lie in another file of the same name."""


class Recording:
    """An open recording.

    Attributes:
        path: where it lies, for messages.
        channels: the channels' names.
        seconds: its length, gaps included.
        start: the clock time of its first sample, if it says so.
        stages: the scoring it holds itself, which only night files do.
    """

    stages: np.ndarray | None = None

    def __init__(self, path: Path, local: Path | None, raw: "mne.io.BaseRaw | None" = None, gaps: bool = False) -> None:
        """Open the file at ``local``, called ``path`` in messages, or take ``raw``, which MNE has opened already.

        With ``gaps``, and in ``raw``, samples may be missing.
        """
        self.path = path
        self._gaps = gaps or raw is not None
        self.header = read_header(path, local, gaps) if local and _is_edf(path, local) else None
        if self.header:
            self._described: tuple[Channel, ...] = self.header.channels
            self.seconds: float = self.header.seconds
            self.start: datetime | None = self.header.start
        else:
            self._raw = raw if raw is not None else _read_raw(path, local)
            rate, begin = float(self._raw.info["sfreq"]), self._raw.info["meas_date"]
            # 107: volts, which MNE gives whatever the file holds.
            units = ["V" if channel["unit"] == 107 else "" for channel in self._raw.info["chs"]]
            named = zip(self._raw.ch_names, units, strict=True)
            self._described = tuple(Channel(name, rate, unit) for name, unit in named)
            self.seconds = self._raw.n_times / rate
            self.start = begin and begin + timedelta(seconds=self._raw.first_samp / rate)
        self.channels = tuple(channel.name for channel in self._described)

    def notes(self) -> list[tuple[float, str]]:
        """Onset in s from the first sample on and text of each annotation that the recording holds itself."""
        if self.header:
            return self.header.annotations
        annotations = self._raw.annotations
        first = self._raw.first_time if annotations.orig_time else 0.0
        return [(float(note["onset"]) - first, str(note["description"])) for note in annotations]

    def channel(self, name: str) -> Channel:
        """What the recording says of a channel; InputError if two have this name, or it cannot be used."""
        channel, *others = (channel for channel in self._described if channel.name == name)
        if others:
            raise InputError(f"{self.path} has {1 + len(others)} channels called {name}: rename them first.")
        if channel.rate < LOWEST_RATE:
            raise InputError(f"{self.path}: channel {name} is sampled at {channel.rate:g} Hz, too slowly to be used.")
        if not channel.scaled:
            raise InputError(f"{self.path}: channel {name} has a damaged header: a range of it is empty.")
        return channel

    def read(self, channel: Channel, as_stored: bool) -> np.ndarray:
        """All samples of a channel, float64 (samples,): in µV if it is a voltage and not wanted ``as_stored``.

        Missing ones are NaN.

        Raises:
            InputError: the channel cannot be read, is flat, or holds values that are not finite.
        """
        with _told(self.path):
            if self.header:
                signal = self.header.read(channel)
            else:
                signal = self._raw.get_data(picks=[channel.name], verbose="error")[0]
        missing = ~np.isfinite(signal)
        if missing.any() and not self._gaps:
            held = f"holds NaN or infinite values in {missing.sum()} samples"
            raise InputError(f"{self.path}: channel {channel.name} {held}.")
        signal[missing] = np.nan
        if missing.all() or np.nanmin(signal) == np.nanmax(signal):
            raise InputError(f"{self.path}: channel {channel.name} is flat all night.")
        if channel.is_voltage and not as_stored:
            signal *= MICROVOLTS[channel.unit.lower()]
        return signal


def _is_edf(path: Path, local: Path) -> bool:
    """Whether a file is EDF or BDF by its beginning, or should be by its name; InputError if it is empty."""
    with local.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path} is empty.")
    return start in (EDF_MAGIC, BDF_MAGIC) or path.suffix.lower() in ENDINGS


def _read_raw(path: Path, local: Path | None) -> "mne.io.BaseRaw":
    """A file in another format, called ``path`` in messages."""
    import mne

    with warnings.catch_warnings(), _told(path):
        warnings.simplefilter("ignore")
        return mne.io.read_raw(local, preload=False, verbose="error")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What is met in a damaged file may raise anything; tell it in one sentence."""
    try:
        yield
    except (InputError, UnicodeDecodeError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as a recording ({in_one_line(error)}).") from None


@contextmanager
def open_recording(path: Path, gaps: bool = False) -> Iterator[Recording]:
    """Open a recording, local or remote; a remote one is fetched for as long as it is open.

    Raises:
        InputError: it is missing, empty, truncated, of no format that MNE reads, or has ``gaps`` that it may not have.
    """
    with on_disk(path) as local:
        if is_remote(path) and path.suffix.lower() in SEVERAL_FILES:
            with reaching(path):
                for side in path.parent.iterdir():
                    if side.stem == path.stem and side.name != path.name:
                        (local.parent / side.name).write_bytes(side.read_bytes())
        try:
            yield Recording(path, local, gaps=gaps)
        except UnicodeDecodeError:
            raise InputError(f"{path} cannot be read as a recording (its header is not text).") from None
