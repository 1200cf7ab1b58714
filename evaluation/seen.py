"""Whether folds that say nothing of their training were trained on the subjects that they test.

A network agrees better with the scorer of a night that it was trained on. So a fold that never saw its test subjects
does worse on them than the other folds, which were trained on them (but for the few subjects that chose their weights).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evaluation.intervals import draws, intervals


@dataclass(frozen=True)
class OtherFolds:
    """The accuracy of each of several subjects by the fold that tests it, ``own``, and by each of the ``others``."""

    own: Mapping[int, float]
    others: Mapping[int, Sequence[float]]

    @cached_property
    def ahead(self) -> np.ndarray:
        """By how much the mean accuracy of the others is above that of the testing fold, (subjects,)."""
        return np.array([np.mean(self.others[subject]) - accuracy for subject, accuracy in self.own.items()])

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over subjects of the mean of :attr:`ahead`."""
        count = len(self.ahead)
        return intervals({"ahead": draws(count) @ self.ahead / count})["ahead"]

    @property
    def not_behind(self) -> list[int]:
        """The subjects on whom the fold that tests them is as accurate as the others in the mean, or more."""
        return [subject for subject, ahead in zip(self.own, self.ahead, strict=True) if ahead <= 0]

    def text(self) -> str:
        """What was found, for a terminal; a warning where the others do not do better."""
        low, high = self.interval
        said = (
            "as folds do that were trained on them."
            if low > 0
            else "WARNING: as folds that were all trained on them would do, or none."
        )
        told = (
            f"On {len(self.own)} subjects the folds that do not test them are more accurate than the fold that does by "
            f"{self.ahead.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}: {said}"
        )
        subjects = ", ".join(map(str, self.not_behind))
        return told + (f"\n  They are not on subject {subjects}." if subjects else "")

    def to_json(self) -> dict[str, Any]:
        """All values as JSON has them."""
        subjects = [{"subject": s, "own": value, "others": list(self.others[s])} for s, value in self.own.items()]
        return {"ahead": float(self.ahead.mean()), "interval_95": list(self.interval), "subjects": subjects}
