"""Check whether folds that do not say how they were trained were trained on their test subjects.

A network agrees better with the scorer on a night that it was trained on. So a fold that never saw its test subjects
is less accurate on them than the other folds, which were trained on them (except on their few validation subjects).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evaluation.intervals import draws, intervals


@dataclass(frozen=True)
class OtherFolds:
    """Each subject's accuracy by the fold that is tested on this subject, ``own``, and by each of the ``others``."""

    own: Mapping[int, float]
    others: Mapping[int, Sequence[float]]

    @cached_property
    def ahead(self) -> np.ndarray:
        """By how much the mean accuracy of the other folds is above that of the own fold, (subjects,)."""
        return np.array([np.mean(self.others[subject]) - accuracy for subject, accuracy in self.own.items()])

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over subjects of the mean of :attr:`ahead`."""
        count = len(self.ahead)
        return intervals({"ahead": draws(count) @ self.ahead / count})["ahead"]

    @property
    def not_behind(self) -> list[int]:
        """The subjects on whom their own fold is at least as accurate as the mean of the other folds."""
        return [subject for subject, ahead in zip(self.own, self.ahead, strict=True) if ahead <= 0]

    def text(self) -> str:
        """The result, to print on a terminal; it is a warning if the other folds are not more accurate."""
        low, high = self.interval
        said = (
            "so each fold probably never saw the subjects it is tested on."
            if low > 0
            else "WARNING: so perhaps each fold saw the subjects it is tested on, or no fold did."
        )
        told = (
            f"On {len(self.own)} subjects, the accuracy of the other folds minus that of the fold that is tested on "
            f"them is {self.ahead.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}; {said}"
        )
        subjects = ", ".join(map(str, self.not_behind))
        return told + (f"\n  The other folds are not more accurate on subject {subjects}." if subjects else "")

    def to_json(self) -> dict[str, Any]:
        """All values as JSON values."""
        subjects = [{"subject": s, "own": value, "others": list(self.others[s])} for s, value in self.own.items()]
        return {"ahead": float(self.ahead.mean()), "interval_95": list(self.interval), "subjects": subjects}
