"""SynthSleepNet's fine-tuned folds on any recording: its stages, and its breathing events."""

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.databases import DATABASES, ChannelSpec, database, plain
from data.recipe import SCALED_UNIT, band_pass
from data.recordings.channels import LOWEST_EEG_RATE, ChannelSignal, Choice, NightRecording, choose, read_channel
from data.recordings.quality import assess, unscored, warnings
from data.recordings.recording import Recording
from data.store import location
from data.streams.epochs import scaled
from data.terms import MODALITIES, TASKS, UNSCORED, InputError
from evaluation.hypnogram import Hypnogram, spectra
from runs.saved import find_folds
from synth.fine_tuned import FineTuned, fine_tuned_in, is_fold

NAMES = {
    "eog": (r"eog", r"\b[lr]oc\b", r"\be[12]\b"),
    "emg": (r"\bchin|\b(sub)?ment", r"^(?!.*(leg|tib|lat|rat)).*emg"),
    "ecg": (r"e[ck]g",),
    "airflow": (r"flow", r"therm", r"nasal|cannula"),
}
"""What the name of a modality's channel may hold where the one that was trained with is not there; likeliest first."""

LOWEST_RATE = 1
"""Hz, of any channel; EEG has a higher limit."""


@dataclass(frozen=True)
class SynthStager:
    """Fine-tuned models, of one fold or of several, whose probabilities are averaged task by task.

    Attributes:
        members: the models of all folds, fold by fold.
    """

    members: tuple[tuple[FineTuned, ...], ...]

    @property
    def models(self) -> list[dict[str, str]]:
        """Where each model comes from: its folder and the SHA-256 of its weights."""
        return [{"folder": str(model.folder), "sha256": model.sha256} for fold in self.members for model in fold]

    def stage(
        self, recording: Recording | NightRecording, channels: Sequence[str] = (), calibrate: bool = True
    ) -> Hypnogram:
        """Stage a recording and find its breathing events.

        For each task those models are used that take most of the modalities that the recording has; of a fold's, the
        one with most labels, then the one that did best on its validation subjects.

        Args:
            recording: an open one.
            channels: modalities' channels, as ``emg=Chin``; without one, the channel that was trained with is looked
                for, then any that its name tells.
            calibrate: must be left on, for each channel is scaled by its own quartiles, as in training.

        Raises:
            InputError: a channel is missing or unusable, or no model of stages can do with those there are.
        """
        if not calibrate:
            raise InputError("SynthSleepNet scales every channel by its own quartiles: leave --no-calibration out.")
        started = time.perf_counter()
        trained = {name: channel for fold in self.members for model in fold for name, channel in model.channels.items()}
        trained = {name: trained[name] for name in MODALITIES if name in trained}
        db, named = self.members[0][0].db, _named(channels, trained)
        found, unusable = _read(recording, _find(recording, trained, named, db), named, db)
        used = {task: models for task in TASKS if (models := self._usable(task, set(found)))}
        if "sleep_stage" not in used:
            self._refuse(recording, trained, found, unusable)
        needed = {name for models in used.values() for model in models for name in model.channels}
        signals = {name: signal for name, signal in found.items() if name in needed}
        told, silent, lost = _judged(recording, signals)
        told = [*unusable, *told]
        told += [
            f"it has no usable channel for {name} ({channel}): staged by the models that do without."
            for name, channel in trained.items()
            if name not in found
        ]
        told += [
            f"{task} is not looked for: its models need {', '.join(_lacking(models, found))}."
            for task, models in self._by_task().items()
            if task not in used
        ]
        read = time.perf_counter()
        prepared = {name: _prepared(signal, trained[name], db) for name, signal in signals.items()}
        probabilities = {
            task: np.mean([m.stage(np.stack([prepared[n] for n in m.channels], axis=1)) for m in models], axis=0)
            for task, models in used.items()
        }
        # As of any epoch without a signal: nobody knows, and where it is short, it counts as wake.
        stages = np.where(silent[:, None], 0.2, probabilities.pop("sleep_stage")).astype(np.float32)
        if not all(np.isfinite(values).all() for values in (stages, *probabilities.values())):
            raise InputError(f"{recording.path}: the network's output is not finite: look at the channels' units.")
        return Hypnogram(
            name=recording.path.stem,
            stages=np.where(unscored(lost), UNSCORED, stages.argmax(axis=1)).astype(np.int32),
            probabilities=stages,
            start=recording.start,
            scored=recording.stages,
            spectra=spectra(signals["eeg"].signals) if "eeg" in signals else None,
            events={task: values[:, 1].astype(np.float32) for task, values in probabilities.items()},
            about={
                "seconds": recording.seconds,
                "channels": [{"modality": name, **signal.about} for name, signal in signals.items()],
                "assumptions": [_assumed(name, signal, trained[name]) for name, signal in signals.items()],
                "warnings": told,
                "models": [
                    {"folder": str(m.folder), "sha256": m.sha256, "task": task, "variant": m.variant}
                    for task, models in used.items()
                    for m in models
                ],
                "took": {"reading": read - started, "model": time.perf_counter() - read},
            },
        )

    def _by_task(self) -> dict[str, list[FineTuned]]:
        models = [model for fold in self.members for model in fold]
        return {task: own for task in TASKS if (own := [model for model in models if model.task == task])}

    def _usable(self, task: str, there: set[str]) -> list[FineTuned]:
        """Of each fold, the model for ``task`` that is best for a recording which has the modalities ``there``."""
        folds = [[m for m in fold if m.task == task and there >= m.channels.keys()] for fold in self.members]
        most = max((len(model.channels) for fold in folds for model in fold), default=0)
        folds = [[model for model in fold if len(model.channels) == most] for fold in folds]
        return [max(fold, key=lambda m: (m.label_fraction, m.validation_macro_f1)) for fold in folds if fold]

    def _refuse(
        self,
        recording: Recording | NightRecording,
        trained: dict[str, str],
        found: Collection[str],
        unusable: list[str],
    ) -> None:
        of_stages = self._by_task().get("sleep_stage")
        if not of_stages:
            raise InputError("these folds hold no model of sleep stages: fine-tune one with --task sleep_stage.")
        if unusable:
            raise InputError(unusable[0])
        lacking = _lacking(of_stages, found)
        raise InputError(
            f"{recording.path} has no channel for {', '.join(f'{name} ({trained[name]})' for name in lacking)}, which "
            f"the models need; it has {', '.join(recording.channels)}: name one with --channel {lacking[0]}=NAME."
        )


def _lacking(models: Sequence[FineTuned], found: Collection[str]) -> list[str]:
    """The modalities that the least demanding of ``models`` misses."""
    return min(([name for name in model.channels if name not in found] for model in models), key=len)


def _named(channels: Sequence[str], trained: dict[str, str]) -> dict[str, str]:
    """The channels that the user named, by modality."""
    named: dict[str, str] = {}
    for text in channels:
        modality, equals, name = text.partition("=")
        if not equals or modality not in trained or not name or modality in named:
            raise InputError(
                f"--channel {text}: SynthSleepNet takes MODALITY=NAME, each once, such as {next(iter(trained))}=NAME; "
                f"these models know {', '.join(trained)}."
            )
        named[modality] = name
    return named


def _find(
    recording: Recording | NightRecording, trained: dict[str, str], named: dict[str, str], db: str
) -> dict[str, Choice]:
    """The channel of each modality that the recording has."""
    found = {}
    for modality, channel in trained.items():
        spec = next((c for c in DATABASES[db].channels if c.name == channel), None)
        spelled = (spec or ChannelSpec(channel)).find(recording.channels)
        if modality in named:
            found[modality] = choose(recording, named[modality])
        elif spelled:
            found[modality] = Choice(spelled, (spelled,))
        elif modality == "eeg":
            derivations = [name for name in (channel, *(spec.spellings if spec else ())) if "-" in name]
            try:
                found[modality] = choose(recording, preferred=derivations[-1] if derivations else "")
            except InputError:
                continue
        else:
            called = [
                name
                for pattern in NAMES[modality]
                for name in recording.channels
                if re.search(pattern, name.casefold().replace("_", " "))
            ]
            if called:
                found[modality] = Choice(called[0], (called[0],))
    return found


def _read(
    recording: Recording | NightRecording, found: dict[str, Choice], named: dict[str, str], db: str
) -> tuple[dict[str, ChannelSignal], list[str]]:
    """The signals of all channels that can be used, and why others cannot.

    Raises:
        InputError: one that the user named cannot be used.
    """
    signals, told = {}, []
    as_stored = DATABASES[db].as_stored
    for modality, choice in found.items():
        try:
            lowest = LOWEST_EEG_RATE if modality in ("eeg", "eog", "emg") else LOWEST_RATE
            signals[modality] = read_channel(recording, choice, as_stored, lowest)
        except InputError as error:
            if modality in named:
                raise
            told.append(str(error))
    return signals, told


def _judged(
    recording: Recording | NightRecording, signals: dict[str, ChannelSignal]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Warnings, and bool (epochs,) twice: where the EEG, or every channel without one, is silent, and of no use."""
    told = [
        f"{signal.name}: {signal.about['missing_seconds']:g} s of the recording are gaps."
        for signal in signals.values()
        if signal.about["missing_seconds"]
    ]
    # Only of EEG is it known how loud it is, and that it is never still: breath stops in every apnea.
    eeg = signals.get("eeg")
    if eeg is None:
        missing = np.all([signal.missing for signal in signals.values()], axis=0)
        return told, missing, missing
    try:
        quality = assess(eeg.signals, eeg.missing)
    except InputError as error:
        raise InputError(f"{recording.path}: channel {eeg.name} cannot be staged; {error}") from None
    told += [f"{eeg.name}: {warning}" for warning in warnings(quality, eeg.about["unit"])]
    return told, quality.silent, quality.silent | quality.outlying


def _prepared(signal: ChannelSignal, channel: str, db: str) -> np.ndarray:
    """Epochs (epochs, 3000) filtered and scaled as the nights that the models were trained on were."""
    if signal.about["header_unit"] == SCALED_UNIT:
        # Of a night file.
        return signal.signals
    band = next((c.band for c in DATABASES[db].channels if c.name == channel), None)
    signals = signal.signals
    if band:
        signals = band_pass(signals.reshape(-1).astype(np.float64), band).reshape(signals.shape)
    return scaled(signals[:, None])[:, 0]


def _assumed(modality: str, signal: ChannelSignal, trained: str) -> str:
    """What was done to a channel, in a sentence."""
    made = " less ".join(signal.about["from"])
    name = signal.name if made == signal.name else f"{signal.name} ({made})"
    instead = "" if plain(signal.name) == plain(trained) else f" in place of {trained}"
    return f"{modality}: channel {name}{instead}, {signal.about['rate_hz']:g} Hz to 100 Hz, scaled by its own quartiles"


def load_synth_stager(folder: str | Path, db: str | None = None) -> SynthStager:
    """The fine-tuned models of one fold, or of the folds of one database, in ``folder``.

    Raises:
        InputError: there is none, one is damaged, or they are of several databases.
    """
    folders, _ = find_folds(location(folder), db, is_fold)
    members = tuple(tuple(fine_tuned_in(fold)) for fold in folders)
    databases = sorted({model.db for fold in members for model in fold})
    if len(databases) > 1:
        raise InputError(f"{folder} holds models of {' and '.join(databases)}: name the folder of one.")
    if db is not None and database(db).db != databases[0]:
        raise InputError(f"{folder} was trained on {databases[0]}, not {db}: choose with --db.")
    if databases[0] not in DATABASES:
        raise InputError(f"{folder} was trained on {databases[0]}, which config.py does not know.")
    return SynthStager(members)
