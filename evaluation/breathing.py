"""The apnea-hypopnea index estimated from epochs, and how well it agrees with the scorer's.

Bland & Altman, "Statistical methods for assessing agreement between two methods of clinical measurement", Lancet 1986.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.recordings.quality import stretches
from data.store import written_aside
from data.terms import EPOCH_SECONDS
from evaluation.stages import as_json


def apnea_hypopnea_index(events: np.ndarray, asleep: np.ndarray) -> float:
    """Events per hour of sleep, an estimate: each run of epochs of sleep with apnea or hypopnea counts as one event.

    Events that follow each other within an epoch or in neighbouring ones count as one: with many events, too few are
    found. Both arguments are bool (epochs,); without sleep the index is NaN.
    """
    hours = np.count_nonzero(asleep) * EPOCH_SECONDS / 3600
    return len(stretches(events & asleep)) / hours if hours else float("nan")


@dataclass(frozen=True)
class Agreement:
    """A figure of several nights, estimated and scored.

    ``nights`` are their names; the two others are (nights,).
    """

    nights: tuple[str, ...]
    estimated: np.ndarray
    scored: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """Mean difference (estimated less scored), its standard deviation, and the limits that hold 95 % of nights.

        NaN where there are too few nights.
        """
        difference = self.estimated - self.scored
        bias, deviation = difference.mean(), difference.std(ddof=1) if len(difference) > 1 else np.nan
        lower, upper = bias - 1.96 * deviation, bias + 1.96 * deviation
        return {"bias": bias, "deviation": deviation, "lower_limit": lower, "upper_limit": upper}

    def line(self) -> str:
        bias, deviation, lower, upper = self.figures.values()
        return (
            f"bias {bias:+.1f}   standard deviation {deviation:.1f}   limits of agreement {lower:+.1f} to {upper:+.1f}"
            f"   {len(self.nights)} nights"
        )

    def to_json(self) -> dict[str, Any]:
        """All values; NaN becomes None."""
        nights = pd.DataFrame({"night": self.nights, "estimated": self.estimated, "scored": self.scored})
        return {**as_json(self.figures), "nights": nights.to_dict("records")}

    def plot(self, path: Path) -> None:
        """Write a Bland-Altman plot as a picture: difference against mean, night by night, with the limits."""
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
        axes.set_ylabel("estimated less scored")
        axes.margins(y=0.15)
        with written_aside(path) as aside:
            figure.savefig(aside, format="png", dpi=150)
