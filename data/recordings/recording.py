"""Read recordings in any format, one channel at a time, in µV or as stored: EDF and BDF by own code, others by MNE."""

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
"""The lowest rate in Hz of a channel that can be used."""

SEVERAL_FILES = (".vhdr", ".set")
"""Endings of recordings whose samples lie in another file of the same name."""


class Recording:
    """An open recording.

    Attributes:
        path: its path, for messages.
        channels: the channels' names.
        seconds: its length, gaps included.
        start: the clock time of its first sample, or None if it does not say it.
        stages: the scoring that it holds itself; only night files have one.
    """

    stages: np.ndarray | None = None

    def __init__(self, path: Path, local: Path | None, raw: "mne.io.BaseRaw | None" = None, gaps: bool = False) -> None:
        """Open the file at ``local``, called ``path`` in messages, or take ``raw``, which MNE has opened already.

        With ``gaps``, or if ``raw`` is given, samples may be missing.
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
            # 107 stands for volts: MNE converts every voltage to this unit.
            units = ["V" if channel["unit"] == 107 else "" for channel in self._raw.info["chs"]]
            named = zip(self._raw.ch_names, units, strict=True)
            self._described = tuple(Channel(name, rate, unit) for name, unit in named)
            self.seconds = self._raw.n_times / rate
            self.start = begin and begin + timedelta(seconds=self._raw.first_samp / rate)
        self.channels = tuple(channel.name for channel in self._described)

    def notes(self) -> list[tuple[float, str]]:
        """Onset in s after the first sample, and text, of each annotation in the recording."""
        if self.header:
            return self.header.annotations
        annotations = self._raw.annotations
        first = self._raw.first_time if annotations.orig_time else 0.0
        return [(float(note["onset"]) - first, str(note["description"])) for note in annotations]

    def channel(self, name: str) -> Channel:
        """What the recording says about a channel; InputError if two have this name, or it cannot be used."""
        channel, *others = (channel for channel in self._described if channel.name == name)
        if others:
            raise InputError(f"{self.path} has {1 + len(others)} channels called {name}: rename them first.")
        if channel.rate < LOWEST_RATE:
            raise InputError(
                f"{self.path}: channel {name} is sampled at {channel.rate:g} Hz, too slowly to be used: choose "
                "another one."
            )
        if not channel.scaled:
            raise InputError(
                f"{self.path}: channel {name} has a damaged header, in which a range is empty: choose another channel."
            )
        return channel

    def read(self, channel: Channel, as_stored: bool) -> np.ndarray:
        """All samples of a channel, float64 (samples,); a voltage is converted to µV unless ``as_stored``.

        Missing samples are NaN.

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
            held = f"holds NaN or infinite values in {missing.sum()} samples: choose another channel, or repair it"
            raise InputError(f"{self.path}: channel {channel.name} {held}.")
        signal[missing] = np.nan
        if missing.all() or np.nanmin(signal) == np.nanmax(signal):
            raise InputError(f"{self.path}: channel {channel.name} is flat all night: choose another one.")
        if channel.is_voltage and not as_stored:
            signal *= MICROVOLTS[channel.unit.lower()]
        return signal


def _is_edf(path: Path, local: Path) -> bool:
    """Whether a file's first bytes or its name's ending tell that it is EDF or BDF; InputError if it is empty."""
    with local.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path} is empty: copy it again, or leave it out.")
    return start in (EDF_MAGIC, BDF_MAGIC) or path.suffix.lower() in ENDINGS


def _read_raw(path: Path, local: Path | None) -> "mne.io.BaseRaw":
    """A file in another format, opened by MNE; it is called ``path`` in messages."""
    import mne

    with warnings.catch_warnings(), _told(path):
        warnings.simplefilter("ignore")
        return mne.io.read_raw(local, preload=False, verbose="error")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn any exception, which a damaged file may cause, into one sentence."""
    try:
        yield
    except (InputError, UnicodeDecodeError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read as a recording ({in_one_line(error)}): check the file.") from None


@contextmanager
def open_recording(path: Path, gaps: bool = False) -> Iterator[Recording]:
    """Open a recording, local or remote; a remote one is fetched for as long as it is open.

    Raises:
        InputError: it is missing, empty, truncated, in a format that MNE does not read, or has gaps without ``gaps``.
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
            raise InputError(
                f"{path} cannot be read as a recording (its header is not text): check the file."
            ) from None
