"""Recordings in any format that MNE reads, one channel at a time, in µV or as stored."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from config import InputError
from data.store import on_disk

if TYPE_CHECKING:
    import mne

VOLTS = {"V": 1.0, "mV": 1e-3, "µV": 1e-6, "uV": 1e-6, "nV": 1e-9}
"""Units that MNE turns into volts; values in any other unit it leaves as they are."""

LONGEST_HOURS = 7 * 24
EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"


@dataclass(frozen=True)
class Channel:
    """One channel as its recording describes it: the unit is "" where it is none that MNE knows, such as %."""

    name: str
    rate: float
    """Hz"""
    unit: str


class Recording:
    """An open recording.

    Attributes:
        path: where it lies, for messages.
        channels: the channels' names.
        seconds: its length.
        start: the clock time of its first sample, if it says so.
    """

    def __init__(self, path: Path, local: Path) -> None:
        self.path = path
        self._local = local
        raw = self._open()
        self.channels: tuple[str, ...] = tuple(raw.ch_names)
        if not self.channels:
            raise InputError(f"{path} holds annotations only, no signal: it is a scoring, not a recording.")
        self.seconds: float = raw.n_times / raw.info["sfreq"]
        self.start: datetime | None = raw.info["meas_date"]

    def _open(self, channel: str | None = None) -> "mne.io.BaseRaw":
        import mne

        # EDF's mixed rates: MNE resamples all channels it opens to the highest, so each is opened alone.
        suffix, kind = self._local.suffix, {"verbose": "error"}
        with warnings.catch_warnings(), _told(self.path):
            warnings.simplefilter("ignore")
            if suffix not in (".edf", ".bdf"):
                raw = mne.io.read_raw(self._local, preload=False, **kind)
                return raw if channel is None else raw.pick([channel])
            reader = mne.io.read_raw_edf if suffix == ".edf" else mne.io.read_raw_bdf
            include = {} if channel is None else {"include": [channel]}
            try:
                return reader(self._local, preload=False, **include, **kind)
            except UnicodeDecodeError:
                return reader(self._local, preload=False, encoding="latin1", **include, **kind)

    def channel(self, name: str) -> Channel:
        """What the recording says of a channel."""
        raw = self._open(name)
        return Channel(name, float(raw.info["sfreq"]), self._unit(raw, name))

    @staticmethod
    def _unit(raw: "mne.io.BaseRaw", name: str) -> str:
        # MNE's own documentation sends its readers to this attribute; formats without units hold volts.
        unit = (raw._orig_units or {}).get(name, "V")
        return "" if unit == "n/a" else unit

    def read(self, name: str, as_stored: bool) -> np.ndarray:
        """All samples of a channel, float64 (samples,): in µV where its unit is one of voltage, else as stored.

        Args:
            name: one of :attr:`channels`.
            as_stored: leave voltages in the recording's own unit too.

        Raises:
            InputError: the channel cannot be read, is flat, or holds values that are not finite.
        """
        raw = self._open(name)
        unit = self._unit(raw, name)
        with _told(self.path):
            signal = raw.get_data(picks=[name], verbose="error")[0]
        if not np.isfinite(signal).all():
            count = int((~np.isfinite(signal)).sum())
            raise InputError(f"{self.path}: channel {name} holds NaN or infinite values in {count} samples.")
        if signal.size == 0 or signal.min() == signal.max():
            raise InputError(f"{self.path}: channel {name} is flat all night.")
        if unit in VOLTS:
            signal *= 1 / VOLTS[unit] if as_stored else 1e6
        return signal


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What MNE meets in a damaged file may raise anything; tell it in one sentence."""
    try:
        yield
    except (InputError, UnicodeDecodeError, MemoryError):
        raise
    except Exception as error:
        told = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path} cannot be read as a recording ({told}).") from None


@contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """Open a recording, local or remote; a remote one is fetched for as long as it is open.

    Raises:
        InputError: it is missing, empty, truncated, or of no format that MNE reads.
    """
    with on_disk(path) as local:
        start = _first_bytes(path, local)
        kind = ".edf" if start == EDF_MAGIC else ".bdf" if start == BDF_MAGIC else path.suffix.lower()
        if kind in (".edf", ".bdf", ".rec"):
            _check_edf(path, local)
        # MNE goes by the name's ending; recordings in EDF are also called .rec.
        with on_disk(local, local.name if local.suffix == kind else f"{local.stem}{kind}") as named:
            try:
                yield Recording(path, named)
            except UnicodeDecodeError:
                raise InputError(f"{path} cannot be read as a recording (its header is not text).") from None


def _first_bytes(path: Path, local: Path) -> bytes:
    with local.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path} is empty.")
    return start


def _check_edf(path: Path, local: Path) -> None:
    """Refuse what MNE would read wrongly or not at all (EDF: Kemp et al., Electroenceph. Clin. Neurophysiol. 82, 1992).

    Raises:
        InputError: not an EDF file, not closed, truncated, or with annotations alone.
    """
    with local.open("rb") as file:
        head = file.read(256)
        if head[:8] not in (EDF_MAGIC, BDF_MAGIC):
            raise InputError(f"{path} is not an EDF file: it does not begin like one.")
        signals = _number(path, head[252:256], "number of signals")
        records = _number(path, head[236:244], "number of records")
        seconds = _number(path, head[244:252], "length of a record")
        if signals < 1 or _number(path, head[184:192], "length of the header") != 256 * (1 + signals):
            raise InputError(f"{path} has a damaged header: its length does not suit {signals:g} signals.")
        labels_and_more = file.read(256 * int(signals))
    if len(labels_and_more) < 256 * signals:
        raise InputError(f"{path} is truncated within its header.")
    labels = [labels_and_more[16 * i : 16 * i + 16].strip() for i in range(int(signals))]
    annotations = b"EDF Annotations", b"BDF Annotations"
    if all(label in annotations for label in labels):
        raise InputError(f"{path} holds annotations only, no signal: it is a scoring, not a recording.")
    if records == -1:
        raise InputError(f"{path} gives -1 as its number of records: it was not closed properly; repair it first.")
    if records < 1 or not 0 < seconds * records <= LONGEST_HOURS * 3600:
        raise InputError(f"{path} has a damaged header: {records:g} records of {seconds:g} s.")
    at = 216 * int(signals)
    counts = [
        _number(path, labels_and_more[at + 8 * i : at + 8 * i + 8], "samples in a record") for i in range(int(signals))
    ]
    if min(counts) < 1 or any(count != int(count) for count in counts) or records != int(records):
        raise InputError(f"{path} has a damaged header: {min(counts):g} samples in a record.")
    width = 3 if head[:8] == BDF_MAGIC else 2
    promised = 256 * (1 + signals) + records * sum(counts) * width
    size = local.stat().st_size
    if size < promised:
        raise InputError(f"{path} is truncated: its header promises {promised:,.0f} bytes, it has {size:,}.")


def edf_start(local: Path) -> datetime | None:
    """The start that an EDF file's header gives, which MNE's reader of annotations leaves out; None of other files."""
    with local.open("rb") as file:
        head = file.read(184)
    try:
        told = datetime.strptime(head[168:184].decode("ascii"), "%d.%m.%y%H.%M.%S")
    except ValueError:
        return None
    return told.replace(tzinfo=UTC) if head[:8] in (EDF_MAGIC, BDF_MAGIC) else None


def _number(path: Path, field: bytes, what: str) -> float:
    try:
        value = float(field.decode("ascii"))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{path} has a damaged header: its {what} reads {field.decode('latin-1').strip()!r}.")
    return value
