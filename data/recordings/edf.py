"""EDF and BDF files: their headers, which are refused if damaged, and the samples of one channel at a time.

MNE reads them too, but loading MNE takes longer than reading a night, and MNE reads some damaged files wrongly. The
tests compare our samples with MNE's.

EDF: Kemp et al., Electroenceph. Clin. Neurophysiol. 82 (1992) 391-393.
EDF+: Kemp & Olivan, Clin. Neurophysiol. 114 (2003) 1755-1761.
BDF: the same with samples of 24 bits, https://www.biosemi.com/faq/file_format.htm.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np

from data.terms import InputError

EDF_MAGIC, BDF_MAGIC = b"0       ", b"\xffBIOSEMI"
ENDINGS = (".edf", ".bdf", ".rec")
"""Endings of the names of such files. A file whose first bytes are those of EDF or BDF may have any other name."""
LIMITS = ("physical minimum", "physical maximum", "digital minimum", "digital maximum")
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
LONGEST_SECONDS = 7 * 24 * 3600
UNKNOWN_DATE = date(1985, 1, 1)
"""The date that EDF+ prescribes for a recording whose date is unknown or kept secret."""
BLOCK_BYTES = 1 << 22
"""How much of a file is read at a time."""

MICROVOLTS = {"v": 1e6, "volt": 1e6, "mv": 1e3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "\x83êv": 1.0, "nv": 1e-3}
"""Units of voltage in µV, in small letters, with both Unicode characters for micro and a Japanese encoding of it."""


@dataclass(frozen=True)
class Channel:
    """One channel as its recording describes it: rate in Hz, and unit, "" if none is named.

    It is ``scaled`` if neither the physical nor the digital range in its header is empty.
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
class Records:
    """The records of a file. Each holds the samples of all signals for the same seconds, one signal after the other.

    Attributes:
        local: the file.
        first: the byte at which the first record begins.
        count: the number of records.
        sizes: how many bytes each signal has in a record, in their order.
    """

    local: Path
    first: int
    count: int
    sizes: tuple[int, ...]

    def blocks(self, signal: int) -> Iterator[np.ndarray]:
        """The bytes of the signal with this number, uint8 (records, bytes), some records at a time."""
        size, before = sum(self.sizes), sum(self.sizes[:signal])
        at_once = max(1, BLOCK_BYTES // size)
        with self.local.open("rb") as file:
            file.seek(self.first)
            for done in range(0, self.count, at_once):
                block = np.fromfile(file, np.uint8, min(at_once, self.count - done) * size)
                yield block.reshape(-1, size)[:, before : before + self.sizes[signal]]


@dataclass(frozen=True)
class Stored:
    """How a channel is stored: its signal's number, its samples per record, and value = gain * stored + offset."""

    signal: int
    samples: int
    gain: float
    offset: float


@dataclass(frozen=True)
class EdfHeader:
    """What the header says: signal channels in their order, length in seconds with gaps, and start.

    ``stored`` tells for each channel how it is stored in the ``records``. ``onsets`` (records,) are the seconds at
    which the records of an interrupted file (EDF+D) begin. ``patient`` is the header's field about the patient; in
    EDF+ (``plus``), its first word is a code. ``noted`` are the numbers of the signals that hold annotations.
    """

    channels: tuple[Channel, ...]
    seconds: float
    start: datetime | None
    records: Records
    stored: tuple[Stored, ...]
    onsets: np.ndarray | None = None
    patient: str = ""
    plus: bool = False
    noted: tuple[int, ...] = ()

    @property
    def code(self) -> str:
        """The code of the patient, which EDF+ writes separately from the name; "" if there is none."""
        code = self.patient.partition(" ")[0] if self.plus else ""
        return "" if code == "X" else code.replace("_", " ")

    @cached_property
    def annotations(self) -> list[tuple[float, str]]:
        """Onset in s after the first sample, and text, of each annotation, in the order of the file.

        Damaged annotations are left out.
        """
        begin = 0.0 if self.onsets is None else None
        found = []
        for signal in self.noted:
            for row in (row.tobytes() for block in self.records.blocks(signal) for row in block):
                for entry in row.split(b"\0"):
                    match = re.fullmatch(rb"([+-]\d{1,9}(?:\.\d{1,9})?)(?:\x15[\d.]*)?\x14(.*)\x14", entry, re.DOTALL)
                    if match:
                        # The very first annotation says when the file begins.
                        begin = float(match[1]) if begin is None else begin
                        texts = match[2].decode("utf-8", "replace").split("\x14")
                        found += [(float(match[1]) - begin, text) for text in texts if text]
        return found

    def read(self, channel: Channel) -> np.ndarray:
        """All samples of a channel, float64 (samples,), in its own unit; NaN in the gaps of an interrupted file."""
        stored = self.stored[self.channels.index(channel)]
        samples = np.empty((self.records.count, stored.samples))
        done = 0
        for block in self.records.blocks(stored.signal):
            samples[done : done + len(block)] = _numbers(block, stored.samples)
            done += len(block)
        samples *= stored.gain
        samples += stored.offset
        if self.onsets is None:
            return samples.reshape(-1)
        first = np.round(self.onsets * channel.rate).astype(int)
        placed = np.full(max(round(self.seconds * channel.rate), first[-1] + stored.samples), np.nan)
        placed[first[:, None] + np.arange(stored.samples)] = samples
        return placed


def _numbers(block: np.ndarray, samples: int) -> np.ndarray:
    """The numbers (records, samples) in bytes (records, bytes): two or three bytes per number, the lowest first."""
    if block.shape[1] == 2 * samples:
        return block.view("<i2")
    # They become the upper three bytes of four, so that the sign is right.
    wide = np.zeros((len(block), samples, 4), np.uint8)
    wide[..., 1:] = block.reshape(len(block), samples, 3)
    return wide.view("<i4")[..., 0] >> 8


class NoSignals(InputError):
    """A file holds only annotations, so it is a scoring."""


def read_header(path: Path, local: Path, interrupted: bool = False) -> EdfHeader:
    """The header of the file at ``local``, called ``path`` in messages; with ``interrupted``, it may have gaps.

    Raises:
        InputError: the file is not EDF or BDF, was not closed, is truncated, or has gaps.
        NoSignals: the file holds only annotations.
    """
    with local.open("rb") as file:
        head = file.read(256)
        if head[:8] not in (EDF_MAGIC, BDF_MAGIC):
            raise InputError(f"{path} is not an EDF or BDF file, because it does not begin like one: check the file.")
        count = _number(path, head[252:256], "number of signals")
        records = _number(path, head[236:244], "number of records")
        duration = _number(path, head[244:252], "length of a record")
        if count < 1 or _number(path, head[184:192], "length of the header") != 256 * (1 + count):
            raise InputError(
                f"{path} has a damaged header, whose length does not fit {count:g} signals: export it again."
            )
        count = int(count)
        rest = file.read(256 * count)
    if len(rest) < 256 * count:
        raise InputError(f"{path} is truncated within its header: copy it again from where it came.")

    def column(first: int, width: int) -> list[bytes]:
        """One field of every signal; the header stores the same field of all signals together."""
        return [rest[first * count + width * i : first * count + width * (i + 1)] for i in range(count)]

    labels = [field.decode("latin-1").strip(" \0") for field in column(0, 16)]
    if all(label in ANNOTATIONS for label in labels):
        raise NoSignals(f"{path} holds only annotations and no signals: it is a scoring; name a recording instead.")
    gaps = head[192:197] in (b"EDF+D", b"BDF+D")
    if gaps and not interrupted:
        raise InputError(f"{path} has gaps (EDF+D), so its epochs cannot be placed in time: export it as continuous.")
    if records == -1:
        raise InputError(f"{path} was not closed properly: its number of records is -1; repair or export it again.")
    if records < 1 or records != int(records) or not 0 < duration * records <= LONGEST_SECONDS:
        raise InputError(f"{path} has a damaged header, with {records:g} records of {duration:g} s: export it again.")
    samples = [_number(path, field, "samples in a record") for field in column(216, 8)]
    if any(n < 1 or n != int(n) for n in samples):
        raise InputError(f"{path} has a damaged header, with {min(samples):g} samples in a record: export it again.")
    width = 3 if head[:8] == BDF_MAGIC else 2
    all_records = Records(local, 256 * (1 + count), int(records), tuple(int(n) * width for n in samples))
    promised = all_records.first + all_records.count * sum(all_records.sizes)
    size = local.stat().st_size
    if size < promised:
        raise InputError(
            f"{path} is truncated: it should have {promised:,} bytes by its header, but has {size:,}; copy it again."
        )
    limits = [
        [_number(path, field, f"{what} of {label}") for label, field in zip(labels, column(first, 8), strict=True)]
        for first, what in zip((104, 112, 120, 128), LIMITS, strict=True)
    ]
    units = [field.decode("latin-1").strip(" \0") for field in column(96, 8)]
    channels, stored = [], []
    for signal, (label, unit, n, low, high, digital_low, digital_high) in enumerate(
        zip(labels, units, samples, *limits, strict=True)
    ):
        if label not in ANNOTATIONS:
            scaled = low != high and digital_low < digital_high
            gain = (high - low) / (digital_high - digital_low) if scaled else 1.0
            channels.append(Channel(label, n / duration, unit, scaled))
            stored.append(Stored(signal, int(n), gain, low - gain * digital_low))
    start = start_of(head)
    noted = tuple(i for i, label in enumerate(labels) if label in ANNOTATIONS)
    header = EdfHeader(
        tuple(channels),
        duration * records,
        start,
        all_records,
        tuple(stored),
        patient=" ".join(head[8:88].decode("latin-1").replace("\0", " ").split()),
        plus=head[192:196] in (b"EDF+", b"BDF+"),
        noted=noted,
    )
    if not gaps:
        return header
    if not noted:
        raise InputError(f"{path} has gaps (EDF+D), but no annotations that tell where: export it as continuous.")
    times = [row.tobytes() for block in all_records.blocks(noted[0]) for row in block]
    seconds, start, onsets = _placed(path, times, duration, start)
    return replace(header, seconds=seconds, start=start, onsets=onsets)


def _placed(
    path: Path, times: Sequence[bytes], duration: float, start: datetime | None
) -> tuple[float, datetime | None, np.ndarray]:
    """Length in s, start, and the records' onsets in s, if the first annotations of the records are ``times``."""
    found = [re.match(rb"([+-]\d+(\.\d+)?)\x14", time) for time in times]
    if None in found:
        raise InputError(
            f"{path} has gaps (EDF+D), and its record {found.index(None)} does not tell its time: export it as "
            "continuous."
        )
    onsets = np.array([float(match[1]) for match in found if match])
    late, onsets = onsets[0], onsets - onsets[0]
    seconds = float(onsets[-1] + duration)
    if (np.diff(onsets) < duration - 0.01).any() or seconds > LONGEST_SECONDS:
        raise InputError(f"{path} has gaps (EDF+D), and its records are not in order of time: export it as continuous.")
    return seconds, start and start + timedelta(seconds=late), onsets


def start_of(head: bytes) -> datetime | None:
    """The start that ``head``, the first 184 bytes of an EDF or BDF file, gives, or None."""
    if head[:8] not in (EDF_MAGIC, BDF_MAGIC):
        return None
    try:
        day, month, year, hour, minute, second = (int(head[i : i + 2]) for i in (168, 171, 174, 176, 179, 182))
        # Years have two digits: EDF counts them from 1985 on.
        return datetime(year + (1900 if year >= 85 else 2000), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def said(start: datetime) -> str:
    """A recording's start as text, which says so if the date is unknown."""
    return f"{start:%H:%M:%S} of an unknown date" if start.date() == UNKNOWN_DATE else f"{start:%Y-%m-%d %H:%M:%S}"


def as_json(start: datetime | None) -> str | None:
    """A recording's start for a JSON file, in ISO 8601; only the time if the date is unknown."""
    if start is None:
        return None
    return (start.timetz() if start.date() == UNKNOWN_DATE else start).isoformat()


def from_json(start: str | None) -> datetime | None:
    """The start that :func:`as_json` wrote; TypeError or ValueError if it is not one."""
    alone = start is not None and start[2:3] == ":"
    return None if start is None else datetime.fromisoformat(f"{UNKNOWN_DATE}T{start}" if alone else start)


def _number(path: Path, field: bytes, what: str) -> float:
    try:
        value = float(field.decode("ascii").strip(" \0"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        value_there = field.decode("latin-1").strip()
        raise InputError(f"{path} has a damaged header: {value_there!r} is not a {what}; export it again.")
    return value
