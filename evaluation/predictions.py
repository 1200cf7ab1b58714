"""A network's predictions for a night file, compared with the scorer: scores, and a table of every epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from data.store import content
from data.terms import STAGES, UNSCORED, InputError
from data.writing import written_aside
from evaluation.events import EventScores
from evaluation.stages import Scores


def classes(task: str) -> tuple[str, ...]:
    """The names of a task's classes, in the order of the network's probabilities."""
    return STAGES if task == "sleep_stage" else (f"no {task}", task)


@dataclass(frozen=True)
class NightPredictions:
    """The predictions for one night file.

    Attributes:
        name: the night's name.
        task: one of ``data.terms.TASKS``.
        labels: int (epochs,), the scorer's classes: positions in :func:`classes`, or -1 for unscored epochs.
        probabilities: float32 (epochs, classes).
        stages: int (epochs,), the scorer's stages.
        counts: how many events of each kind the scorer found in sleep; empty if the night file does not say it.
    """

    name: str
    task: str
    labels: np.ndarray
    probabilities: np.ndarray
    stages: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def scores(self) -> Scores | EventScores:
        """Agreement over the scored epochs."""
        scored = self.labels != UNSCORED
        labels, probabilities = self.labels[scored], self.probabilities[scored]
        if self.task == "sleep_stage":
            return Scores.of(labels, probabilities.argmax(axis=1))
        return EventScores(labels.astype(bool), probabilities[:, 1])

    def save(self, path: Path) -> None:
        """Write a CSV row for every epoch: its number, the scored and the predicted class, and the probabilities."""
        names = np.array([*classes(self.task), "unscored"])
        table = pd.DataFrame({"epoch": np.arange(len(self.labels)), "scored": names[self.labels]})
        table["predicted"] = names[self.probabilities.argmax(axis=1)]
        table[list(classes(self.task))] = self.probabilities
        with written_aside(path) as aside:
            # Nine digits give every float32 exactly, so the table gives the same scores when it is read.
            table.to_csv(aside, index=False, float_format="%.9g")


def saved_scores(path: Path, task: str) -> Scores | EventScores:
    """The scores of a table that :meth:`NightPredictions.save` wrote; InputError if it is missing or damaged."""
    names = classes(task)
    again = "evaluate the fold again with predict.py"
    if not path.is_file():
        raise InputError(f"{path} does not exist, or no longer exists: {again}.")
    file = BytesIO(content(path))
    try:
        table = pd.read_csv(file)
        scored, predicted = (pd.Index(names).get_indexer(pd.Index(table[column])) for column in ("scored", "predicted"))
        probabilities = table[list(names)].to_numpy(np.float32)
        if min(predicted) < 0 or set(table["scored"]) - {*names, "unscored"} or not np.isfinite(probabilities).all():
            raise ValueError
    except (KeyError, ValueError):
        raise InputError(f"{path} holds no predictions of {task}: {again}.") from None
    known = scored != UNSCORED
    if task == "sleep_stage":
        return Scores.of(scored[known], predicted[known])
    return EventScores(scored[known].astype(bool), probabilities[known, 1])


def total(scores: Sequence[Scores | EventScores]) -> Scores | EventScores:
    """Several scores on the same task, pooled into one."""
    return sum(scores[1:], scores[0])


def pooled(nights: Sequence[NightPredictions]) -> Scores | EventScores:
    """The scores over all scored epochs of one or more nights."""
    return total([night.scores for night in nights])
