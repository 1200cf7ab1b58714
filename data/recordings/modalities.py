"""The modality of each channel of a recording, and the channel for each of a network's streams: none serves two."""

import re
from collections.abc import Iterator, Mapping, Sequence

from data.databases import ChannelSpec
from data.recordings.channels import Choice, NightRecording, choose, derivation, eeg_channels, is_eeg
from data.recordings.recording import Recording
from data.terms import InputError, modality_of

NAMES = {
    "eog": (r"eog", r"\b[lr]oc\b", r"\be[12]\b"),
    "emg": (r"\bchin|\b(sub)?ment", r"^(?!.*(leg|tib|lat|rat)).*emg"),
    "ecg": (r"e[ck]g",),
    "airflow": (r"flow", r"therm", r"nasal|cannula"),
}
"""By what its name a modality's channel is found if the recipe's channel is absent; the likeliest pattern first."""


def assigned(
    recording: Recording | NightRecording, streams: Mapping[str, ChannelSpec], named: Mapping[str, str]
) -> dict[str, Choice]:
    """A channel for each of ``streams``, as far as the recording has them.

    It is the channel that the user ``named`` for the stream, else the recipe's own, else another of the same modality.
    If a modality has too few channels, its first streams get them.

    Raises:
        InputError: a named channel is not there, or is named for two streams.
    """
    chosen: dict[str, Choice] = {}
    for stream, name in named.items():
        choice = choose(recording, name)
        other = next((known for known, its in chosen.items() if its.recorded == choice.recorded), None)
        if other:
            raise InputError(
                f"{recording.path}: --channel names {choice.name} for both {other} and {stream}: name two channels."
            )
        chosen[stream] = choice
    for own in (True, False):
        for stream in [stream for stream in streams if stream not in chosen]:
            # Only the first recorded channel counts: two derivations may share their reference.
            taken = {choice.recorded[0] for choice in chosen.values()}
            found = _own(recording, stream, streams[stream]) if own else _alike(recording, stream)
            free = next((choice for choice in found if choice.recorded[0] not in taken), None)
            if free:
                chosen[stream] = free
    for stream in [stream for stream in streams if stream not in chosen]:
        later = (other for other in streams if other > stream and modality_of(other) == modality_of(stream))
        spare = next((other for other in later if other in chosen and other not in named), None)
        if spare:
            chosen[stream] = chosen.pop(spare)
    return {stream: chosen[stream] for stream in streams if stream in chosen}


def told_by_name(name: str, stream: str) -> str:
    """The modality that a recorded channel's name tells, if the stream has another modality; else empty."""
    told = [modality for modality in NAMES if called(modality, [name])]
    if is_eeg(name):
        told.append("eeg")
    return told[0] if told and modality_of(stream) not in told else ""


def _own(recording: Recording | NightRecording, stream: str, spec: ChannelSpec) -> Iterator[Choice]:
    """The recipe's channel, as recorded or as a derivation of recorded electrodes."""
    name = spec.find(recording.channels)
    if name:
        yield Choice(name, (name,))
    elif modality_of(stream) == "eeg":
        derivations = [spelled for spelled in (spec.name, *spec.spellings) if "-" in spelled] or [spec.name]
        yield from filter(None, (derivation(spelled, recording.channels) for spelled in derivations))


def _alike(recording: Recording | NightRecording, stream: str) -> Iterator[Choice]:
    """The channels whose names tell the stream's modality, the likeliest first."""
    if modality_of(stream) == "eeg":
        yield from eeg_channels(recording)
    else:
        yield from (Choice(name, (name,)) for name in called(modality_of(stream), recording.channels))


def called(modality: str, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that tell ``modality``, which is not EEG, the likeliest first."""
    spaced = {name: name.casefold().replace("_", " ") for name in names}
    return [name for pattern in NAMES[modality] for name in names if re.search(pattern, spaced[name])]
