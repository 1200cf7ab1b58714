"""Whether a network stages better than before on the same test subjects, or only by chance.

The interval of a difference comes from a bootstrap over subjects, which draws a subject's nights before and after
together (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993). With only a few subjects, it is too narrow. So
a gain is reported only if an exact test agrees: if nothing were gained, before and after could be swapped for any
subject; p is the share of all such swaps that give at least as large a difference (Fisher, "The Design of Experiments",
1935). With five subjects or fewer, p is never below 0.05.
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
"""The figure that decides, chosen in advance: among several figures, one often rises by chance."""
LIKELY = 0.05
"""With this p or a larger one, a difference may be chance."""
MOST_SWAPS = 12
"""All swaps of up to so many subjects are tried; with more subjects, the same number of swaps is drawn at random."""


@dataclass(frozen=True)
class BeforeAndAfter:
    """The scores of each test subject, by the network before a training and by the network after it."""

    before: Mapping[int, Scores]
    after: Mapping[int, Scores]

    @cached_property
    def difference(self) -> dict[str, float]:
        """By how much each figure over all epochs is higher after the training."""
        return {
            name: float(values[0]) for name, values in self._differences(np.ones((1, len(self.before)), int)).items()
        }

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of each difference; empty if there is only one subject."""
        count = len(self.before)
        return intervals(self._differences(draws(count))) if count > 1 else {}

    @cached_property
    def p(self) -> float:
        """The share of swaps that change the deciding figure at least as much, in either direction."""
        count = len(self.before)
        if count <= MOST_SWAPS:
            swapped = np.arange(2**count)[:, None] >> np.arange(count) & 1
        else:
            swapped = np.random.default_rng(SEED).integers(0, 2, (2**MOST_SWAPS, count))
            # The result without any swap is one of the draws.
            swapped[0] = 0
        once = np.ones((len(swapped), count), int)
        found = np.abs(self._differences(once, swapped)[DECISIVE])
        return float(np.mean(found >= abs(self.difference[DECISIVE]) - 1e-12))

    def _differences(self, counts: np.ndarray, swapped: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The difference of each figure (draws,), if subjects count as often as ``counts``, and are swapped or not."""
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
        few = " (too few to tell)" if 2 ** (1 - len(self.before)) >= LIKELY else ""
        return f"It is not certain that adapting helped: on {subjects}{few}, the difference may be chance."

    def text(self) -> str:
        """The figures before and after, their differences and the verdict, to print on a terminal."""
        lines = [f"{when}: {total(list(scores.values())).line()}" for when, scores in self._named]
        for name, difference in self.difference.items():
            known = self.intervals.get(name)
            told = f", 95 % interval {known[0]:+.3f} to {known[1]:+.3f}" if known else ""
            lines.append(f"  {name.replace('macro_f1', 'macro-F1')} {difference:+.3f}{told}")
        return "\n".join([*lines, f"  p of the difference in macro-F1, by swaps: {self.p:.2g}", self.verdict])

    @property
    def _named(self) -> tuple[tuple[str, Mapping[int, Scores]], ...]:
        return ("Before adapting", self.before), ("After adapting", self.after)

    def to_json(self) -> dict[str, Any]:
        """All values as JSON values."""
        return {
            "before": total(list(self.before.values())).to_json(),
            "difference": as_json(self.difference),
            "intervals_95": {name: list(interval) for name, interval in self.intervals.items()},
            "p": self.p,
            "verdict": self.verdict,
        }
