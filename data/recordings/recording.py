"""Recordings in any format that MNE reads, one channel at a time, in µV or as stored."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.recordings.edf import BDF_MAGIC, EDF_MAGIC, MICROVOLTS, Channel, read_header
from data.store import is_remote, on_disk, reaching
from data.terms import InputError, in_one_line

if TYPE_CHECKING:
    import mne

MNE_VOLTS = {"μV": 1e-6, "µV": 1e-6, "\x83\xcaV": 1e-6, "uV": 1e-6, "mV": 1e-3}
"""What MNE multiplies an EDF channel of such a unit with; it leaves the numbers of all other units alone."""

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
        self._local = local
        self._raw = raw
        self.header = read_header(path, local, gaps) if local and local.suffix in (".edf", ".bdf") else None
        if self.header:
            self._described: tuple[Channel, ...] = self.header.channels
            self.seconds: float = self.header.seconds
            self.start: datetime | None = self.header.start
        else:
            raw = self._open()
            rate, begin = float(raw.info["sfreq"]), raw.info["meas_date"]
            # 107: volts, which MNE gives whatever the file holds.
            units = ["V" if channel["unit"] == 107 else "" for channel in raw.info["chs"]]
            self._described = tuple(Channel(name, rate, unit) for name, unit in zip(raw.ch_names, units, strict=True))
            self.seconds = raw.n_times / rate
            self.start = begin and begin + timedelta(seconds=raw.first_samp / rate)
        self.channels = tuple(channel.name for channel in self._described)

    def _open(self, channel: str | None = None) -> "mne.io.BaseRaw":
        import mne

        quiet = {"preload": False, "verbose": "error"}
        with warnings.catch_warnings(), _told(self.path):
            warnings.simplefilter("ignore")
            if not self.header or not self._local:
                self._raw = self._raw if self._raw is not None else mne.io.read_raw(self._local, **quiet)
                return self._raw
            # Of mixed rates MNE resamples all channels it opens to the highest, so each is opened alone.
            reader = mne.io.read_raw_edf if self._local.suffix == ".edf" else mne.io.read_raw_bdf
            try:
                return reader(self._local, include=[channel], **quiet)
            except UnicodeDecodeError:
                return reader(self._local, include=[channel], encoding="latin1", **quiet)

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
        name, unit = channel.name, channel.unit
        with _told(self.path):
            signal = self._open(name).get_data(picks=None if self.header else [name], verbose="error")
        if len(signal) != 1:
            raise InputError(f"{self.path}: channel {name} cannot be told from the others by its label.")
        signal = self._placed(signal[0], channel.rate)
        missing = ~np.isfinite(signal)
        if missing.any() and not self._gaps:
            raise InputError(f"{self.path}: channel {name} holds NaN or infinite values in {missing.sum()} samples.")
        signal[missing] = np.nan
        if missing.all() or np.nanmin(signal) == np.nanmax(signal):
            raise InputError(f"{self.path}: channel {name} is flat all night.")
        signal /= MNE_VOLTS.get(unit, 1.0) if self.header else 1.0
        if channel.is_voltage and not as_stored:
            signal *= MICROVOLTS[unit.lower()]
        return signal

    def _placed(self, signal: np.ndarray, rate: float) -> np.ndarray:
        """The samples (samples,) at their times; MNE reads an interrupted file's records as if they had no gaps."""
        samples = round(self.seconds * rate)
        # Bytes after the last record are no samples.
        if not self.header or self.header.onsets is None:
            return signal[:samples]
        onsets = np.round(self.header.onsets * rate).astype(int)
        size = round(self.header.record_seconds * rate)
        placed = np.full(max(samples, onsets[-1] + size), np.nan)
        placed[onsets[:, None] + np.arange(size)] = signal[: len(onsets) * size].reshape(len(onsets), size)
        return placed


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What MNE meets in a damaged file may raise anything; tell it in one sentence."""
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
        with local.open("rb") as file:
            start = file.read(8)
        if not start:
            raise InputError(f"{path} is empty.")
        # MNE goes by the name's ending; recordings in EDF are also called .rec.
        kind = {EDF_MAGIC: ".edf", BDF_MAGIC: ".bdf"}.get(start)
        if kind is None and path.suffix.lower() in (".edf", ".bdf", ".rec"):
            raise InputError(f"{path} is not an EDF file: it does not begin like one.")
        with on_disk(local, local.name if kind in (None, local.suffix) else f"recording{kind}") as named:
            try:
                yield Recording(path, named, gaps=gaps)
            except UnicodeDecodeError:
                raise InputError(f"{path} cannot be read as a recording (its header is not text).") from None
