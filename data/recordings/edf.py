"""The header of EDF and BDF files: what MNE would read wrongly is refused here, before MNE reads the samples.

EDF: Kemp et al., Electroenceph. Clin. Neurophysiol. 82 (1992) 391-393.
EDF+: Kemp & Olivan, Clin. Neurophysiol. 114 (2003) 1755-1761.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from data.terms import InputError

EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"
LIMITS = ("physical minimum", "physical maximum", "digital minimum", "digital maximum")
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
LONGEST_SECONDS = 7 * 24 * 3600

MICROVOLTS = {"v": 1e6, "volt": 1e6, "mv": 1e3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "\x83êv": 1.0, "nv": 1e-3}
"""Units of voltage in µV, in small letters; also the two Greek letters in use for micro, and a Japanese one."""


@dataclass(frozen=True)
class Channel:
    """One channel as its recording describes it: rate in Hz, and unit, "" where none is named.

    It is ``scaled`` if neither of the two ranges in its header is empty.
    """

    name: str
    rate: float
    unit: str
    scaled: bool = True

    @property
    def is_voltage(self) -> bool:
        return self.unit.lower() in MICROVOLTS

    def unit_read(self, as_stored: bool) -> str:
        """The unit of what :meth:`data.recordings.recording.Recording.read` gives."""
        return "µV" if self.is_voltage and not as_stored else self.unit


@dataclass(frozen=True)
class EdfHeader:
    """What the header says: signal channels in their order, length in seconds with gaps, and start.

    Of an interrupted file (EDF+D), ``onsets`` (records,) are the seconds at which its records begin.
    """

    channels: tuple[Channel, ...]
    seconds: float
    start: datetime | None
    record_seconds: float = 0.0
    onsets: np.ndarray | None = None


class NoSignals(InputError):
    """A file holds annotations alone: it is a scoring."""


def read_header(path: Path, local: Path, interrupted: bool = False) -> EdfHeader:
    """The header of the file at ``local``, called ``path`` in messages; it may have gaps where ``interrupted``.

    Raises:
        InputError: it is not EDF or BDF, not closed, truncated, or has gaps.
        NoSignals: it holds annotations alone.
    """
    with local.open("rb") as file:
        head = file.read(256)
        if head[:8] not in (EDF_MAGIC, BDF_MAGIC):
            raise InputError(f"{path} is not an EDF file: it does not begin like one.")
        count = _number(path, head[252:256], "number of signals")
        records = _number(path, head[236:244], "number of records")
        duration = _number(path, head[244:252], "length of a record")
        if count < 1 or _number(path, head[184:192], "length of the header") != 256 * (1 + count):
            raise InputError(f"{path} has a damaged header: its length does not suit {count:g} signals.")
        count = int(count)
        rest = file.read(256 * count)
    if len(rest) < 256 * count:
        raise InputError(f"{path} is truncated within its header.")

    def column(first: int, width: int) -> list[bytes]:
        """A field of every signal; fields of one kind stand together."""
        return [rest[first * count + width * i : first * count + width * (i + 1)] for i in range(count)]

    labels = [field.decode("latin-1").strip(" \0") for field in column(0, 16)]
    if all(label in ANNOTATIONS for label in labels):
        raise NoSignals(f"{path} holds annotations only, no signal: it is a scoring, not a recording.")
    gaps = head[192:197] in (b"EDF+D", b"BDF+D")
    if gaps and not interrupted:
        raise InputError(f"{path} is interrupted (EDF+D), so its epochs cannot be placed: export it as continuous.")
    if records == -1:
        raise InputError(f"{path} gives -1 as its number of records: it was not closed properly; repair it first.")
    if records < 1 or records != int(records) or not 0 < duration * records <= LONGEST_SECONDS:
        raise InputError(f"{path} has a damaged header: {records:g} records of {duration:g} s.")
    samples = [_number(path, field, "samples in a record") for field in column(216, 8)]
    if any(n < 1 or n != int(n) for n in samples):
        raise InputError(f"{path} has a damaged header: {min(samples):g} samples in a record.")
    width = 3 if head[:8] == BDF_MAGIC else 2
    promised = 256 * (1 + count) + records * sum(samples) * width
    size = local.stat().st_size
    if size < promised:
        raise InputError(f"{path} is truncated: its header promises {promised:,.0f} bytes, it has {size:,}.")
    limits = [
        [_number(path, field, f"{what} of {label}") for label, field in zip(labels, column(first, 8), strict=True)]
        for first, what in zip((104, 112, 120, 128), LIMITS, strict=True)
    ]
    units = [field.decode("latin-1").strip(" \0") for field in column(96, 8)]
    channels = tuple(
        Channel(label, n / duration, unit, low != high and digital_low < digital_high)
        for label, unit, n, low, high, digital_low, digital_high in zip(labels, units, samples, *limits, strict=True)
        if label not in ANNOTATIONS
    )
    start = start_of(head)
    if not gaps:
        return EdfHeader(channels, duration * records, start)
    first = next((i for i, label in enumerate(labels) if label in ANNOTATIONS), None)
    if first is None:
        raise InputError(f"{path} is interrupted (EDF+D) but has no annotations, which would place its records.")
    sizes = [int(n) * width for n in samples]
    before, after = sum(sizes[:first]), sum(sizes[first + 1 :])
    record = np.dtype([("", f"V{before}"), ("times", f"S{sizes[first]}"), ("", f"V{after}")])
    times = np.fromfile(local, record, int(records), offset=256 * (1 + count))["times"]
    seconds, start, onsets = _placed(path, times, duration, start)
    return EdfHeader(channels, seconds, start, duration, onsets)


def _placed(
    path: Path, times: np.ndarray, duration: float, start: datetime | None
) -> tuple[float, datetime | None, np.ndarray]:
    """Length, start and the records' onsets in s, of records whose first annotations are ``times``."""
    found = [re.match(rb"([+-]\d+(\.\d+)?)\x14", time) for time in times]
    if None in found:
        raise InputError(f"{path} is interrupted (EDF+D), and its record {found.index(None)} does not say when it is.")
    onsets = np.array([float(match[1]) for match in found if match])
    late, onsets = onsets[0], onsets - onsets[0]
    seconds = float(onsets[-1] + duration)
    if (np.diff(onsets) < duration - 0.01).any() or seconds > LONGEST_SECONDS:
        raise InputError(f"{path} is interrupted (EDF+D), and its records are not in the order of their times.")
    return seconds, start and start + timedelta(seconds=late), onsets


def start_of(head: bytes) -> datetime | None:
    """The start that the first 184 bytes of an EDF or BDF file give, or None."""
    if head[:8] not in (EDF_MAGIC, BDF_MAGIC):
        return None
    try:
        day, month, year, hour, minute, second = (int(head[i : i + 2]) for i in (168, 171, 174, 176, 179, 182))
        # Two-digit years: EDF is from 1985 on.
        return datetime(year + (1900 if year >= 85 else 2000), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _number(path: Path, field: bytes, what: str) -> float:
    try:
        value = float(field.decode("ascii").strip(" \0"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path} has a damaged header: its {what} reads {field.decode('latin-1').strip()!r}.")
    return value
