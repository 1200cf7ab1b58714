"""Trained networks, one or all folds, and what they need to stage any recording."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.databases import database
from data.recordings.channels import ChannelSignal, NightRecording, choose, open_signals, read_channel
from data.recordings.quality import (
    REFERENCE_LEVELS,
    Level,
    Quality,
    assess,
    calibrated,
    near_sleep,
    unscored,
    warnings,
)
from data.recordings.recording import MICROVOLTS, Recording
from data.store import location
from data.terms import UNSCORED, InputError
from evaluation.hypnogram import Hypnogram, spectra
from recsleep.ensemble import Ensemble
from recsleep.model import RecSleepNet
from recsleep.staging import stage_epochs
from recsleep.tensorflow1 import checkpoint_data, is_model, load_model
from runs.saved import WEIGHTS, find_folds, sha256

if TYPE_CHECKING:
    import mne

LEAST_NEAR_SLEEP = 0.75
"""Share of a recording near sleep from which on its level is that of the whole."""


@dataclass(frozen=True)
class Stager:
    """A network, or several whose probabilities are averaged, with what staging a recording takes.

    Attributes:
        network: one of them, or all as an ensemble.
        level: that of the training nights; None where it is not known, so that no night can be calibrated.
        channel: that the training nights had, "" if unknown.
        as_stored: whether these were in the recordings' own unit, else in µV.
        models: where each network comes from: its folder and the SHA-256 of its weights.
    """

    network: RecSleepNet | Ensemble
    level: Level | None = None
    channel: str = ""
    as_stored: bool = False
    models: list[dict[str, str]] = field(default_factory=list)

    def stage(
        self, recording: Recording | NightRecording, channels: Sequence[str] = (), calibrate: bool = True
    ) -> Hypnogram:
        """Stage a recording.

        Args:
            recording: an open one.
            channels: the channels or derivations to stage and average; without them the best one is chosen.
            calibrate: bring each channel to the training level; else it is taken as it is.

        Raises:
            InputError: a channel is missing or unusable, or the network's output is no number.
        """
        started = time.perf_counter()
        level = self.level if calibrate else None
        eegs: list[ChannelSignal] = []
        for wanted in channels or ("",):
            eegs.append(read_channel(recording, choose(recording, wanted, self.channel), self.as_stored and not level))
        if len({eeg.name for eeg in eegs}) < len(eegs):
            raise InputError(f"{recording.path}: --channel names {eegs[-1].name} twice.")
        read = time.perf_counter()
        staged = [self._stage(recording, eeg, level) for eeg in eegs]
        silent = np.stack([quality.silent for _, quality in staged])
        lost = np.stack([quality.silent | quality.outlying for _, quality in staged]).all(axis=0)
        # A channel has no say where it holds no signal; where none does, all stages are as likely.
        weights = np.where(silent.all(axis=0), 0, ~silent)[..., None]
        probabilities = np.sum([p * w for (p, _), w in zip(staged, weights, strict=True)], axis=0)
        probabilities = np.where(weights.any(axis=0), probabilities / np.maximum(weights.sum(axis=0), 1), 0.2)
        stages = np.where(unscored(lost), UNSCORED, probabilities.argmax(axis=1)).astype(np.int32)
        told = [
            f"{eeg.name}: {eeg.about['missing_seconds']:g} s of the recording are gaps."
            for eeg in eegs
            if eeg.about["missing_seconds"]
        ]
        for eeg, (_, quality) in zip(eegs, staged, strict=True):
            expected = self.level if level is None else None
            told += [f"{eeg.name}: {warning}" for warning in warnings(quality, eeg.about["unit"], expected)]
        if calibrate and level is None:
            told.append("the model does not say its training level, so the signal is not calibrated.")
        return Hypnogram(
            name=recording.path.stem,
            stages=stages,
            probabilities=probabilities.astype(np.float32),
            start=recording.start,
            scored=recording.stages,
            spectra=spectra(eegs[0].signals),
            about={
                "seconds": recording.seconds,
                "channels": [
                    {
                        **eeg.about,
                        "amplitude": quality.amplitude,
                        "factor": level and level.amplitude / quality.amplitude,
                    }
                    for eeg, (_, quality) in zip(eegs, staged, strict=True)
                ],
                "level": level and {"amplitude": level.amplitude, "offset": level.offset},
                "assumptions": [_assumed(eeg, quality, level) for eeg, (_, quality) in zip(eegs, staged, strict=True)],
                "warnings": told,
                "models": self.models,
                "took": {"reading": read - started, "model": time.perf_counter() - read},
            },
        )

    def _stage(
        self, recording: Recording | NightRecording, eeg: ChannelSignal, level: Level | None
    ) -> tuple[np.ndarray, Quality]:
        """Probabilities (epochs, 5) of one channel, and what its signal is like."""
        try:
            quality = assess(eeg.signals, eeg.missing)
        except InputError as error:
            raise InputError(f"{recording.path}: channel {eeg.name} cannot be staged; {error}") from None
        probabilities = self._probabilities(recording, eeg, quality, level)
        if level:
            # Training nights end half an hour after sleep; a day of moving about has another level.
            near = near_sleep(probabilities.argmax(axis=1)) & ~quality.silent
            if near.any() and near.sum() < LEAST_NEAR_SLEEP * (~quality.silent).sum():
                quality = quality.measured(eeg.signals, near)
                probabilities = self._probabilities(recording, eeg, quality, level)
        return probabilities, quality

    def _probabilities(
        self, recording: Recording | NightRecording, eeg: ChannelSignal, quality: Quality, level: Level | None
    ) -> np.ndarray:
        signals = calibrated(eeg.signals, quality, level) if level else eeg.signals
        probabilities = stage_epochs(self.network, signals)
        if not np.isfinite(probabilities).all():
            raise InputError(
                f"{recording.path}: the network's output is not finite on channel {eeg.name}: look at its unit."
            )
        return probabilities


def _assumed(eeg: ChannelSignal, quality: Quality, level: Level | None) -> str:
    """What was done to a channel, in a sentence."""
    unit, header = eeg.about["unit"], eeg.about["header_unit"]
    made = " less ".join(eeg.about["from"])
    changed = header and MICROVOLTS.get(header.lower()) != MICROVOLTS.get(unit.lower())
    converted = f"from {header} to {unit}" if changed else f"in {unit}" if header else "in no known unit"
    measured = f"{quality.amplitude:.3g}" + (f" {unit}" if header else "")
    scaled = (
        f"times {level.amplitude / quality.amplitude:.3g}, which brings its level of {measured} to training's "
        f"{level.amplitude:.3g}"
        if level
        else f"as it is, at a level of {measured}"
    )
    name = eeg.name if made == eeg.name else f"{eeg.name} ({made})"
    return f"channel {name}, {eeg.about['rate_hz']:g} Hz to 100 Hz, {converted}, {scaled}"


def load_stager(folder: str | Path, db: str | None = None) -> Stager:
    """Load one model, or the folds of one database, from ``folder``.

    Args:
        folder: a model of ours or a published TensorFlow-1 checkpoint, or a folder of such folds by number, or one that
            holds that folder under a database's name.
        db: the database that the models were trained on, where neither they nor the folders' names tell.

    Raises:
        InputError: there is no model, one is damaged, or they are of several databases or architectures.
    """
    folder = location(folder)
    folders, named = find_folds(folder, db, is_model)
    saved = [load_model(path) for path in folders]
    databases = {model.metadata.get("db", named) for model in saved}
    if db is not None and databases != {database(db).db}:
        raise InputError(f"{folder} was trained on {databases.pop()}, not {db}: choose with --db.")
    if None in databases:
        raise InputError(f"{folder} does not say which database it was trained on: name it with --db.")
    if len(databases) > 1:
        raise InputError(f"{folder} holds models of {' and '.join(sorted(databases))}: name the folder of one.")
    spec = database(databases.pop())
    levels = [_level(model.metadata) if model.metadata else REFERENCE_LEVELS.get(spec.db) for model in saved]
    known = [level for level in levels if level]
    median = [float(np.median([getattr(level, name) for level in known])) for name in ("amplitude", "offset") if known]
    networks = [model.network for model in saved]
    return Stager(
        networks[0] if len(networks) == 1 else Ensemble(networks),
        Level(*median) if len(known) == len(levels) else None,
        saved[0].metadata.get("channel") or spec.channel,
        spec.as_stored,
        [
            {"folder": str(path), "sha256": _hash(path, model.metadata)}
            for path, model in zip(folders, saved, strict=True)
        ],
    )


def _level(metadata: dict[str, Any]) -> Level | None:
    amplitude, offset = metadata.get("amplitude"), metadata.get("offset", 0.0)
    numbers = all(isinstance(value, (int, float)) and np.isfinite(value) for value in (amplitude, offset))
    return Level(float(amplitude), float(offset)) if numbers and amplitude > 0 else None


def _hash(folder: Path, metadata: dict[str, Any]) -> str:
    return metadata["sha256"][WEIGHTS] if metadata else sha256(checkpoint_data(folder))


def stager(model: Stager | RecSleepNet | str | Path) -> Stager:
    """``model`` as a stager, loaded if it is a folder."""
    if isinstance(model, (RecSleepNet, Ensemble)):
        return Stager(model)
    return model if isinstance(model, Stager) else load_stager(model)


def stage(
    recording: "mne.io.BaseRaw | str | Path",
    model: Stager | RecSleepNet | str | Path,
    channels: str | Sequence[str] = (),
    calibrate: bool = True,
) -> Hypnogram:
    """The hypnogram of a recording.

    Args:
        recording: what MNE has opened, or a file in a format that it reads, or a night file.
        model: a folder of one model or of folds, or what :func:`load_stager` made of it, or a network.
        channels: the channel, or several whose probabilities are averaged; without it the best one is chosen.
        calibrate: bring the signal to the level of the training data.

    Raises:
        InputError: the recording, a channel or the model cannot be used.

    Example:

    >>> hypnogram = stage(mne.io.read_raw("night.edf"), "pretrained_model/sleepedfx", "C3-A2")
    >>> hypnogram.to_frame(), hypnogram.plot(), hypnogram.statistics()
    """
    model = stager(model)
    channels = [channels] if isinstance(channels, str) else list(channels)
    channels = [channel for channel in channels if channel]
    if not isinstance(recording, (str, Path)):
        path = Path(next((str(name) for name in recording.filenames if name), "recording"))
        return model.stage(Recording(path, None, recording), channels, calibrate)
    with open_signals(location(recording), channels) as opened:
        return model.stage(opened, channels, calibrate)
