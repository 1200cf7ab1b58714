"""Turn one recording and its scoring into the arrays of a night.

The order of the steps is fixed: choose channels, convert units, resample, filter, align epochs with the scoring, trim
wake, remove epochs without a stage; the last two are left out for a database whose nights are kept whole.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from data.databases import ChannelSpec, Database
from data.nights.night import around_sleep, night_from_arrays
from data.prepare.sources import Source
from data.recipe import SCALED_UNIT, band_pass, in_epochs, quartiles, resample, scale
from data.recordings.recording import Recording, open_recording
from data.scorings import read_scoring
from data.scorings.scoring import Scoring, W
from data.terms import EPOCH_SAMPLES, EPOCH_SECONDS, SAMPLING_RATE, UNSCORED, VERSION, InputError, whole_epochs

if TYPE_CHECKING:
    from config import PreparationConfig


def settings(database: Database, channels: Sequence[ChannelSpec], config: "PreparationConfig") -> dict[str, Any]:
    """What a night depends on besides its recording, as JSON values."""
    return {
        "db": database.db,
        "channels": [{"name": c.name, "band_hz": list(c.band) if c.band else None} for c in channels],
        "as_stored": database.as_stored,
        "multimodal": database.scaled,
        "spec": database.details,
        # Left out otherwise: nights that were prepared before there was this choice do not say it either.
        **({"whole": True} if database.whole else {}),
        **asdict(config),
    }


def sizes(source: Source) -> dict[str, int]:
    """The size of each file that a night is made from, to notice when one changes."""
    return {path.name: path.stat().st_size for path in (source.recording, *source.scoring.values())}


def convert(
    source: Source, database: Database, channels: Sequence[ChannelSpec], config: "PreparationConfig"
) -> dict[str, np.ndarray]:
    """The arrays of a night file.

    They are ``x`` float32 (epochs, 3000), or (epochs, channels, 3000) with several channels or a multimodal database;
    ``ch_names``; ``y`` int32 (epochs,); ``fs``; ``events`` uint8 (epochs, kinds) and ``event_names`` if the scoring
    has them; ``about``, a JSON text that says where everything comes from.

    Raises:
        InputError: the recording or the scoring is bad, or they do not belong together.
    """
    with open_recording(source.recording) as recording:
        names = find_channels(recording, channels)
        scoring = read_scoring(database, source.scoring, recording)
        notes = list(scoring.notes)
        total, kept, trimmed = chosen_epochs(source, recording, scoring, database, config, notes)
        stages = scoring.stages[:total]
        x = np.empty((len(kept), len(channels), EPOCH_SAMPLES), np.float32)
        described = []
        for position, (channel, name) in enumerate(zip(channels, names, strict=True)):
            signal, about_channel = _read(recording, channel, name, database)
            epochs = in_epochs(signal, total, round(scoring.start * SAMPLING_RATE))
            # Values too large for float32 become infinite, and are refused below.
            with np.errstate(over="ignore"):
                x[:, position] = epochs[kept]
            described.append(about_channel)
    arrays = {
        "x": x if database.scaled or len(channels) > 1 else x[:, 0],
        "ch_names": np.array([channel.name for channel in channels]),
        "y": stages[kept].astype(np.int32),
        "fs": np.float64(SAMPLING_RATE),
    }
    if scoring.event_names:
        arrays["events"] = scoring.event_labels(total, config.event_overlap_seconds)[kept]
        arrays["event_names"] = np.array(scoring.event_names)
    about = {
        "version": VERSION,
        "recording": source.recording.name,
        "scoring": sorted(path.name for path in source.scoring.values()),
        "bytes": sizes(source),
        "channels": described,
        "trimmed_minutes": trimmed * EPOCH_SECONDS / 60,
        "dropped_epochs": int(total - trimmed - len(kept)),
        "events_in_sleep": scoring.event_counts(kept[stages[kept] > W]),
        "notes": notes,
        "settings": settings(database, channels, config),
    }
    arrays["about"] = np.array(json.dumps(about))
    # A night that reading would refuse is never written.
    night_from_arrays(source.recording, arrays, tuple(channel.name for channel in channels))
    return arrays


def find_channels(recording: Recording, channels: Sequence[ChannelSpec]) -> list[str]:
    """What the recording calls ``channels``; InputError if it lacks one."""
    names = [channel.find(recording.channels) for channel in channels]
    if None in names:
        lacking, listed = channels[names.index(None)], ", ".join(recording.channels)
        spelled = f" (nor {', '.join(lacking.spellings)})" if lacking.spellings else ""
        raise InputError(
            f"{recording.path} has no channel {lacking.name}{spelled}: choose among {listed}, with --select_ch or in "
            "the spec."
        )
    return [name for name in names if name is not None]


def _read(
    recording: Recording, channel: ChannelSpec, name: str, database: Database
) -> tuple[np.ndarray, dict[str, Any]]:
    """A whole channel (samples,) at 100 Hz as the night file has it, and how it was made, for a network's recipe."""
    header = recording.channel(name)
    signal = resample(recording.read(header, database.as_stored), header.rate)
    if channel.band:
        signal = band_pass(signal, channel.band)
    spread = quartiles(signal)
    unit = header.unit_read(database.as_stored) or "as stored"
    about = {
        "name": channel.name,
        "from": name,
        "rate_hz": header.rate,
        "header_unit": header.unit,
        "unit": SCALED_UNIT if database.scaled else unit,
        "spellings": list(channel.spellings),
        "band_hz": list(channel.band) if channel.band else None,
        "quartiles": None if database.scaled else list(spread),
    }
    return scale(signal, spread) if database.scaled else signal, about


def chosen_epochs(
    source: Source,
    recording: Recording,
    scoring: Scoring,
    database: Database,
    config: "PreparationConfig",
    notes: list[str],
) -> tuple[int, np.ndarray, int]:
    """How many epochs signal and scoring have in common, the numbers of those to keep, and how many are trimmed.

    Raises:
        InputError: signal and scoring do not belong together, or no epoch has a stage.
    """
    total = _common_epochs(source, recording, scoring, notes)
    stages = scoring.stages[:total]
    kept, trimmed = (np.arange(total), 0) if database.whole else _kept(stages, config.wake_minutes)
    if (stages[kept] == UNSCORED).all():
        raise InputError(f"{source.recording}: none of its epochs has a stage: check its scoring.")
    return total, kept, trimmed


def _common_epochs(source: Source, recording: Recording, scoring: Scoring, notes: list[str]) -> int:
    """How many epochs the signal and the scoring have in common; their numbers may differ by one."""
    signal = whole_epochs(recording.seconds - scoring.start)
    listed = len(scoring.stages)
    # Scorings often end with a long unscored entry, beyond the end of the recording.
    scored = int(np.flatnonzero(scoring.stages != UNSCORED).max(initial=-1)) + 1
    if scored > signal + 1 or listed < signal - 1:
        files, its = ", ".join(path.name for path in source.scoring.values()), scored if scored > signal else listed
        lengths = f"{source.recording} has {signal} epochs of {EPOCH_SECONDS} s, but its scoring {files} has {its}"
        raise InputError(f"{lengths}, and they may differ by only one: check that they belong together.")
    if listed != signal and (scored > signal or listed < signal):
        notes.append(f"signal has {signal} epochs and scoring has {listed}: both cut to the shorter")
    return min(signal, listed)


def _kept(stages: np.ndarray, wake_minutes: float) -> tuple[np.ndarray, int]:
    """Positions of the epochs to keep, and how many were trimmed at both ends."""
    within = np.arange(len(stages))[around_sleep(stages, wake_minutes)]
    return within[stages[within] != UNSCORED], len(stages) - len(within)
