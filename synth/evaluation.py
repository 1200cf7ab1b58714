"""Evaluation of SynthSleepNet's fine-tuned folds on the subjects they never saw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.databases import Database
from data.nights.files import read_about
from data.nights.folds import find_nights, missing_subjects
from data.nights.night import MissingChannel, read_night
from data.streams.epochs import scaled
from data.terms import EPOCH_SECONDS, TASKS, UNSCORED, InputError
from evaluation.breathing import Agreement, apnea_hypopnea_index
from evaluation.events import EventScores
from evaluation.predictions import save_predictions, scores_of
from evaluation.stages import Scores
from synth.embeddings import labels_of
from synth.fine_tuned import fine_tuned_in


@dataclass(frozen=True)
class EvaluatedNight:
    """What a model found in one test night.

    Attributes:
        name: of the night.
        labels: int (epochs,), the scorer's, of its scored epochs.
        probabilities: (epochs, classes).
        stages: int (epochs,), the scorer's stages of the same epochs.
        counts: how many events of each kind the scorer found in sleep; empty where the night file does not tell.
    """

    name: str
    labels: np.ndarray
    probabilities: np.ndarray
    stages: np.ndarray
    counts: dict[str, int]


@dataclass(frozen=True)
class EvaluatedModel:
    """A fine-tuned model of one fold and what it found in that fold's test nights."""

    fold: int
    task: str
    variant: str
    """What else distinguishes it: share of the labels, modalities, temporal context module."""
    nights: tuple[EvaluatedNight, ...]

    @property
    def scores(self) -> Scores | EventScores:
        found = [scores_of(self.task, night.labels, night.probabilities) for night in self.nights]
        return sum(found[1:], found[0])


def evaluate_fold(spec: Database, fold: int, folder: Path, data: Path) -> list[EvaluatedModel]:
    """All fine-tuned models in ``folder`` on the test nights found in ``data``; those without a modality are said.

    Raises:
        InputError: a model is damaged or of another database, or a night is not one that it can stage.
    """
    found = []
    for model in fine_tuned_in(folder):
        if model.db != spec.db:
            raise InputError(f"{model.folder} was trained on {model.db}, not {spec.db}: choose with --db.")
        tested = replace(spec, subjects=model.subjects)
        files = find_nights(tested, data)
        absent = missing_subjects(tested, files)
        if absent:
            print(f"fold {fold}: no night file of subject {', '.join(map(str, absent))} in {data}.")
        nights = []
        paths = [path for own in files.values() for path in own]
        bar = tqdm(paths, desc=f"fold {fold} {model.task}", unit="night", leave=False)
        for file in bar:
            try:
                night = read_night(file, tuple(model.channels.values()))
            except MissingChannel as error:
                bar.write(f"left out: {error}")
                continue
            labels, scored = labels_of(night).get(model.task), night.stages != UNSCORED
            if labels is None:
                bar.write(f"left out: {file} holds no breathing events to compare {model.task} with.")
                continue
            signals = night.signals if spec.scaled else scaled(night.signals)
            found_there, counts = model.stage(signals)[scored], _counts(read_about(file))
            nights.append(EvaluatedNight(night.name, labels[scored], found_there, night.stages[scored], counts))
        if nights:
            found.append(EvaluatedModel(fold, model.task, model.variant, tuple(nights)))
    return found


def _counts(about: dict[str, Any]) -> dict[str, int]:
    """The events that preparation counted; empty where it did not."""
    counts = about.get("events_in_sleep")
    return counts if isinstance(counts, dict) and all(isinstance(n, int) for n in counts.values()) else {}


def indices(models: Sequence[EvaluatedModel]) -> dict[str, Agreement]:
    """The apnea-hypopnea index of each night, by variant, where one has models of both apnea and hypopnea.

    Hours of sleep are those that the variant's own stages give, or, where it has none, the scorer's. The scored index
    counts the scorer's events; of a night file that does not count them, runs of its epochs, by the same rule.
    """
    found = {}
    for variant in dict.fromkeys(model.variant for model in models):
        rows = []
        for fold in dict.fromkeys(model.fold for model in models):
            own = {m.task: {n.name: n for n in m.nights} for m in models if (m.variant, m.fold) == (variant, fold)}
            if not {"apnea", "hypopnea"} <= own.keys():
                continue
            for name in own["apnea"].keys() & own["hypopnea"].keys():
                both = [own[task][name] for task in ("apnea", "hypopnea")]
                staged = own.get("sleep_stage", {}).get(name)
                scored_sleep = both[0].stages > 0
                sleep = scored_sleep if staged is None else staged.probabilities.argmax(axis=1) > 0
                estimated = np.any([night.probabilities[:, 1] > 0.5 for night in both], axis=0)
                rows.append((name, apnea_hypopnea_index(estimated, sleep), _scored_index(both, scored_sleep)))
        rows = sorted(row for row in rows if np.isfinite(row[1:]).all())
        if rows:
            names, estimated, scored = zip(*rows, strict=True)
            found[variant] = Agreement(names, np.array(estimated), np.array(scored))
    return found


def _scored_index(both: Sequence[EvaluatedNight], asleep: np.ndarray) -> float:
    """The scorer's index of a night, of which ``both`` tell apnea and hypopnea; NaN without sleep."""
    counts, kinds = both[0].counts, (*TASKS["apnea"], *TASKS["hypopnea"])
    if set(kinds) <= counts.keys() and asleep.any():
        return sum(counts[kind] for kind in kinds) / (np.count_nonzero(asleep) * EPOCH_SECONDS / 3600)
    return apnea_hypopnea_index(np.any([night.labels == 1 for night in both], axis=0), asleep)


def report(models: Sequence[EvaluatedModel], save: Path | None) -> dict[str, Any]:
    """Print all figures, save predictions and plots below ``save``, and return the figures as JSON values."""
    told: dict[str, Any] = {"models": [], "pooled": [], "indices": []}
    for model in models:
        scores = model.scores
        print(f"fold {model.fold}, {model.task} ({model.variant}): {scores.line()}")
        if isinstance(scores, Scores):
            print(scores.table())
        for night in model.nights:
            print(f"  {night.name}: {scores_of(model.task, night.labels, night.probabilities).line()}")
            if save:
                path = save / str(model.fold) / model.variant / model.task / f"{night.name}.csv"
                save_predictions(path, model.task, night.labels, night.probabilities)
        about = {"task": model.task, "variant": model.variant}
        nights = [{"night": n.name, **scores_of(model.task, n.labels, n.probabilities).to_json()} for n in model.nights]
        told["models"].append({"fold": model.fold, **about, **scores.to_json(), "nights": nights})
    for task, variant in dict.fromkeys((model.task, model.variant) for model in models):
        found = [model.scores for model in models if (model.task, model.variant) == (task, variant)]
        pooled = sum(found[1:], found[0])
        told["pooled"].append({"task": task, "variant": variant, **pooled.to_json()})
        if len(found) > 1:
            print(f"{len(found)} folds pooled, {task} ({variant}): {pooled.line()}")
    for variant, agreement in indices(models).items():
        print(f"apnea-hypopnea index, estimated from epochs, against the scored one ({variant}): {agreement.line()}")
        for name, estimated, scored in zip(agreement.nights, agreement.estimated, agreement.scored, strict=True):
            print(f"  {name}: estimated {estimated:.1f}, scored {scored:.1f} events per hour of sleep")
        told["indices"].append({"variant": variant, **agreement.to_json()})
        if save:
            agreement.plot(save / f"bland-altman {variant}.png")
    return told
