"""How well epochs with a breathing event are told from those without: figures that rare events do not flatter."""

import warnings
from collections.abc import Sequence
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

    @staticmethod
    def drawn(parts: Sequence["EventScores"], counts: np.ndarray) -> dict[str, np.ndarray]:
        """All figures but prevalence (draws,) of ``parts`` that count so often, int (draws, parts), in each draw.

        The epochs are sorted once, not for each draw as by scikit-learn.
        """
        ranking = _Ranking.of(parts)
        rows = [ranking.figures(own) for own in counts]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    @property
    def figures(self) -> dict[str, float]:
        """Accuracy, prevalence, macro-F1, kappa, F1 of the event, sensitivity, specificity, AUROC, average precision.

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
                "f1": metrics.f1_score(scored, found, zero_division=np.nan),
                "sensitivity": metrics.recall_score(scored, found, zero_division=np.nan),
                "specificity": metrics.recall_score(~scored, ~found, zero_division=np.nan),
                "auroc": metrics.roc_auc_score(scored, self.probabilities) if both else np.nan,
                "average_precision": metrics.average_precision_score(scored, self.probabilities) if both else np.nan,
            }

    @property
    def best_threshold(self) -> float:
        """The probability above which the event is found with the best F1, halfway between two epochs' probabilities.

        It is 0.5 where all epochs hold the event, or none.
        """
        from sklearn.metrics import precision_recall_curve

        if self.scored.all() or not self.scored.any():
            return 0.5
        precision, recall, probabilities = precision_recall_curve(self.scored, self.probabilities)
        f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
        best = int(f1[:-1].argmax())
        return float((probabilities[best] + (probabilities[best - 1] if best else 0.0)) / 2)

    def line(self) -> str:
        """All figures on one line."""
        named = "   ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self.figures.items())
        return f"{named}   {len(self.scored)} epochs"

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values; NaN becomes None."""
        return {**as_json(self.figures), "epochs": len(self.scored)}


@dataclass(frozen=True)
class _Ranking:
    """The epochs of several parts in descending order of their probabilities, of which each part counts anew each time.

    Attributes:
        owners: the number of each epoch's part, int (epochs,).
        scored: which epochs the scorer found the event in, bool (epochs,).
        first, end: from which epoch to before which one the same probability reaches, int (groups,), of each
            probability with which the scorer's events are found.
        above: in how many epochs the event is found.
    """

    owners: np.ndarray
    scored: np.ndarray
    first: np.ndarray
    end: np.ndarray
    above: int

    @classmethod
    def of(cls, parts: Sequence[EventScores]) -> "_Ranking":
        owners = np.repeat(np.arange(len(parts)), [len(part.scored) for part in parts])
        scored, found = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("scored", "probabilities")
        )
        order = np.argsort(-found, kind="stable")
        owners, scored, found = owners[order], scored[order], found[order]
        edges = np.concatenate([[0], np.flatnonzero(np.diff(found)) + 1, [len(found)]])
        events = np.append(0, np.cumsum(scored))[edges]
        held = np.diff(events) > 0
        return cls(owners, scored, edges[:-1][held], edges[1:][held], int(np.count_nonzero(found > 0.5)))

    def figures(self, counts: np.ndarray) -> dict[str, float]:
        """The figures where each part counts so often, int (parts,); NaN where one has no meaning."""
        weights = counts[self.owners]
        # Of the first n epochs: how often they count, and how often those with an event do.
        counted, hits = (np.append(0, np.cumsum(w)) for w in (weights, np.where(self.scored, weights, 0)))
        epochs, events = counted[-1], hits[-1]
        others, found = epochs - events, hits[self.above]
        wrong, missed = counted[self.above] - found, events - found
        right = others - wrong
        new, false_before = hits[self.end] - hits[self.first], counted[self.first] - hits[self.first]
        false = counted[self.end] - hits[self.end]
        with np.errstate(divide="ignore", invalid="ignore"):
            f1, f1_of_others = (np.divide(2 * n, 2 * n + wrong + missed) for n in (found, right))
            chance = np.divide(events * (found + wrong) + others * (epochs - found - wrong), epochs**2)
            accuracy = np.divide(found + right, epochs)
            precision = hits[self.end] / np.maximum(counted[self.end], 1)
            in_order = (new * (others - (false + false_before) / 2)).sum()
            return {
                "accuracy": accuracy,
                "macro_f1": np.nanmean([f1, f1_of_others]) if epochs else np.nan,
                "kappa": np.divide(accuracy - chance, 1 - chance),
                "f1": f1,
                "sensitivity": np.divide(found, events),
                "specificity": np.divide(right, others),
                "auroc": np.divide(in_order, events * others),
                "average_precision": np.divide((new * precision).sum(), events if others else 0),
            }
