"""Evaluate a fold's networks of any model on the night files of the subjects that they never saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.databases import Database
from data.nights.folds import Split, find_nights, missing_subjects
from data.nights.index import NightFile
from data.terms import EPOCH_SECONDS, STAGES, TASKS, UNSCORED
from evaluation.breathing import Agreement, apnea_hypopnea_index
from evaluation.pooled import Pooled
from evaluation.predictions import NightPredictions, pooled, saved_scores, total
from evaluation.seen import OtherFolds
from evaluation.stages import Scores
from staging.predictor import Predictor, predict_nights


@dataclass(frozen=True)
class Evaluated:
    """The predictions of a fold's network for that fold's test nights.

    ``task`` and ``variant`` are those of the predictor, ``folder`` is the model's folder, for print, ``nights`` are the
    predictions by test subject, and ``missing_subjects`` are the test subjects that have no night file.
    """

    fold: int
    folder: str
    task: str
    variant: str
    nights: dict[int, list[NightPredictions]]
    missing_subjects: list[int]

    @property
    def title(self) -> str:
        what = f", {self.task} ({self.variant})" if self.variant else f" ({self.folder})"
        return f"fold {self.fold}{what}"

    @property
    def pooled(self) -> Pooled:
        return Pooled({subject: pooled(nights) for subject, nights in self.nights.items()})

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        about = {"task": self.task, "variant": self.variant} if self.variant else {}
        nights = [
            {"night": night.name, "subject": subject, **night.scores.to_json()}
            for subject, own in self.nights.items()
            for night in own
        ]
        of_all = self.pooled.scores.to_json()
        return {"fold": self.fold, **about, **of_all, "missing_subjects": self.missing_subjects, "nights": nights}


def evaluate(predictor: Predictor, fold: int, subjects: Sequence[int], database: Database, data: Path) -> Evaluated:
    """Predict all test nights in ``data``; nights that lack a channel or scoring are left out, which is printed.

    ``subjects`` are the test subjects, whom the fold's network never saw.

    Raises:
        InputError: there is no such folder, or a file is not a valid night.
    """
    tested = replace(database, subjects=tuple(subjects))
    files = find_nights(tested, data)
    found = {}
    title, count = f"fold {fold} {predictor.task}", sum(map(len, files.values()))
    with tqdm(desc=title, total=count, unit="night", leave=False) as bar:
        # A night without one of several modalities is only left out; one without the only channel is a mistake.
        leave_out = bar.write if predictor.variant else None
        for subject, paths in files.items():
            found[subject] = list(predict_nights(predictor, paths, leave_out))
            bar.update(len(paths))
    nights = {subject: own for subject, own in found.items() if own}
    folder = predictor.models[0]["folder"] if predictor.models else ""
    return Evaluated(fold, folder, predictor.task, predictor.variant, nights, missing_subjects(tested, files))


def tested_in_training(
    folders: Mapping[int, Path],
    splits: Sequence[Split],
    nights: Mapping[int, Sequence[NightFile]],
    task: str,
    left_in: str = "predictions",
) -> Pooled:
    """The scores of the predictions that training wrote for the test subjects of all ``splits``.

    Args:
        folders: the folder of each fold's trained network, by the fold's number.
        splits: the splits of the folds.
        nights: each subject's night files.
        task: the task of the networks.
        left_in: the name of the folder with the tables, inside each network's folder.

    Raises:
        InputError: a table of predictions is missing or damaged.
    """
    tables = {
        subject: [folders[split.fold] / left_in / f"{night.path.stem}.csv" for night in nights[subject]]
        for split in splits
        for subject in split.test
    }
    return Pooled({subject: total([saved_scores(path, task) for path in own]) for subject, own in tables.items()})


def print_and_save(evaluated: Sequence[Evaluated], save: Path | None) -> dict[str, Any]:
    """Print all figures, save predictions and plots below ``save``, and return the figures as JSON values."""
    for each in evaluated:
        scores = each.pooled.scores
        print(f"{each.title}: {scores.line()}")
        if isinstance(scores, Scores):
            print(scores.table())
        for night in (night for nights in each.nights.values() for night in nights):
            print(f"  {night.name}: {night.scores.line()}")
            if save:
                own = Path(each.variant) / each.task if each.variant else Path()
                night.save(save / str(each.fold) / own / f"{night.name}.csv")
        print()
    groups: dict[tuple[str, str], list[Evaluated]] = {}
    for each in evaluated:
        groups.setdefault((each.task, each.variant), []).append(each)
    totals = []
    for (task, variant), members in groups.items():
        by_subject: dict[int, list[NightPredictions]] = {}
        for subject, nights in (item for each in members for item in each.nights.items()):
            by_subject.setdefault(subject, []).extend(nights)
        total = Pooled({subject: pooled(nights) for subject, nights in by_subject.items()})
        about = {"task": task, "variant": variant} if variant else {}
        totals.append({**about, **total.to_json()})
        if len(members) > 1:
            of = f", {task} ({variant})" if variant else ""
            print(f"{len(members)} folds pooled{of}: {total.text()}")
        elif total.intervals:
            print(f"{members[0].title}, {total.interval_line()}")
    found = [each.to_json() for each in evaluated]
    if not any(each.variant for each in evaluated):
        return {"folds": found, "pooled": totals[0]}
    return {"models": found, "pooled": totals, "indices": _print_indices(evaluated, save)}


def other_folds(tests: Sequence[Evaluated], others: Sequence[Evaluated]) -> OtherFolds:
    """Compare ``tests``, each fold on its own test subjects, with ``others``, each fold on those of the other folds."""
    theirs: dict[int, list[float]] = {}
    for subject, accuracy in (found for each in others for found in _accuracies(each)):
        theirs.setdefault(subject, []).append(accuracy)
    return OtherFolds({s: own for each in tests for s, own in _accuracies(each) if s in theirs}, theirs)


def _accuracies(evaluated: Evaluated) -> list[tuple[int, float]]:
    """The accuracy of each subject."""
    return [(s, scores.to_json()["accuracy"]) for s, scores in evaluated.pooled.by_subject.items()]


def _print_indices(evaluated: Sequence[Evaluated], save: Path | None) -> list[dict[str, Any]]:
    found = []
    for variant, agreement in indices(evaluated).items():
        print(
            f"apnea-hypopnea index, estimated from epochs, compared with the scored one ({variant}): {agreement.line()}"
        )
        for name, estimated, scored in zip(agreement.nights, agreement.estimated, agreement.scored, strict=True):
            print(f"  {name}: estimated {estimated:.1f}, scored {scored:.1f} events per hour of sleep")
        found.append({"variant": variant, **agreement.to_json()})
        if save:
            agreement.plot(save / f"bland-altman {variant}.png")
    return found


def indices(evaluated: Sequence[Evaluated]) -> dict[str, Agreement]:
    """The apnea-hypopnea indices of the nights, by variant, for variants with networks for both apnea and hypopnea.

    Hours of sleep come from the variant's own stages or, if it has none, from the scorer's. The scored index counts the
    scorer's events; if a night file does not hold their number, it counts runs of epochs, like the estimated index.
    """
    tasks_of: dict[tuple[str, int, str, int], dict[str, NightPredictions]] = {}
    for each in evaluated:
        for subject, nights in each.nights.items():
            for night in nights:
                tasks_of.setdefault((each.variant, each.fold, night.name, subject), {})[each.task] = night
    found: dict[str, list[tuple[str, int, float, float]]] = {}
    for (variant, _, name, subject), tasks in tasks_of.items():
        if not {"apnea", "hypopnea"} <= tasks.keys():
            continue
        both = [tasks["apnea"], tasks["hypopnea"]]
        # In a night that was kept whole, wake far from sleep does not count.
        scored = both[0].labels != UNSCORED
        asleep = both[0].stages > STAGES.index("W")
        if "sleep_stage" in tasks:
            asleep = tasks["sleep_stage"].probabilities.argmax(axis=1) > STAGES.index("W")
        events = np.any([night.probabilities[:, 1] > 0.5 for night in both], axis=0)
        estimated = apnea_hypopnea_index(events[scored], asleep[scored])
        row = (name, subject, estimated, _scored_index(both, scored))
        if np.isfinite(row[2:]).all():
            found.setdefault(variant, []).append(row)
    agreements = {}
    for variant, rows in found.items():
        names, subjects, estimates, scores = zip(*sorted(rows), strict=True)
        agreements[variant] = Agreement(names, subjects, np.array(estimates), np.array(scores))
    return agreements


def _scored_index(both: Sequence[NightPredictions], scored: np.ndarray) -> float:
    """The scorer's index of a night, whose apnea and hypopnea are in ``both``; NaN without sleep."""
    asleep = both[0].stages[scored] > STAGES.index("W")
    counts, kinds = both[0].counts, (*TASKS["apnea"], *TASKS["hypopnea"])
    if set(kinds) <= counts.keys() and asleep.any():
        return sum(counts[kind] for kind in kinds) / (np.count_nonzero(asleep) * EPOCH_SECONDS / 3600)
    return apnea_hypopnea_index(np.any([night.labels[scored] == 1 for night in both], axis=0), asleep)
