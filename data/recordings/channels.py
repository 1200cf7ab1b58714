"""Read a channel of any recording in whole epochs of 30 s at 100 Hz, and choose the best EEG channels."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.databases import plain
from data.nights.files import read_arrays
from data.nights.night import night_from_arrays
from data.recipe import in_epochs, resample
from data.recordings.recording import Channel, Recording, open_recording
from data.store import location, reaching
from data.terms import EPOCH_SECONDS, SAMPLING_RATE, UNSCORED, InputError, whole_epochs

if TYPE_CHECKING:
    import mne

DERIVATIONS: tuple[str, ...] = ("C4-M1", "C3-M2", "Fpz-Cz", "F4-M1", "F3-M2", "Fz-Cz", "C4-M2", "C3-M1", "F4-M2")
DERIVATIONS += ("F3-M1", "Cz-M1", "Cz-M2", "Fz-M1", "Fz-M2", "Fp2-M1", "Fp1-M2", "O2-M1", "O1-M2", "Pz-Oz")
"""EEG derivations, the best for staging first: those of the AASM, then others that laboratories record."""

ELECTRODES = ("C4", "C3", "Cz", "F4", "F3", "Fz", "Fpz", "Fp2", "Fp1", "Pz", "P4", "P3")
"""Electrodes to use with any reference if there is no derivation, the best first. O2 is left out: it may be oxygen."""

VOTERS = 3
"""How many EEG channels are staged together if the user names none."""

LOWEST_EEG_RATE = 60
"""In Hz: enough for EEG of up to 30 Hz."""

_SCALP = r"(?:fp|af|[fcpot])(?:z|\d)"
_LABEL = re.compile(rf"(?:eeg)?[-:.]?({_SCALP}|[am][12])(?:[-:/.]?({_SCALP}|[a-z]*\d?))?")


@dataclass(frozen=True)
class Choice:
    """A channel to stage: its name, and the recorded channels that it is made of: one, or the difference of two."""

    name: str
    recorded: tuple[str, ...]


@dataclass(frozen=True)
class ChannelSignal:
    """A channel of a recording.

    Attributes:
        name: the name of the channel or derivation.
        signals: float32 (epochs, 3000) at 100 Hz, in µV where the recording gives a voltage, else as stored.
        missing: bool (epochs,), true where half an epoch or more was not recorded.
        about: the recorded channels, their rate and unit, and the signal's unit, as JSON values.
        prepared: how a night file's channel was prepared, for the recipe; empty for other recordings.
    """

    name: str
    signals: np.ndarray
    missing: np.ndarray
    about: dict[str, Any]
    prepared: dict[str, Any] = field(default_factory=dict)


class NightRecording:
    """A night file, read like a recording; ``stages`` int32 (epochs,) are its scoring, or None if it has none."""

    start = None
    header = None

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        """Open ``path``; a channel without a name gets the first one ``wanted`` (NAME or MODALITY=NAME), or EEG."""
        self.path = path
        arrays = read_arrays(path, ("x", "y", "fs", "ch_names", "about"))
        unnamed = (wanted[0].partition("=")[2] or wanted[0]) if wanted else "EEG"
        self.channels = tuple(map(str, np.atleast_1d(arrays.get("ch_names", unnamed))))
        night = night_from_arrays(path, arrays, self.channels, scored=False)
        self.stages = night.stages if (night.stages != UNSCORED).any() else None
        self.seconds = float(len(night.stages) * EPOCH_SECONDS)
        self.night = night

    def notes(self) -> list[tuple[float, str]]:
        """Night files hold no annotations."""
        return []

    def channel(self, name: str) -> Channel:
        """What the file says about a channel; most files do not give its unit."""
        return Channel(name, float(SAMPLING_RATE), self.night.channel(name)["unit"])

    def read(self, channel: Channel, as_stored: bool) -> np.ndarray:
        """All samples of a channel, float64 (samples,), as stored; samples that are not finite are NaN."""
        signal = self.night.signals[:, self.channels.index(channel.name)].reshape(-1).astype(np.float64)
        return np.where(np.isfinite(signal), signal, np.nan)


@contextmanager
def open_signals(path: Path, wanted: Sequence[str] = ()) -> Iterator[Recording | NightRecording]:
    """Open a recording, which may have gaps, or a night file, to read ``wanted``; InputError if it is neither."""
    if path.suffix == ".npz" or is_parquet_night(path):
        yield NightRecording(path, wanted)
    else:
        with open_recording(path, gaps=True) as recording:
            yield recording


@contextmanager
def open_any(
    recording: "mne.io.BaseRaw | str | Path", wanted: Sequence[str] = ()
) -> Iterator[Recording | NightRecording]:
    """Open a local or remote path like :func:`open_signals`, or take what MNE has opened already, which stays open."""
    if isinstance(recording, (str, Path)):
        with open_signals(location(recording), wanted) as opened:
            yield opened
    else:
        path = Path(next((str(name) for name in recording.filenames if name), "recording"))
        yield Recording(path, None, recording)


def is_parquet_night(path: Path) -> bool:
    """Whether ``path`` is a folder that holds a night as Parquet tables."""
    with reaching(path):
        return (path / "x.parquet").exists()


def choose(recording: Recording | NightRecording, wanted: str = "") -> Choice:
    """The channel to stage.

    ``wanted`` is a recorded channel, or a derivation of two recorded electrodes, such as C3-A2; A1 and A2 mean the same
    as M1 and M2. Without it, the first of :data:`DERIVATIONS`, then :data:`ELECTRODES`, then channels called EEG is
    taken.

    Raises:
        InputError: the recording has no such channel, or no EEG at all.
    """
    names = recording.channels
    if wanted:
        same = [name for name in names if plain(name) == plain(wanted)]
        choice = Choice(same[0], (same[0],)) if same else derivation(wanted, names) or _difference(wanted, names)
        if choice is None:
            raise InputError(f"{recording.path} has no channel {wanted}: choose among {', '.join(names)}.")
        return choice
    found = eeg_channels(recording)
    if not found:
        reason = "has no channel whose name tells that it is EEG"
        raise InputError(f"{recording.path} {reason}: choose with --channel among {', '.join(names)}.")
    return found[0]


def eeg_channels(recording: Recording | NightRecording) -> list[Choice]:
    """All EEG channels: the best derivations first, then electrodes, then channels called EEG without an electrode."""
    names = recording.channels
    return _ranked(names) + [Choice(name, (name,)) for name in names if "eeg" in name.casefold()]


def _ranked(names: Sequence[str]) -> list[Choice]:
    """The EEG derivations that the channels allow, the best first, then electrodes with any reference."""
    alone = {parts[0]: name for name in reversed(names) if (parts := _parts(name))}
    derived = [choice for named in DERIVATIONS if (choice := derivation(named, names))]
    singles = [alone[electrode.casefold()] for electrode in ELECTRODES if electrode.casefold() in alone]
    return derived + [Choice(name, (name,)) for name in singles]


def voters(recording: Recording | NightRecording, first: Choice) -> list[Choice]:
    """The EEG channels to stage together with the channel ``first``, which is the first of them.

    The others are the best frontal and central channels, each from another electrode: networks that were trained on
    such channels do less well on the smaller waves at the back of the head.
    """
    chosen, electrodes = [first], {_electrode(first)}
    for choice in _ranked(recording.channels) if None not in electrodes else ():
        electrode = _electrode(choice)
        if len(chosen) < VOTERS and electrode not in electrodes and str(electrode)[0] in "fc":
            chosen.append(choice)
            electrodes.add(electrode)
    return chosen


def is_eeg(name: str) -> bool:
    """Whether a channel is EEG by its name."""
    return _parts(name) is not None or "eeg" in name.casefold()


def _electrode(choice: Choice) -> str | None:
    """The electrode that a channel shows, or None if its name does not say."""
    parts = _parts(choice.recorded[0])
    return parts and parts[0]


def _parts(name: str) -> tuple[str, str] | None:
    """Electrode and reference in a channel's name ("" if it names no reference); None if it names no electrode."""
    match = _LABEL.fullmatch(plain(name))
    if not match:
        return None
    electrode, reference = (re.sub(r"^a([12])$", r"m\1", part or "") for part in match.groups())
    return electrode, reference


def derivation(wanted: str, names: Sequence[str]) -> Choice | None:
    """``wanted`` as it was recorded, or as the difference of two electrodes with the same reference, or None."""
    parts = _parts(wanted)
    if parts is None:
        return None
    recorded: dict[tuple[str, str], str] = {}
    for name in names:
        if found := _parts(name):
            recorded.setdefault(found, name)
    if parts in recorded:
        return Choice(recorded[parts], (recorded[parts],))
    electrode, reference = parts
    for (first, common), name in recorded.items():
        if first == electrode and reference and (reference, common) in recorded:
            return Choice(f"{electrode.title()}-{reference.title()}", (name, recorded[reference, common]))
    return None


def _difference(wanted: str, names: Sequence[str]) -> Choice | None:
    """``wanted`` as the names of two recorded channels with a hyphen between them, or None."""
    known = {plain(name): name for name in reversed(names)}
    for hyphen in (i for i, letter in enumerate(wanted) if letter == "-"):
        first, second = (known.get(plain(part)) for part in (wanted[:hyphen], wanted[hyphen + 1 :]))
        if first is not None and second is not None:
            return Choice(wanted, (first, second))
    return None


def read_channel(
    recording: Recording | NightRecording, choice: Choice, as_stored: bool = False, lowest_rate: float = LOWEST_EEG_RATE
) -> ChannelSignal:
    """Read the channel that was chosen; at the end, an epoch that is not full is left out.

    With ``as_stored``, voltages stay in the recording's own unit. ``lowest_rate`` is the lowest rate in Hz to accept.

    Raises:
        InputError: the channel is too short, too slow or flat, or its two channels differ in rate or kind of unit.
    """
    headers = [recording.channel(name) for name in choice.recorded]
    first = headers[0]
    path, epochs = recording.path, whole_epochs(recording.seconds)
    if epochs < 1:
        raise InputError(
            f"{path} lasts only {recording.seconds:g} s, less than an epoch of {EPOCH_SECONDS} s: leave it out."
        )
    if first.rate < lowest_rate:
        needed = f"{lowest_rate:g} Hz or more are needed: name another channel with --channel"
        raise InputError(f"{path}: channel {first.name} is sampled at {first.rate:g} Hz, but {needed}.")
    if any(h.rate != first.rate or h.is_voltage != first.is_voltage for h in headers):
        both = " and ".join(choice.recorded)
        raise InputError(
            f"{path}: {choice.name} cannot be made, because {both} differ in rate or unit: name another channel with "
            "--channel."
        )
    signal = recording.read(first, as_stored)
    for header in headers[1:]:
        signal -= recording.read(header, as_stored)
    gaps = np.flatnonzero(np.isnan(signal))
    if len(gaps) == len(signal):
        raise InputError(
            f"{path}: channel {choice.name} holds no numbers, only samples that are NaN, infinite or missing: repair "
            "the recording, or name another channel with --channel."
        )
    if np.nanmin(signal) == np.nanmax(signal):
        raise InputError(f"{path}: channel {choice.name} is flat all night: name another one with --channel.")
    if len(gaps):
        signal[gaps] = np.nanmedian(signal)
    lacking = np.bincount((gaps / first.rate / EPOCH_SECONDS).astype(int), minlength=epochs)[:epochs]
    if isinstance(recording, Recording):
        unit, prepared = first.unit_read(as_stored), {}
    else:
        unit, prepared = first.unit, recording.night.channel(first.name)
        if len(headers) > 1:
            # The quartiles are those of one electrode, not of the derivation.
            prepared["quartiles"] = None
    return ChannelSignal(
        choice.name,
        in_epochs(resample(signal, first.rate), epochs).astype(np.float32),
        lacking >= first.rate * EPOCH_SECONDS / 2,
        {
            "name": choice.name,
            "from": list(choice.recorded),
            "rate_hz": first.rate,
            "header_unit": first.unit,
            "unit": unit or "as stored",
            "missing_seconds": round(len(gaps) / first.rate, 2),
        },
        prepared,
    )
