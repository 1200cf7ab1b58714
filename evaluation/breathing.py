"""The apnea-hypopnea index estimated from epochs, and how well it agrees with the scorer's.

Bland & Altman, "Statistical methods for assessing agreement between two methods of clinical measurement", Lancet 1986.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.recordings.quality import stretches
from data.scorings.scoring import Scoring
from data.terms import EPOCH_SECONDS, STAGES, TASKS
from data.writing import written_aside
from evaluation.intervals import Interval, draws, intervals, line
from evaluation.stages import as_json


def apnea_hypopnea_index(events: np.ndarray, asleep: np.ndarray) -> float:
    """Estimated events per hour of sleep: each run of epochs of sleep with apnea or hypopnea counts as one event.

    Several events in the same epoch or in neighbouring epochs count as one, so the index is too low if there are many.
    Both arguments are bool (epochs,); without sleep the index is NaN.

    Example:

    >>> events = np.array([True, True, False, True] + 116 * [False])
    >>> apnea_hypopnea_index(events, asleep=np.ones(120, bool))  # Two runs in an hour.
    2.0
    """
    return _per_hour(len(stretches(events & asleep)), asleep)


def _per_hour(count: int, asleep: np.ndarray) -> float:
    hours = int(np.count_nonzero(asleep)) * EPOCH_SECONDS / 3600
    return count / hours if hours else float("nan")


@dataclass(frozen=True)
class ScoredEvents:
    """The apneas and hypopneas that a scorer found, and the scorer's sleep.

    Attributes:
        epochs: bool (epochs,), those that hold some.
        asleep: bool (epochs,), those that the scorer calls sleep.
        in_sleep: how many begin in sleep; None where a night file does not say.
    """

    epochs: np.ndarray
    asleep: np.ndarray
    in_sleep: int | None

    @classmethod
    def of(cls, scoring: Scoring) -> "ScoredEvents | None":
        """Those of a scoring; None where apneas and hypopneas were not both looked for."""
        looked_for = [[n for n in scoring.event_names if n in TASKS[task]] for task in ("apnea", "hypopnea")]
        if not all(looked_for):
            return None
        names, asleep = {*looked_for[0], *looked_for[1]}, scoring.stages > STAGES.index("W")
        columns = [name in names for name in scoring.event_names]
        counts = scoring.events_in_sleep
        if counts is None:
            counts = scoring.event_counts(np.flatnonzero(asleep))
        in_sleep = sum(counts[name] for name in names) if names <= counts.keys() else None
        return cls(scoring.event_labels(len(asleep))[:, columns].any(axis=1), asleep, in_sleep)

    def beside(self, index: float | None) -> dict[str, dict[str, float | None]]:
        """The scorer's index, ``counted`` of events and ``estimated`` as that of networks is, and ``index`` less it.

        ``index`` is the networks', which is ``models`` in the result. What is not known or has no meaning is None.
        """
        counted = float("nan") if self.in_sleep is None else _per_hour(self.in_sleep, self.asleep)
        found = {"counted": counted, "estimated": apnea_hypopnea_index(self.epochs, self.asleep)}
        own = float("nan") if index is None else index
        return {
            how: as_json({"index": scored, "models": own, "difference": own - scored}) for how, scored in found.items()
        }


def breathing_line(breathing: dict[str, Any]) -> str:
    """What the ``breathing`` of a hypnogram tells, in one line."""
    events = [
        f"{name} in {told['epochs']} epochs, {told['runs']} {'run' if told['runs'] == 1 else 'runs'}"
        for name, told in breathing.items()
        if isinstance(told, dict) and "runs" in told
    ]
    index, scored = breathing["apnea_hypopnea_index"], scorer_index(breathing)
    estimate = [] if index is None else [f"estimated apnea-hypopnea index {index:.1f} per hour of sleep"]
    counted = [] if scored is None else [f"the scorer's {scored:.1f}"]
    return "; ".join([*events, *estimate, *counted])


def scorer_index(breathing: dict[str, Any]) -> float | None:
    """The scorer's apnea-hypopnea index, counted from events, or None; from the ``breathing`` of a hypnogram."""
    scorer = breathing.get("scorer")
    return scorer and scorer["counted"]["index"]


@dataclass(frozen=True)
class Agreement:
    """A figure of several nights, as estimated and as scored.

    ``nights`` are the nights' names, ``subjects`` their subjects; ``estimated`` and ``scored`` are (nights,).
    """

    nights: tuple[str, ...]
    subjects: tuple[int, ...]
    estimated: np.ndarray
    scored: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """Mean difference (estimated minus scored), its standard deviation, the limits between which 95 % of nights
        lie, and Pearson's correlation.

        A figure is NaN if there are too few nights for it.
        """
        difference = self.estimated - self.scored
        bias, deviation = difference.mean(), difference.std(ddof=1) if len(difference) > 1 else np.nan
        lower, upper = bias - 1.96 * deviation, bias + 1.96 * deviation
        (correlation,) = self._drawn(np.ones((1, len(self.nights))))["correlation"]
        limits = {"lower_limit": lower, "upper_limit": upper}
        return {"bias": bias, "deviation": deviation, **limits, "correlation": correlation}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of bias and correlation over subjects; empty if there is only one subject."""
        subjects, whose = np.unique(self.subjects, return_inverse=True)
        return intervals(self._drawn(draws(len(subjects))[:, whose])) if len(subjects) > 1 else {}

    def _drawn(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Bias and correlation (draws,), where ``counts`` (draws, nights) says how often a night counts in a draw."""

        def mean(values: np.ndarray) -> np.ndarray:
            return (counts * values).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)

        off, scored = (values - mean(values) for values in (self.estimated, self.scored))
        variances = mean(off**2) * mean(scored**2)
        # If all nights of a draw are the same, they differ only by rounding.
        correlation = mean(off * scored) / np.sqrt(np.where(variances > 1e-20, variances, np.nan))
        return {"bias": mean(self.estimated - self.scored)[:, 0], "correlation": correlation[:, 0]}

    def line(self) -> str:
        """All figures on one line, and their intervals, if there are any, on the next."""
        bias, deviation, lower, upper, correlation = self.figures.values()
        told = (
            f"bias {bias:+.1f}   standard deviation {deviation:.1f}   limits of agreement {lower:+.1f} to {upper:+.1f}"
            f"   correlation {correlation:.3f}   {len(self.nights)} nights"
        )
        return f"{told}\n{line(self.intervals, len(set(self.subjects)))}" if self.intervals else told

    def to_json(self) -> dict[str, Any]:
        """All values; NaN becomes None."""
        columns = {"night": self.nights, "subject": self.subjects, "estimated": self.estimated, "scored": self.scored}
        limits = {name: list(interval) for name, interval in self.intervals.items()}
        return {**as_json(self.figures), "intervals_95": limits, "nights": pd.DataFrame(columns).to_dict("records")}

    def plot(self, path: Path) -> None:
        """Write a Bland-Altman plot as a picture: each night's difference against its mean, with the limits."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes, found = figure.subplots(), self.figures
        axes.scatter((self.estimated + self.scored) / 2, self.estimated - self.scored, color="tab:blue")
        for name, style in (("bias", "-"), ("lower_limit", "--"), ("upper_limit", "--")):
            if np.isfinite(found[name]):
                told = f"{name.replace('_', ' ')} {found[name]:+.1f}"
                axes.axhline(found[name], linestyle=style, color="gray", linewidth=1)
                axes.annotate(told, (1, found[name]), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set_xlabel("mean of estimated and scored index (events per hour of sleep)")
        axes.set_ylabel("estimated minus scored")
        axes.margins(y=0.15)
        with written_aside(path) as aside:
            figure.savefig(aside, format="png", dpi=150)
