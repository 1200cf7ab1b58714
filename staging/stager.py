"""The one way from a recording to its stages: choose channels, read them, apply the recipe, predict, decide.

Nothing here knows which network predicts: RecSleepNet and SynthSleepNet are predictors, see :mod:`staging.predictor`.
"""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from data.databases import ChannelSpec, plain
from data.recipe import Level, Recipe
from data.recordings.channels import (
    LOWEST_EEG_RATE,
    ChannelSignal,
    Choice,
    NightRecording,
    choose,
    derivation,
    read_channel,
)
from data.recordings.quality import Quality, assess, calibrated, near_sleep, unscored, warnings
from data.recordings.recording import MICROVOLTS, Recording
from data.terms import MODALITIES, TASKS, UNSCORED, InputError
from evaluation.hypnogram import Hypnogram, spectra
from staging.predictor import Predictor, predict

AnyRecording = Recording | NightRecording

NAMES = {
    "eog": (r"eog", r"\b[lr]oc\b", r"\be[12]\b"),
    "emg": (r"\bchin|\b(sub)?ment", r"^(?!.*(leg|tib|lat|rat)).*emg"),
    "ecg": (r"e[ck]g",),
    "airflow": (r"flow", r"therm", r"nasal|cannula"),
}
"""What the name of a modality's channel may hold where the channel of the recipe is absent; the likeliest first."""

LOWEST_RATES = {"eeg": LOWEST_EEG_RATE, "eog": LOWEST_EEG_RATE, "emg": LOWEST_EEG_RATE, "ecg": 1, "airflow": 1}
"""Hz, the lowest sampling rate at which a channel of each modality is of use."""

LEAST_NEAR_SLEEP = 0.75
"""Share of a recording near sleep from which on its level is that of the whole recording."""


Signals = dict[str, ChannelSignal]
"""The channel of each modality, of those that are predicted together."""


@dataclass(frozen=True)
class Stager:
    """Trained networks, and what it takes to stage any recording with them.

    The ``predictors`` are of one database; those for the same task take different modalities.
    """

    predictors: tuple[Predictor, ...]

    @property
    def models(self) -> list[dict[str, str]]:
        """The folder of each network and the SHA-256 of its weights."""
        return [model for predictor in self.predictors for model in predictor.models]

    @cached_property
    def channels(self) -> dict[str, ChannelSpec]:
        """The channel of each modality that any of the networks takes."""
        known = {name: spec for predictor in self.predictors for name, spec in predictor.recipe.channels.items()}
        return {name: known[name] for name in MODALITIES if name in known}

    def stage(self, recording: AnyRecording, channels: Sequence[str] = (), calibrate: bool = True) -> Hypnogram:
        """Stage a recording, and find its breathing events where there are networks for them.

        For each task the networks are used that take most of the modalities that the recording has.

        Args:
            recording: an open one.
            channels: the channels to use. Networks of one modality take names of channels or derivations, several of
                which are averaged; others take ``MODALITY=NAME``. Without a name, the channel of the recipe is looked
                for, then the most similar one.
            calibrate: whether each channel is brought to the level of the training nights, where it is known.

        Raises:
            InputError: a channel is missing or unusable, no network of stages can do with the channels there are, or a
                probability is not finite.
        """
        started = time.perf_counter()
        if not calibrate and any(predictor.recipe.scaled for predictor in self.predictors):
            raise InputError("these networks scale every channel by its own quartiles: leave --no-calibration out.")
        # Several montages have the same single modality.
        montages, unusable = self._montages(recording, channels, calibrate)
        there = montages[0]
        used = self._usable(there)
        if "sleep_stage" not in used:
            self._refuse(recording, there, unusable)
        read = time.perf_counter()
        network = used["sleep_stage"]
        level = network.recipe.level if calibrate else None
        needed = {name for predictor in used.values() for name in predictor.recipe.channels}
        staged = []
        for montage in montages:
            signals = {name: signal for name, signal in montage.items() if name in needed}
            staged.append(_Staged(recording.path, signals, network, level))
        events = {
            task: predict(predictor, staged[0].inputs(predictor.recipe), recording.path)[:, 1].astype(np.float32)
            for task, predictor in used.items()
            if task != "sleep_stage"
        }
        probabilities, stages = _decide(staged)
        warned = [warning for each in staged for warning in each.warnings()]
        about: dict[str, Any] = {
            "seconds": recording.seconds,
            "channels": [channel for each in staged for channel in each.channels()],
            "level": level and asdict(level),
            "assumptions": [sentence for each in staged for sentence in each.assumptions()],
            "warnings": [*unusable, *warned, *self._absences(there, used, calibrate)],
            "models": [
                {"task": task, "variant": predictor.variant, **model}
                for task, predictor in used.items()
                for model in predictor.models
            ],
            "took": {"reading": read - started, "model": time.perf_counter() - read},
        }
        spectrogram = spectra(there["eeg"].signals) if "eeg" in needed else None
        name, start, scored = recording.path.stem, recording.start, recording.stages
        night = Hypnogram(name, stages, probabilities, start, scored, spectrogram, events, about)
        about["warnings"] = [*night.doubts, *about["warnings"]]
        return night

    def spectra(self, recording: AnyRecording, channels: Sequence[str] = (), calibrate: bool = True) -> np.ndarray:
        """The spectra (epochs, bins) of the EEG that :meth:`stage` would use, as in its hypnogram."""
        return spectra(self._montages(recording, channels, calibrate)[0][0]["eeg"].signals)

    def _montages(
        self, recording: AnyRecording, channels: Sequence[str], calibrate: bool
    ) -> tuple[list[Signals], list[str]]:
        """Each montage of the channels that the user named, and why other channels cannot be used, a sentence each."""
        if len(self.channels) > 1:
            signals, unusable = self._signals(recording, self._named(channels), calibrate)
            return [signals], unusable
        (modality,) = self.channels
        names = [name.removeprefix(f"{modality}=") for name in channels] or [""]
        montages = [self._signals(recording, {modality: name}, calibrate)[0] for name in names]
        used = [signal.name for montage in montages for signal in montage.values()]
        if len(set(used)) < len(used):
            raise InputError(f"{recording.path}: --channel names {used[-1]} twice.")
        return montages, []

    def _named(self, channels: Sequence[str]) -> dict[str, str]:
        """The channels that the user named, by modality."""
        named: dict[str, str] = {}
        for text in channels:
            modality, equals, name = text.partition("=")
            if not equals or modality not in self.channels or not name or modality in named:
                raise InputError(
                    f"--channel {text}: networks of several modalities take MODALITY=NAME, each once, such as "
                    f"{next(iter(self.channels))}=NAME; these models know {', '.join(self.channels)}."
                )
            named[modality] = name
        return named

    def _signals(self, recording: AnyRecording, named: Mapping[str, str], calibrate: bool) -> tuple[Signals, list[str]]:
        """The channels that can be used, and why others cannot; InputError if a named one, or the only one, cannot."""
        signals, unusable = {}, []
        for modality, spec in self.channels.items():
            choice = None
            try:
                choice = _choice(recording, modality, spec, named.get(modality, ""))
                if choice:
                    recipe = next(p.recipe for p in self.predictors if modality in p.recipe.channels)
                    # What is calibrated may have any unit, and says it in µV where it can.
                    as_stored = recipe.as_stored and not (calibrate and recipe.level)
                    signals[modality] = read_channel(recording, choice, as_stored, LOWEST_RATES[modality])
            except InputError as error:
                if modality in named or len(self.channels) == 1:
                    raise
                if choice:
                    unusable.append(str(error))
        return signals, unusable

    def _usable(self, there: Collection[str]) -> dict[str, Predictor]:
        """The predictor of each task that takes most of the modalities that are ``there``, and no other."""
        used = {}
        for task in TASKS:
            able = [p for p in self.predictors if p.task == task and p.recipe.channels.keys() <= set(there)]
            if able:
                used[task] = max(able, key=lambda predictor: len(predictor.recipe.channels))
        return used

    def _lacking(self, task: str, there: Collection[str]) -> list[str]:
        """The modalities that the least demanding predictor of ``task`` lacks."""
        recipes = [predictor.recipe for predictor in self.predictors if predictor.task == task]
        return min(([name for name in recipe.channels if name not in there] for recipe in recipes), key=len)

    def _refuse(self, recording: AnyRecording, there: Collection[str], unusable: Sequence[str]) -> NoReturn:
        if not any(predictor.task == "sleep_stage" for predictor in self.predictors):
            raise InputError("these folds hold no model of sleep stages: fine-tune one with --task sleep_stage.")
        if unusable:
            raise InputError(unusable[0])
        lacking = self._lacking("sleep_stage", there)
        channels = ", ".join(f"{name} ({self.channels[name].name})" for name in lacking)
        raise InputError(
            f"{recording.path} has no channel for {channels}, which the models need; it has "
            f"{', '.join(recording.channels)}: name one with --channel {lacking[0]}=NAME."
        )

    def _absences(self, there: Collection[str], used: Mapping[str, Predictor], calibrate: bool) -> list[str]:
        """What the recording or the networks lack, a sentence each."""
        sentences = [
            f"it has no usable channel for {name} ({spec.name}): staged by the models that do without."
            for name, spec in self.channels.items()
            if name not in there
        ]
        sentences += [
            f"{task} is not looked for: its models need {', '.join(self._lacking(task, there))}."
            for task in dict.fromkeys(predictor.task for predictor in self.predictors)
            if task not in used
        ]
        recipe = used["sleep_stage"].recipe
        if calibrate and not recipe.scaled and recipe.level is None:
            sentences.append("the model does not say its training level, so the signal is not calibrated.")
        return sentences


def _choice(recording: AnyRecording, modality: str, spec: ChannelSpec, name: str) -> Choice | None:
    """The channel ``name``, or else the recipe's, or one like it, or None; InputError if there is no ``name``."""
    if name:
        return choose(recording, name)
    own = spec.find(recording.channels)
    if own:
        return Choice(own, (own,))
    if modality == "eeg":
        derivations = [spelled for spelled in (spec.name, *spec.spellings) if "-" in spelled] or [spec.name]
        found = (derivation(spelled, recording.channels) for spelled in derivations)
        return next((choice for choice in found if choice), None) or choose(recording)
    for pattern in NAMES[modality]:
        for recorded in recording.channels:
            if re.search(pattern, recorded.casefold().replace("_", " ")):
                return Choice(recorded, (recorded,))
    return None


class _Staged:
    """One montage's probabilities of the stages, and what its signals are like.

    Attributes:
        probabilities: (epochs, 5).
        silent: bool (epochs,), where the EEG, or each channel where there is no EEG, holds no signal.
        lost: bool (epochs,), where it holds none that could be staged.
    """

    def __init__(self, path: Path, signals: Signals, predictor: Predictor, level: Level | None) -> None:
        self.path, self.signals, self.predictor, self.level = path, signals, predictor, level
        self.quality: Quality | None = None
        self._made: dict[tuple[Any, ...], np.ndarray] = {}
        # Only of EEG is it known how large it is, and that it is never still: breath stops in every apnea.
        if "eeg" in signals:
            self.quality = self._assess(signals["eeg"])
            self.silent = self.quality.silent
            self.lost = self.quality.silent | self.quality.outlying
        else:
            self.silent = self.lost = np.all([signal.missing for signal in signals.values()], axis=0)
        self.probabilities = predict(predictor, self.inputs(predictor.recipe), path)
        if self.level and self.quality:
            # Training nights end half an hour after sleep; a day of moving about has another level.
            near = near_sleep(self.probabilities.argmax(axis=1)) & ~self.silent
            if near.any() and near.sum() < LEAST_NEAR_SLEEP * (~self.silent).sum():
                self.quality = self.quality.measured(self._applied(predictor.recipe, "eeg"), near)
                self.probabilities = predict(predictor, self.inputs(predictor.recipe), path)

    def _assess(self, eeg: ChannelSignal) -> Quality:
        try:
            quality = assess(eeg.signals, eeg.missing)
        except InputError as error:
            raise InputError(f"{self.path}: channel {eeg.name} cannot be staged; {error}") from None
        if self.level is None:
            return quality
        # What the filter takes away does not count to the level.
        return quality.measured(self._applied(self.predictor.recipe, "eeg"), ~quality.silent)

    def _applied(self, recipe: Recipe, modality: str) -> np.ndarray:
        made_as = (modality, recipe.channels[modality].band, recipe.scaled, recipe.nights_scaled)
        if made_as not in self._made:
            signal = self.signals[modality]
            self._made[made_as] = recipe.applied(modality, signal.signals, signal.prepared)
        return self._made[made_as]

    def inputs(self, recipe: Recipe) -> dict[str, np.ndarray]:
        """The signals (epochs, 3000) of each modality as the network takes them."""
        found = {modality: self._applied(recipe, modality) for modality in recipe.channels}
        if self.level and self.quality:
            found["eeg"] = calibrated(found["eeg"], self.quality, self.level)
        return found

    def channels(self) -> list[dict[str, Any]]:
        """Where each channel comes from and what was done to it, as JSON values."""
        found = [{"modality": name, **signal.about} for name, signal in self.signals.items()]
        if self.quality:
            factor = self.level and self.level.amplitude / self.quality.amplitude
            found[0] |= {"amplitude": self.quality.amplitude, "factor": factor}
        return found

    def assumptions(self) -> list[str]:
        """What was done to each channel, a sentence each."""
        return [self._assumption(modality, signal) for modality, signal in self.signals.items()]

    def _assumption(self, modality: str, signal: ChannelSignal) -> str:
        about, made = signal.about, " less ".join(signal.about["from"])
        channel = f"channel {signal.name}" + (f" ({made})" if made != signal.name else "")
        resampled = f"{about['rate_hz']:g} Hz to 100 Hz"
        if self.predictor.recipe.scaled:
            known = self.predictor.recipe.channels.get(modality)
            instead = f" in place of {known.name}" if known and plain(signal.name) != plain(known.name) else ""
            return f"{modality}: {channel}{instead}, {resampled}, scaled by its own quartiles"
        unit, header = about["unit"], about["header_unit"]
        changed = header and MICROVOLTS.get(header.lower()) != MICROVOLTS.get(unit.lower())
        converted = f"from {header} to {unit}" if changed else f"in {unit}" if header else "in no known unit"
        amplitude = self.quality.amplitude if self.quality else np.nan
        measured = f"level of {amplitude:.3g}" + (f" {unit}" if header else "")
        level = f"as it is, at a {measured}"
        if self.level:
            factor = self.level.amplitude / amplitude
            level = f"times {factor:.3g}, which brings its {measured} to training's {self.level.amplitude:.3g}"
        return f"{channel}, {resampled}, {converted}, {level}"

    def warnings(self) -> list[str]:
        """What a user should know about the signals, a sentence each."""
        found = [
            f"{signal.name}: {signal.about['missing_seconds']:g} s of the recording are gaps."
            for signal in self.signals.values()
            if signal.about["missing_seconds"]
        ]
        if self.quality:
            eeg, expected = self.signals["eeg"], None if self.level else self.predictor.recipe.level
            found += [f"{eeg.name}: {warning}" for warning in warnings(self.quality, eeg.about["unit"], expected)]
        return found


def _decide(staged: Sequence[_Staged]) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities float32 (epochs, 5) of the montages, and the stages int32 (epochs,)."""
    # A montage has no say where it holds no signal; where none does, all stages are as likely.
    silent = np.stack([each.silent for each in staged])
    heard: Any = np.ma.masked_array([each.probabilities for each in staged], np.repeat(silent[..., None], 5, axis=2))
    probabilities = heard.mean(axis=0, dtype=float).filled(1 / 5)
    lost = np.stack([each.lost for each in staged]).all(axis=0)
    stages = np.where(unscored(lost), UNSCORED, probabilities.argmax(axis=1))
    return probabilities.astype(np.float32), stages.astype(np.int32)
