"""Choose the signals of a recording that the page of a staged night shows."""

from collections.abc import Sequence
from typing import Any

from data.recordings.channels import Choice, read_channel
from data.recordings.modalities import called
from data.terms import InputError, modality_of
from evaluation.signals import Trace
from staging.stager import LOWEST_RATES, AnyRecording

BESIDE = {"eog": 2, "emg": 1}
"""How many channels of these modalities are shown in addition, if the modality was not staged."""


def traces(recording: AnyRecording, channels: Sequence[dict[str, Any]]) -> tuple[Trace, ...]:
    """The staged ``channels``, as a night's ``about`` lists them, and EOG and EMG if the recording has them.

    A channel that cannot be read is not shown.
    """
    choices = [(channel["modality"], Choice(channel["name"], tuple(channel["from"]))) for channel in channels]
    staged = {modality_of(modality) for modality, _ in choices}
    for modality, most in BESIDE.items():
        alike = dict.fromkeys(called(modality, recording.channels))
        there = [name for name in alike if all(name not in choice.recorded for _, choice in choices)]
        choices += [(modality, Choice(name, (name,))) for name in there[:most] if modality not in staged]
    shown = []
    for modality, choice in choices:
        try:
            signal = read_channel(recording, choice, lowest_rate=LOWEST_RATES[modality_of(modality)])
        except InputError:
            continue
        unit = signal.about["unit"] if signal.about["unit"] != "as stored" else ""
        shown.append(Trace(choice.name, modality_of(modality), unit, signal.signals.reshape(-1)))
    return tuple(shown)
