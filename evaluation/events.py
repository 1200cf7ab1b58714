"""How well epochs with and without a breathing event are told apart, by figures that suit rare events."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.stages import as_json


@dataclass(frozen=True)
class EventScores:
    """Agreement of a model with the scorer on one kind of event, epoch by epoch; the sum of two pools them.

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
        """All figures except prevalence, each (draws,), of ``parts`` pooled, where ``counts``, int (draws, parts), says
        how often a part counts in each draw.

        The epochs are sorted only once; scikit-learn would sort them for each draw.
        """
        ranking = _Ranking.of(parts)
        rows = [ranking.figures(own) for own in counts]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    @property
    def figures(self) -> dict[str, float]:
        """Accuracy, prevalence, macro-F1, kappa, F1 of the event, sensitivity, specificity, AUROC, average precision.

        A figure is NaN if it has no meaning because all epochs hold the event, or none.
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
        """The threshold with the best F1, halfway between the probabilities of two epochs.

        It is 0.5 if all epochs hold the event, or none.
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
    """The epochs of several parts in descending order of their probabilities, to weight the parts in many ways.

    Attributes:
        owners: the number of each epoch's part, int (epochs,).
        scored: in which epochs the scorer found the event, bool (epochs,).
        first, end: int (groups,), the first epoch, and the one after the last, of each group of epochs that have the
            same probability, for the groups in which the scorer found events.
        above: the number of epochs in which the model finds the event.
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
        """The figures if each part counts as often as ``counts``, int (parts,), says; NaN if one has no meaning."""
        weights = counts[self.owners]
        # For the first n epochs: how often they count, and how often those with an event count.
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
