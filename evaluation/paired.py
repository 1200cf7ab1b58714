"""Whether a network stages better than before on the same test subjects, or only by chance.

The interval of a difference comes of a bootstrap over subjects, each drawn with its nights before and after together
(Efron & Tibshirani, "An Introduction to the Bootstrap", 1993). Of a handful of subjects it is too narrow. So a gain is
called one only if an exact test agrees: were nothing gained, before and after could be swapped for any subject, and
p is the share of all such swaps that give as large a difference (Fisher, "The Design of Experiments", 1935). Of five
subjects or fewer it is never below 0.05.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evaluation.intervals import SEED, Interval, draws, intervals
from evaluation.predictions import total
from evaluation.stages import Scores, as_json

DECISIVE = "macro_f1"
"""The figure that decides; it was chosen beforehand, for of several one rises by chance."""
LIKELY = 0.05
"""The p from which on a difference may be chance."""
MOST_SWAPS = 12
"""Subjects of whom all swaps are tried; of more, as many as for these are drawn."""


@dataclass(frozen=True)
class BeforeAndAfter:
    """Scores of the stages of each test subject, by the network before and by that after a training."""

    before: Mapping[int, Scores]
    after: Mapping[int, Scores]

    @cached_property
    def difference(self) -> dict[str, float]:
        """By how much each figure over all epochs is higher afterwards."""
        return {
            name: float(values[0]) for name, values in self._differences(np.ones((1, len(self.before)), int)).items()
        }

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of each difference; a single subject gives none."""
        count = len(self.before)
        return intervals(self._differences(draws(count))) if count > 1 else {}

    @cached_property
    def p(self) -> float:
        """The share of swaps that change the decisive figure as much, in either direction."""
        count = len(self.before)
        if count <= MOST_SWAPS:
            swapped = np.arange(2**count)[:, None] >> np.arange(count) & 1
        else:
            swapped = np.random.default_rng(SEED).integers(0, 2, (2**MOST_SWAPS, count))
            # What was found counts to the draws.
            swapped[0] = 0
        once = np.ones((len(swapped), count), int)
        found = np.abs(self._differences(once, swapped)[DECISIVE])
        return float(np.mean(found >= abs(self.difference[DECISIVE]) - 1e-12))

    def _differences(self, counts: np.ndarray, swapped: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The difference of each figure (draws,), of subjects who count so often, and are swapped or not."""
        scores = [*(self.before[subject] for subject in self.before), *(self.after[subject] for subject in self.before)]
        swap = np.zeros_like(counts) if swapped is None else swapped
        before, after = (np.hstack([counts * own, counts * (1 - own)]) for own in (1 - swap, swap))
        one, other = Scores.drawn(scores, before), Scores.drawn(scores, after)
        return {name: other[name] - one[name] for name in one}

    @property
    def verdict(self) -> str:
        """Whether something was gained, in a sentence."""
        low, high = self.intervals.get(DECISIVE, (0.0, 0.0))
        subjects = f"{len(self.before)} test subject{'s' * (len(self.before) > 1)}"
        if self.p < LIKELY and low > 0:
            return f"Adapting helped: macro-F1 rose on these {subjects} by more than chance explains."
        if self.p < LIKELY and high < 0:
            return f"Adapting did harm: macro-F1 fell on these {subjects} by more than chance explains."
        few = ", who are too few to tell," if 2 ** (1 - len(self.before)) >= LIKELY else ""
        return f"It is not shown that adapting helped: on {subjects}{few} the difference may be chance."

    def text(self) -> str:
        """Figures before and after, their differences and what these mean, for a terminal."""
        lines = [f"{when}: {total(list(scores.values())).line()}" for when, scores in self._named]
        for name, difference in self.difference.items():
            known = self.intervals.get(name)
            told = f", 95 % interval {known[0]:+.3f} to {known[1]:+.3f}" if known else ""
            lines.append(f"  {name.replace('macro_f1', 'macro-F1')} {difference:+.3f}{told}")
        return "\n".join([*lines, f"  p of the macro-F1's difference, by swaps: {self.p:.2g}", self.verdict])

    @property
    def _named(self) -> tuple[tuple[str, Mapping[int, Scores]], ...]:
        return ("Before adapting", self.before), ("After adapting", self.after)

    def to_json(self) -> dict[str, Any]:
        """All values as JSON has them."""
        return {
            "before": total(list(self.before.values())).to_json(),
            "difference": as_json(self.difference),
            "intervals_95": {name: list(interval) for name, interval in self.intervals.items()},
            "p": self.p,
            "verdict": self.verdict,
        }
