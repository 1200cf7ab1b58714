"""The scores of several test subjects together, with intervals, which training and evaluation print at the end."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluation.events import EventScores
from evaluation.intervals import Interval, draws, intervals, line
from evaluation.predictions import total
from evaluation.stages import Scores


@dataclass(frozen=True)
class Pooled:
    """The scores of test subjects, all on the same task; ``by_subject`` holds the scores of each one's nights."""

    by_subject: Mapping[int, Scores | EventScores]

    @cached_property
    def scores(self) -> Scores | EventScores:
        """The scores over all epochs of all subjects."""
        return total(list(self.by_subject.values()))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of each figure, by name; empty if there is only one subject."""
        scores: list[Any] = list(self.by_subject.values())
        return intervals(type(scores[0]).drawn(scores, draws(len(scores)))) if len(scores) > 1 else {}

    def interval_line(self) -> str:
        """The intervals on one line; empty if there are none."""
        return line(self.intervals, len(self.by_subject)) if self.intervals else ""

    def text(self) -> str:
        """The figures, their intervals and, for sleep stages, a table of each stage, to print on a terminal."""
        table = self.scores.table() if isinstance(self.scores, Scores) else ""
        return "\n".join(filter(None, (self.scores.line(), self.interval_line(), table)))

    def to_json(self) -> dict[str, Any]:
        """Figures and intervals as JSON values."""
        limits = {name: list(interval) for name, interval in self.intervals.items()}
        return {**self.scores.to_json(), "subjects": len(self.by_subject), "intervals_95": limits}
