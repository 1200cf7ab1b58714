"""The one evaluation: a fold's networks on the night files of the subjects that they never saw, for both models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.databases import Database
from data.nights.folds import find_nights, missing_subjects
from data.terms import EPOCH_SECONDS, STAGES, TASKS, UNSCORED
from evaluation.breathing import Agreement, apnea_hypopnea_index
from evaluation.events import EventScores
from evaluation.predictions import NightPredictions, pooled
from evaluation.stages import Scores
from staging.predictor import Predictor, predict_nights


@dataclass(frozen=True)
class Evaluated:
    """A fold's network and its predictions for that fold's test nights.

    Attributes:
        fold: its number.
        folder: of the model, for print.
        task: one of ``data.terms.TASKS``.
        variant: what distinguishes the network from others of the fold for the task; "" where there are none.
        nights: the predictions.
        missing_subjects: test subjects that have no night file.
    """

    fold: int
    folder: str
    task: str
    variant: str
    nights: list[NightPredictions]
    missing_subjects: list[int]

    @property
    def title(self) -> str:
        return (
            f"fold {self.fold}, {self.task} ({self.variant})" if self.variant else f"fold {self.fold} ({self.folder})"
        )

    @property
    def scores(self) -> Scores | EventScores:
        return pooled(self.nights)

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        about = {"task": self.task, "variant": self.variant} if self.variant else {}
        return {
            "fold": self.fold,
            **about,
            **self.scores.to_json(),
            "missing_subjects": self.missing_subjects,
            "nights": [{"night": night.name, **night.scores.to_json()} for night in self.nights],
        }


def evaluate(predictor: Predictor, fold: int, subjects: Sequence[int], database: Database, data: Path) -> Evaluated:
    """Predict all test nights that ``data`` holds; nights that lack what it takes are left out, which is said.

    Args:
        predictor: the fold's network.
        fold: its number.
        subjects: whom it never saw.
        database: whose night files are named as its ``night_patterns`` say.
        data: folder of the night files.

    Raises:
        InputError: there is no such folder, or a file is not such a night.
    """
    tested = replace(database, subjects=tuple(subjects))
    files = find_nights(tested, data)
    paths = [path for nights in files.values() for path in nights]
    with tqdm(paths, desc=f"fold {fold} {predictor.task}", unit="night", leave=False) as bar:
        # A night without one of several modalities is no mistake; one without the only channel is.
        leave_out = bar.write if predictor.variant else None
        nights = list(predict_nights(predictor, bar, leave_out))
    folder = predictor.models[0]["folder"] if predictor.models else ""
    return Evaluated(fold, folder, predictor.task, predictor.variant, nights, missing_subjects(tested, files))


def print_and_save(evaluated: Sequence[Evaluated], save: Path | None) -> dict[str, Any]:
    """Print all figures, save predictions and plots below ``save``, and return the figures as JSON values."""
    for each in evaluated:
        scores = each.scores
        print(f"{each.title}: {scores.line()}")
        if isinstance(scores, Scores):
            print(scores.table())
        for night in each.nights:
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
        total = pooled([night for each in members for night in each.nights])
        totals.append({"task": task, "variant": variant, **total.to_json()})
        if len(members) > 1:
            of = f", {task} ({variant})" if variant else ""
            print(f"{len(members)} folds pooled{of}: {total.line()}")
            if isinstance(total, Scores):
                print(total.table())
    found = [each.to_json() for each in evaluated]
    if not any(each.variant for each in evaluated):
        (only,) = totals
        return {
            "folds": found,
            "pooled": {name: value for name, value in only.items() if name not in ("task", "variant")},
        }
    return {"models": found, "pooled": totals, "indices": _print_indices(evaluated, save)}


def _print_indices(evaluated: Sequence[Evaluated], save: Path | None) -> list[dict[str, Any]]:
    found = []
    for variant, agreement in indices(evaluated).items():
        print(f"apnea-hypopnea index, estimated from epochs, against the scored one ({variant}): {agreement.line()}")
        for name, estimated, scored in zip(agreement.nights, agreement.estimated, agreement.scored, strict=True):
            print(f"  {name}: estimated {estimated:.1f}, scored {scored:.1f} events per hour of sleep")
        found.append({"variant": variant, **agreement.to_json()})
        if save:
            agreement.plot(save / f"bland-altman {variant}.png")
    return found


def indices(evaluated: Sequence[Evaluated]) -> dict[str, Agreement]:
    """The apnea-hypopnea index of each night, by variant, where one has networks for both apnea and hypopnea.

    Hours of sleep are those that the variant's own stages give, or, where it has none, the scorer's. The scored index
    counts the scorer's events; of a night file that does not count them, runs of its epochs, by the same rule.
    """
    found = {}
    for variant in dict.fromkeys(each.variant for each in evaluated):
        rows = []
        for fold in dict.fromkeys(each.fold for each in evaluated):
            own = {e.task: {n.name: n for n in e.nights} for e in evaluated if (e.variant, e.fold) == (variant, fold)}
            if not {"apnea", "hypopnea"} <= own.keys():
                continue
            for name in own["apnea"].keys() & own["hypopnea"].keys():
                both = [own[task][name] for task in ("apnea", "hypopnea")]
                scored, staged = both[0].stages != UNSCORED, own.get("sleep_stage", {}).get(name)
                asleep = both[0].stages > STAGES.index("W")
                sleep = asleep if staged is None else scored & (staged.probabilities.argmax(axis=1) > 0)
                estimated = np.any([night.probabilities[:, 1] > 0.5 for night in both], axis=0)
                index = apnea_hypopnea_index(estimated[scored], sleep[scored])
                rows.append((name, index, _scored_index(both, scored)))
        rows = sorted(row for row in rows if np.isfinite(row[1:]).all())
        if rows:
            names, estimates, scores = zip(*rows, strict=True)
            found[variant] = Agreement(names, np.array(estimates), np.array(scores))
    return found


def _scored_index(both: Sequence[NightPredictions], scored: np.ndarray) -> float:
    """The scorer's index of a night, of which ``both`` give apnea and hypopnea; NaN without sleep."""
    asleep = both[0].stages[scored] > STAGES.index("W")
    counts, kinds = both[0].counts, (*TASKS["apnea"], *TASKS["hypopnea"])
    if set(kinds) <= counts.keys() and asleep.any():
        return sum(counts[kind] for kind in kinds) / (np.count_nonzero(asleep) * EPOCH_SECONDS / 3600)
    return apnea_hypopnea_index(np.any([night.labels[scored] == 1 for night in both], axis=0), asleep)
