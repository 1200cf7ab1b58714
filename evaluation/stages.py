"""How well predicted stages agree with a scorer's: accuracy, macro-F1, Cohen's kappa, per-class figures.

scikit-learn is imported only where it is needed: loading it takes longer than staging a night without a scoring.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from data.terms import STAGES, UNSCORED


def as_json(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON values: NaN, which JSON does not have, becomes None."""
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def transitions(stages: np.ndarray) -> np.ndarray:
    """How often each stage is followed by each other, int (5, 5), in ``stages``, int (epochs,) with -1 for unscored."""
    pairs = np.stack([stages[:-1], stages[1:]])
    counts = np.zeros((len(STAGES), len(STAGES)), int)
    np.add.at(counts, tuple(pairs[:, (pairs != UNSCORED).all(axis=0)]), 1)
    return counts


@dataclass(frozen=True)
class Scores:
    """Agreement of stages, as a confusion matrix; the sum of two pools them.

    The matrix is int (5, 5): rows are the scorer's stages W, N1, N2, N3, REM, columns the model's.

    Example:

    >>> scores = Scores.of(np.array([0, 0, 1, 2, 2]), np.array([0, 0, 2, 2, 2]))
    >>> float(scores.accuracy), scores.epochs
    (0.8, 5)
    """

    confusion: np.ndarray

    @classmethod
    def of(cls, scored: np.ndarray, predicted: np.ndarray) -> "Scores":
        """Compare two arrays of stages 0..4, epoch by epoch."""
        from sklearn import metrics

        return cls(metrics.confusion_matrix(scored, predicted, labels=range(len(STAGES))))

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(self.confusion + other.confusion)

    @staticmethod
    def drawn(parts: Sequence["Scores"], counts: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy, macro-F1 and kappa, each (draws,), of ``parts`` pooled, where ``counts``, int (draws, parts), says
        how often a part counts in each draw.

        They are computed for all draws at once, because scikit-learn takes milliseconds for each.
        """
        flat = counts @ np.stack([part.confusion.ravel() for part in parts])
        confusion = flat.reshape(-1, len(STAGES), len(STAGES)).astype(float)
        right, scored, found = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)
        epochs = confusion.sum(axis=(1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            accuracy = right.sum(axis=1) / epochs
            chance = (scored * found).sum(axis=1) / epochs**2
            used = scored + found > 0
            macro_f1 = np.where(used, 2 * right / (scored + found), 0).sum(axis=1) / used.sum(axis=1)
            return {"accuracy": accuracy, "macro_f1": macro_f1, "kappa": (accuracy - chance) / (1 - chance)}

    @property
    def epochs(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        from sklearn import metrics

        return float(metrics.accuracy_score(*self._pairs, sample_weight=self.confusion.ravel()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa; NaN if scorer and model give all epochs the same single stage."""
        from sklearn import metrics

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(metrics.cohen_kappa_score(*self._pairs, sample_weight=self.confusion.ravel()))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the stages that the scorer or the model used."""
        return float(np.nanmean(self.by_stage["F1"]))

    @cached_property
    def by_stage(self) -> pd.DataFrame:
        """Precision, recall, F1 and the scorer's epochs of each stage; NaN if a figure has no meaning."""
        from sklearn import metrics

        figures = metrics.precision_recall_fscore_support(
            *self._pairs, labels=range(len(STAGES)), sample_weight=self.confusion.ravel(), zero_division=np.nan
        )
        columns = dict(zip(("precision", "recall", "F1", "epochs"), figures, strict=True))
        return pd.DataFrame(columns, index=list(STAGES)).astype({"epochs": int})

    @property
    def _pairs(self) -> np.ndarray:
        return np.indices(self.confusion.shape).reshape(2, -1)

    def line(self) -> str:
        """The three figures that papers give, on one line."""
        kappa = "-" if np.isnan(self.kappa) else f"{self.kappa:.3f}"
        return f"accuracy {self.accuracy:.3f}   macro-F1 {self.macro_f1:.3f}   kappa {kappa}   {self.epochs} epochs"

    def table(self) -> str:
        """The figures of each stage, with the confusion matrix beside them, to print on a terminal."""
        figures = self.by_stage.copy()
        for name in ("precision", "recall", "F1"):
            figures[name] = figures[name].map(lambda value: "-" if np.isnan(value) else f"{value:.3f}")
        for number, stage in enumerate(STAGES):
            figures[f"as {stage}"] = self.confusion[:, number]
        return figures.to_string()

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; NaN becomes None."""
        by_stage: dict[Any, Any] = self.by_stage.drop(columns="epochs").rename(columns={"F1": "f1"}).to_dict("index")
        return {
            **as_json({"accuracy": self.accuracy, "macro_f1": self.macro_f1, "kappa": self.kappa}),
            "epochs": self.epochs,
            "stages": {stage: as_json(by_stage[stage]) for stage in STAGES},
            "confusion_matrix": self.confusion.tolist(),
        }
