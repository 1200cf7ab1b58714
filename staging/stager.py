"""Stage a recording: choose channels, read them, apply the recipe, predict, decide.

This module does not depend on the kind of network: RecSleepNet and SynthSleepNet are both predictors, see
:mod:`staging.predictor`.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from data.databases import ChannelSpec
from data.recipe import Recipe
from data.recordings.channels import (
    LOWEST_EEG_RATE,
    ChannelSignal,
    Choice,
    NightRecording,
    choose,
    read_channel,
    voters,
)
from data.recordings.modalities import assigned
from data.recordings.quality import near_sleep, unscored
from data.recordings.recording import Recording
from data.terms import MODALITIES, STAGES, TASKS, UNSCORED, InputError, modality_of
from evaluation.hypnogram import Hypnogram
from evaluation.spectra import spectra
from staging.montage import Montage, Signals, assessed, weights_of, without_bad
from staging.predictor import Predictor, predict
from staging.smoothing import smoothed

AnyRecording = Recording | NightRecording

LOWEST_RATES = {"eeg": LOWEST_EEG_RATE, "eog": LOWEST_EEG_RATE, "emg": LOWEST_EEG_RATE, "ecg": 1, "airflow": 1}
"""The lowest usable sampling rate of each modality's channels, in Hz."""


class Reader(ABC):
    """Reads what networks take from any recording: a channel for each stream of their recipes."""

    @property
    @abstractmethod
    def recipes(self) -> list[Recipe]:
        """The recipe of each network."""

    @cached_property
    def channels(self) -> dict[str, ChannelSpec]:
        """The channel of each stream that any of the networks takes, in the order of the modalities."""
        known = {name: spec for recipe in self.recipes for name, spec in recipe.channels.items()}
        names = sorted(known, key=lambda name: (MODALITIES.index(modality_of(name)), name))
        return {name: known[name] for name in names}

    def named(self, channels: Sequence[str]) -> dict[str, str]:
        """The channels that the user named, by stream; if there is only one stream, NAME means STREAM=NAME."""
        named: dict[str, str] = {}
        first, *others = self.channels
        for text in channels:
            stream, equals, name = text.partition("=")
            if not others and (not equals or stream != first):
                stream, name = first, text
            if stream not in self.channels or not name or stream in named:
                raise InputError(
                    f"--channel {text}: for these models, write MODALITY=NAME, such as {first}=NAME, with each of "
                    f"{', '.join(self.channels)} at most once."
                )
            named[stream] = name
        return named

    def signals(self, recording: AnyRecording, named: Mapping[str, str], calibrate: bool) -> tuple[Signals, list[str]]:
        """The channels that can be used, and why others cannot; InputError if a named one, or the only one, cannot."""
        signals, unusable = {}, []
        for stream, choice in assigned(recording, self.channels, named).items():
            try:
                signals[stream] = self._read(recording, stream, choice, calibrate)
            except InputError as error:
                if stream in named or len(self.channels) == 1:
                    raise
                unusable.append(str(error))
        return signals, unusable

    def _read(self, recording: AnyRecording, modality: str, choice: Choice, calibrate: bool) -> ChannelSignal:
        recipe = next(recipe for recipe in self.recipes if modality in recipe.channels)
        # A signal that is calibrated may have any unit; it is read in µV if possible, for messages with a known unit.
        as_stored = recipe.as_stored and not (calibrate and recipe.level)
        return read_channel(recording, choice, as_stored, LOWEST_RATES[modality_of(modality)])

    def lacking(self, recording: AnyRecording, modalities: Sequence[str]) -> InputError:
        """The error for a recording without a channel for ``modalities``, which the models need."""
        channels = ", ".join(f"{name} ({self.channels[name].name})" for name in modalities)
        return InputError(
            f"{recording.path} has no channel for {channels}, which the models need: name one of "
            f"{', '.join(recording.channels)} with --channel {modalities[0]}=NAME."
        )


@dataclass(frozen=True)
class Stager(Reader):
    """Trained networks that can stage any recording.

    The ``predictors`` were trained on one database; those for the same task take different modalities.
    """

    predictors: tuple[Predictor, ...]

    @property
    def models(self) -> list[dict[str, str]]:
        """The folder of each network and the SHA-256 of its weights."""
        return [model for predictor in self.predictors for model in predictor.models]

    @property
    def recipes(self) -> list[Recipe]:
        return [predictor.recipe for predictor in self.predictors]

    def stage(
        self, recording: AnyRecording, channels: Sequence[str] = (), calibrate: bool = True, smooth: bool = True
    ) -> Hypnogram:
        """Stage a recording, and find its breathing events if there are networks for them.

        For each task, the network is used that takes most of the modalities that the recording has.

        Args:
            recording: an open recording.
            channels: the channels to use. For networks of one modality, they are names of channels or derivations; the
                probabilities of several are averaged. For other networks, each is ``MODALITY=NAME``. Without a name,
                the recipe's channel is used, or else the most similar one; networks of EEG alone then take up to three
                channels, and a better signal counts more.
            calibrate: whether to scale each channel to the level of the training nights, if that is known.
            smooth: whether the epochs before and after an epoch help to decide its stage; see
                :mod:`staging.smoothing`.

        Raises:
            InputError: a channel is missing or unusable, no network for stages can use the recording's channels, or a
                probability is not finite.
        """
        started = time.perf_counter()
        if not calibrate and any(predictor.recipe.scaled for predictor in self.predictors):
            raise InputError(
                "these models always scale every channel by its own quartiles: leave --no-calibration out."
            )
        # If there are several montages, all have the same single modality.
        found, unusable = self._montages(recording, channels, calibrate)
        there = found[0]
        used = self._usable(there)
        if "sleep_stage" not in used:
            self._refuse(recording, there, unusable)
        read = time.perf_counter()
        network = used["sleep_stage"]
        level = network.recipe.level if calibrate else None
        needed = {name for predictor in used.values() for name in predictor.recipe.channels}
        montages = assessed(recording.path, found, needed, network.recipe, level, unusable)
        if not channels:
            montages = without_bad(montages, unusable)
        elif len(montages) < len(found):
            raise InputError(unusable[0])
        probabilities = self._probabilities(montages, network, recording.path)
        events = {
            task: predict(predictor, montages[0].inputs(predictor.recipe), recording.path)[:, 1].astype(np.float32)
            for task, predictor in used.items()
            if task != "sleep_stage"
        }
        heard = ~np.all([montage.silent for montage in montages], axis=0)
        better = smoothed(probabilities, heard, network.transitions) if smooth else None
        lost = np.all([montage.lost for montage in montages], axis=0)
        decided = (probabilities if better is None else better).argmax(axis=1)
        stages = np.where(unscored(lost), UNSCORED, decided).astype(np.int32)
        warned = [warning for montage in montages for warning in montage.warnings()]
        about: dict[str, Any] = {
            "seconds": recording.seconds,
            "channels": [
                {**channel, "weight": round(float(weights.mean()), 3)}
                for montage, weights in zip(montages, weights_of(montages), strict=True)
                for channel in montage.channels()
            ],
            "level": level and asdict(level),
            "smoothed": smooth,
            "assumptions": [sentence for montage in montages for sentence in montage.assumptions()],
            "warnings": [*unusable, *warned, *self._absences(there, used, calibrate)],
            "models": [
                {"task": task, "variant": predictor.variant, **model}
                for task, predictor in used.items()
                for model in predictor.models
            ],
            "took": {"reading": read - started, "model": time.perf_counter() - read},
        }
        spectrogram = spectra(montages[0].signals["eeg"].signals) if "eeg" in needed else None
        name, start, scored = recording.path.stem, recording.start, recording.stages
        night = Hypnogram(name, stages, probabilities, start, scored, spectrogram, events, about, better)
        about["warnings"] = [*night.doubts, *about["warnings"]]
        return night

    def spectra(self, recording: AnyRecording, channel: str, calibrate: bool = True) -> np.ndarray:
        """The spectra (epochs, bins) of an EEG channel; :meth:`stage` gives those of the first EEG channel it uses."""
        return spectra(self._read(recording, "eeg", choose(recording, channel), calibrate).signals)

    def _probabilities(self, montages: Sequence[Montage], network: Predictor, path: Path) -> np.ndarray:
        """The montages' mean probabilities of the stages, float32 (epochs, 5)."""
        probabilities = _voted(montages, network, path)
        near = near_sleep(probabilities.argmax(axis=1))
        # Training nights end half an hour after sleep; the level of a whole day with movement is different.
        changed = [montage.measure_again(near) for montage in montages]
        return _voted(montages, network, path) if any(changed) else probabilities

    def _montages(
        self, recording: AnyRecording, channels: Sequence[str], calibrate: bool
    ) -> tuple[list[Signals], list[str]]:
        """The montages to stage, and a sentence for each other channel that says why it cannot be used.

        They hold the channels that the user named, or else, for networks that take only EEG, some of the best.
        """
        if len(self.channels) > 1:
            signals, unusable = self.signals(recording, self.named(channels), calibrate)
            return [signals], unusable
        (modality,) = self.channels
        if channels or modality != "eeg":
            each = [self.named([name]) for name in channels] or [{}]
            montages = [self.signals(recording, named, calibrate)[0] for named in each]
            used = [signal.name for montage in montages for signal in montage.values()]
            if len(set(used)) < len(used):
                raise InputError(
                    f"{recording.path}: --channel names {next(n for n in used if used.count(n) > 1)} twice: name it "
                    "once."
                )
            return montages, []
        montages, unusable = [], []
        # If no channel is EEG, choose() raises an error that says so.
        first = assigned(recording, self.channels, {}).get(modality) or choose(recording)
        for choice in voters(recording, first):
            try:
                montages.append({modality: self._read(recording, modality, choice, calibrate)})
            except InputError as error:
                unusable.append(str(error))
        if not montages:
            raise InputError(unusable[0])
        return montages, unusable

    def _usable(self, there: Collection[str]) -> dict[str, Predictor]:
        """For each task, the predictor that takes most of the modalities that are ``there``, and no others."""
        used = {}
        for task in TASKS:
            able = [p for p in self.predictors if p.task == task and p.recipe.channels.keys() <= set(there)]
            if able:
                used[task] = max(able, key=lambda predictor: len(predictor.recipe.channels))
        return used

    def _lacking(self, task: str, there: Collection[str]) -> list[str]:
        """The missing modalities of the predictor for ``task`` that lacks the fewest."""
        recipes = [predictor.recipe for predictor in self.predictors if predictor.task == task]
        return min(([name for name in recipe.channels if name not in there] for recipe in recipes), key=len)

    def _refuse(self, recording: AnyRecording, there: Collection[str], unusable: Sequence[str]) -> NoReturn:
        if not any(predictor.task == "sleep_stage" for predictor in self.predictors):
            raise InputError("these folds hold no model for sleep stages: fine-tune one with --task sleep_stage.")
        if unusable:
            raise InputError(unusable[0])
        raise self.lacking(recording, self._lacking("sleep_stage", there))

    def _absences(self, there: Collection[str], used: Mapping[str, Predictor], calibrate: bool) -> list[str]:
        """What the recording or the networks lack, one sentence for each."""
        sentences = [
            f"it has no usable channel for {name} ({spec.name}), so models that do not need one staged it."
            for name, spec in self.channels.items()
            if name not in there
        ]
        sentences += [
            f"{task} was not looked for, because its models need {', '.join(self._lacking(task, there))}."
            for task in dict.fromkeys(predictor.task for predictor in self.predictors)
            if task not in used
        ]
        recipe = used["sleep_stage"].recipe
        if calibrate and not recipe.scaled and recipe.level is None:
            sentences.append("the model does not say its training level, so the signal is not calibrated.")
        return sentences


def _voted(montages: Sequence[Montage], predictor: Predictor, path: Path) -> np.ndarray:
    """The montages' probabilities float32 (epochs, 5), averaged by their weights."""
    inputs = [montage.inputs(predictor.recipe) for montage in montages]
    if len(montages) == 1:
        found = predict(predictor, inputs[0], path)[None]
    else:
        found = predict(predictor, {name: np.stack([each[name] for each in inputs]) for name in inputs[0]}, path)
    weights = weights_of(montages)
    probabilities = (weights[..., None] * found).sum(axis=0)
    # Where no montage holds a signal, all stages are equally likely.
    probabilities[weights.sum(axis=0) == 0] = 1 / len(STAGES)
    return probabilities.astype(np.float32)
