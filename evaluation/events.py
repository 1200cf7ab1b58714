"""How well epochs with a breathing event are told from those without: figures that rare events do not flatter."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.stages import as_json


@dataclass(frozen=True)
class EventScores:
    """Agreement of a model with the scorer on one kind of event, epoch by epoch; add two to pool them.

    ``scored`` is bool (epochs,); the model finds the event where its ``probabilities`` (epochs,) are above 0.5.
    """

    scored: np.ndarray
    probabilities: np.ndarray

    def __add__(self, other: "EventScores") -> "EventScores":
        return EventScores(
            np.concatenate([self.scored, other.scored]), np.concatenate([self.probabilities, other.probabilities])
        )

    @property
    def figures(self) -> dict[str, float]:
        """Accuracy, prevalence, macro-F1, kappa, sensitivity, specificity, AUROC, average precision, by name.

        NaN where a figure has no meaning: all epochs with the event, or none.
        """
        from sklearn import metrics

        scored, found = self.scored, self.probabilities > 0.5
        both = scored.any() and not scored.all()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                "accuracy": metrics.accuracy_score(scored, found),
                "prevalence": scored.mean(),
                "macro_f1": metrics.f1_score(scored, found, average="macro"),
                "kappa": metrics.cohen_kappa_score(scored, found),
                "sensitivity": metrics.recall_score(scored, found, zero_division=np.nan),
                "specificity": metrics.recall_score(~scored, ~found, zero_division=np.nan),
                "auroc": metrics.roc_auc_score(scored, self.probabilities) if both else np.nan,
                "average_precision": metrics.average_precision_score(scored, self.probabilities) if both else np.nan,
            }

    def line(self) -> str:
        """All figures on one line."""
        named = "   ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self.figures.items())
        return f"{named}   {len(self.scored)} epochs"

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; NaN becomes None."""
        return {**as_json(self.figures), "epochs": len(self.scored)}
