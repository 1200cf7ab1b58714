"""What a model found of a task (sleep stage, apnea, hypopnea) in one night: its scores, and the table of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from data.store import written_aside
from data.terms import STAGES
from evaluation.events import EventScores
from evaluation.stages import Scores


def classes(task: str) -> tuple[str, ...]:
    """The names of what a model tells apart, in the order of its probabilities."""
    return STAGES if task == "sleep_stage" else (f"no {task}", task)


def scores_of(task: str, expected: np.ndarray, probabilities: np.ndarray) -> Scores | EventScores:
    """Agreement of probabilities (epochs, classes) with the scorer's labels (epochs,)."""
    if task == "sleep_stage":
        return Scores.of(expected, probabilities.argmax(axis=1))
    return EventScores(expected.astype(bool), probabilities[:, 1])


def save_predictions(path: Path, task: str, expected: np.ndarray, probabilities: np.ndarray) -> None:
    """Write a CSV row per scored epoch: what was scored, what was found, and the probabilities."""
    names = classes(task)
    table = pd.DataFrame({"scored": np.array(names)[expected]})
    table["predicted"] = np.array(names)[probabilities.argmax(axis=1)]
    table[list(names)] = probabilities
    with written_aside(path) as aside:
        table.to_csv(aside, index=False, float_format="%.6f")
