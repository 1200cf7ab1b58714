"""The nights of a comparison: an EDF that all tools read, one EEG channel, and the scorer's stages."""

from dataclasses import dataclass
from pathlib import Path

import edfio
import numpy as np

from data.recordings.channels import NightRecording, choose, open_signals
from data.recordings.modalities import called
from data.recordings.recording import open_recording
from data.scorings.any_form import read_scoring
from data.terms import SAMPLING_RATE, InputError
from data.writing import written_aside

UNNAMED = "C3-A2"
"""What a night file's channel without a name is called."""


@dataclass(frozen=True)
class Night:
    """A night to stage.

    Attributes:
        recording: an EDF.
        channel: the EEG channel or derivation.
        eeg: the recorded channels that it is: one, or one less another.
        eog: a recorded channel, or "".
        scored: int32 (epochs,), the scorer's stages, -1 where there is none; None without a scorer.
    """

    recording: Path
    channel: str
    eeg: tuple[str, ...]
    eog: str
    scored: np.ndarray | None


def open_night(path: Path, folder: Path, channel: str, scoring: str, unit: float) -> Night:
    """The night in ``path``: an EDF, or a night file, of which an EDF is written into ``folder``.

    Args:
        path: the recording.
        folder: for what is written.
        channel: the channel or derivation to stage; "" for the best there is.
        scoring: a scorer's file, in which ``{name}`` stands for the recording's name; "" for none, or the night file's.
        unit: how many µV a night file's unit is.

    Raises:
        InputError: it cannot be read, is neither, has no such channel, or its scoring belongs to another.
    """
    if path.suffix.lower() not in (".edf", ".npz"):
        raise InputError(f"{path} is neither EDF (.edf), which all tools read, nor a night file (.npz).")
    with open_signals(path, (UNNAMED,)) as given:
        scored, edf = given.stages, path.absolute()
        if isinstance(given, NightRecording):
            edf = folder / f"{path.stem}.edf"
            write_edf(edf, given, unit)
    with open_recording(edf) as recording:
        chosen = choose(recording, channel)
        eogs = called("eog", recording.channels)
        if scoring:
            scored = read_scoring(Path(scoring.replace("{name}", path.stem)), recording).stages
    return Night(edf, chosen.name, chosen.recorded, eogs[0] if eogs else "", scored)


def write_edf(path: Path, night: NightRecording, unit: float) -> None:
    """Write a night file's channels as an EDF in µV, without their offset."""
    signals = []
    for name in night.channels:
        signal = unit * night.read(night.channel(name), as_stored=True)
        signal -= np.median(signal)
        signals.append(edfio.EdfSignal(signal, SAMPLING_RATE, label=name, physical_dimension="uV"))
    with written_aside(path) as aside:
        edfio.Edf(signals).write(aside)
