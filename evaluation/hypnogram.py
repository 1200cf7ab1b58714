"""A staged night: its hypnogram and hypnodensity, the figures computed from them, and the files that hold them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from data.recordings.positions import POSITIONS
from data.recordings.quality import stretches
from data.store import content
from data.terms import EPOCH_SECONDS, STAGES, TASKS, UNSCORED, InputError, in_one_line
from data.writing import written_aside
from evaluation.breathing import ScoredEvents, apnea_hypopnea_index
from evaluation.signals import Trace
from evaluation.stages import Scores, as_json
from evaluation.statistics import LATENCIES, statistics

if TYPE_CHECKING:
    import mne
    import yasa
    from matplotlib.figure import Figure

NAMES = (*STAGES, "unscored")
"""Names of the stages by number; the last one is that of -1, unscored."""
ANNOTATIONS = tuple(f"Sleep stage {stage}" for stage in ("W", "N1", "N2", "N3", "R", "?"))
"""The same as texts of annotations, as EDF+ prescribes them."""
SMOOTHED = [f"smoothed_{stage}" for stage in STAGES]
"""Columns of the smoothed probabilities."""
UNSURE = 0.6
"""An epoch should be checked by hand if its most probable stage is less probable than this."""
DOUBTED = 0.5
"""A hypnogram is doubtful if the mean probability of the most probable stages is below this."""
LEAST_HOURS = 3
"""With more scored hours than this, a night of almost one stage, or without N2, N3 and REM, is suspicious."""
LARGEST_SHARE = 0.9
"""No stage should have a larger share of a night than this; N2, the most frequent one, is seldom above 0.6."""


@dataclass(frozen=True)
class Hypnogram:
    """Stages of a recording's consecutive 30-s epochs, from its first sample on.

    Attributes:
        name: the recording's name.
        stages: int32 (epochs,), 0..4 for W, N1, N2, N3, REM, or -1 for unscored.
        probabilities: float32 (epochs, 5), the hypnodensity, as the models give it.
        start: clock time of the first epoch, if known.
        scored: int32 (epochs,), a scorer's stages to compare with, if there are any.
        scored_events: the apneas and hypopneas that this scorer found, if they are known.
        events: for each breathing event that the models find, by its name, its probability, float32 (epochs,).
        spectra: float32 (epochs, bins), the signal's power at 0, 0.5, 1, … 30 Hz in dB of its median, if known.
        about: how the night was staged, as JSON values: channels, assumptions, warnings, models.
        smoothed: float32 (epochs, 5), the smoothed probabilities, which also use the epochs before and after; if there
            are any, they decided the stages, else ``probabilities`` did.
        model_stages: int32 (epochs,), the stages that the models found, if ``stages`` were corrected.
        lights: the epoch at whose start lights went off, and the one at whose start they went on, if known.
        traces: the signals that the page shows.
        positions: str (epochs,) of :data:`data.recordings.positions.POSITIONS`, "" if unknown; None if all are unknown.
        patient: what the recording's header says about the patient, for the page only; "" if it is not to be shown.

    Example:

    >>> night = Hypnogram("night", stages=np.array([0, 2, 2, 4]), probabilities=np.full((4, 5), 0.2, np.float32))
    >>> night
    Hypnogram('night', 4 epochs, 0.0 h: W 25%, N1 0%, N2 50%, N3 0%, REM 25%)
    >>> night.statistics()["TST"]  # Minutes.
    1.5
    """

    name: str
    stages: np.ndarray
    probabilities: np.ndarray
    start: datetime | None = None
    scored: np.ndarray | None = None
    spectra: np.ndarray | None = None
    events: dict[str, np.ndarray] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    smoothed: np.ndarray | None = None
    model_stages: np.ndarray | None = None
    lights: tuple[int, int] | None = None
    traces: tuple[Trace, ...] = ()
    patient: str = ""
    scored_events: ScoredEvents | None = None
    positions: np.ndarray | None = None

    def __repr__(self) -> str:
        epochs, each = len(self.stages), zip(NAMES, (*range(len(STAGES)), UNSCORED), strict=True)
        shares = ((name, np.count_nonzero(self.stages == stage) / max(1, epochs)) for name, stage in each)
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares if share or name in STAGES)
        return f"Hypnogram({self.name!r}, {epochs} epochs, {epochs * EPOCH_SECONDS / 3600:.1f} h: {told})"

    @property
    def title(self) -> str:
        """The name as text: bytes of a file's name that are not text are escaped."""
        return self.name.encode("utf-8", "backslashreplace").decode()

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each epoch's most probable stage (epochs,), among those that decided the stages."""
        return (self.probabilities if self.smoothed is None else self.smoothed).max(axis=1)

    @property
    def mean_confidence(self) -> float:
        """The mean of :attr:`confidence` over the scored epochs; 0 if there are none."""
        scored = self.confidence[self.stages != UNSCORED]
        return float(scored.mean()) if len(scored) else 0.0

    @property
    def agreement(self) -> Scores | None:
        """Agreement with the scorer over the epochs that both have scored; None without such epochs or a scorer."""
        return None if self.scored is None else _agreement(self.scored, self.stages)

    @property
    def correction(self) -> Scores | None:
        """Agreement of the models with the corrected stages, over the epochs that both have; None if uncorrected."""
        return None if self.model_stages is None else _agreement(self.stages, self.model_stages)

    @property
    def fingerprint(self) -> str:
        """A hash of start, probabilities and stages, by which the night is recognised whatever its name."""
        seen = np.rint(1e6 * self.probabilities.astype(np.float64)).astype("<i4")
        parts = (str(self.start).encode(), seen.tobytes(), self.stages.astype("<i4").tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """A row per epoch: ``epoch``, ``start_s``, ``stage`` by name, the five probabilities, and those of events.

        If the stages were smoothed, the probabilities that decided them are ``smoothed_W`` to ``smoothed_REM``; if they
        were corrected, ``model_stage`` is what the models found.
        """
        epochs = np.arange(len(self.stages))
        table = pd.DataFrame({"epoch": epochs, "start_s": epochs * EPOCH_SECONDS, "stage": _names(self.stages)})
        if self.model_stages is not None:
            table["model_stage"] = _names(self.model_stages)
        table[list(STAGES)] = self.probabilities
        if self.smoothed is not None:
            table[SMOOTHED] = self.smoothed
        return table.assign(**self.events)

    def to_annotations(self) -> "mne.Annotations":
        """Each stretch of a stage or event as an annotation with EDF+'s texts; onsets count from the first sample."""
        import mne

        onsets, durations, texts = zip(*self._runs(), strict=True)
        return mne.Annotations(onsets, durations, texts)

    def _runs(self) -> list[tuple[float, float, str]]:
        """Onset and duration in s, and text, of each stretch of one stage and of each event, by onset."""
        runs = [(a, end, ANNOTATIONS[stage]) for a, end, stage in self.bouts()]
        for name in self.events:
            runs += [(a, end, name.capitalize()) for a, end in stretches(self.found(name))]
        return [(float(a * EPOCH_SECONDS), float((end - a) * EPOCH_SECONDS), text) for a, end, text in sorted(runs)]

    def bouts(self) -> list[tuple[int, int, int]]:
        """Each stretch of one stage: its first epoch, the one after its last, and the stage, in their order."""
        first = np.flatnonzero(np.diff(self.stages, prepend=self.stages[0] + 1))
        return list(zip(first.tolist(), [*first[1:].tolist(), len(self.stages)], self.stages[first], strict=True))

    def to_yasa(self) -> "yasa.Hypnogram":
        """The stages, with the probabilities that decided them, as a hypnogram of the library YASA.

        Raises:
            InputError: YASA is not installed.
        """
        try:
            import yasa
        except ImportError:
            raise InputError("to_yasa() needs the library YASA: install it with pip install yasa.") from None
        names = ("WAKE", *STAGES[1:], "UNS")
        decided = self.probabilities if self.smoothed is None else self.smoothed
        table = pd.DataFrame(decided.astype(float), columns=list(names[:-1]))
        return yasa.Hypnogram(np.array(names)[self.stages], start=self.start, proba=table)

    def found(self, event: str) -> np.ndarray:
        """bool (epochs,): the scored epochs in which the event is more probable than not."""
        return (self.events[event] > 0.5) & (self.stages != UNSCORED)

    @property
    def breathing(self) -> dict[str, Any] | None:
        """In how many epochs and runs of epochs each event was found, and the estimated apnea-hypopnea index.

        ``index_by_stage`` gives, for each stage of sleep, the runs in this stage per hour of it, ``index_by_position``
        the same for each position, with the minutes of sleep in it. ``scorer`` is what :meth:`ScoredEvents.beside`
        gives, if the scorer's events are known, of the epochs that both have if the night is :attr:`partly_scored`. An
        index is None if there is no such sleep, or if the models do not look for both apnea and hypopnea. The result is
        None if they look for neither.
        """
        if not self.events:
            return None
        found = {name: self.found(name) for name in self.events}
        told: dict[str, Any] = {
            name: {"epochs": int(which.sum()), "runs": len(stretches(which))} for name, which in found.items()
        }
        asleep, events = self.stages > 0, np.any(list(found.values()), axis=0)
        lain = self._asleep_in_positions()
        compared = asleep & (self.scored != UNSCORED) if self.partly_scored else asleep
        every = {
            "sleep": asleep,
            "compared": compared,
            **{stage: self.stages == number for number, stage in enumerate(STAGES)},
            **lain,
        }
        indices = as_json({name: apnea_hypopnea_index(events, where) for name, where in every.items()})
        if not {"apnea", "hypopnea"} <= found.keys():
            indices = dict.fromkeys(indices)
        minutes = {name: int(where.sum()) * EPOCH_SECONDS / 60 for name, where in lain.items()}
        return {
            **told,
            "apnea_hypopnea_index": indices["sleep"],
            "index_by_stage": {stage: indices[stage] for stage in STAGES[1:]},
            "index_by_position": {name: {"minutes": minutes[name], "index": indices[name]} for name in lain},
            "scorer": self.scored_events and self.scored_events.beside(indices["compared"]),
        }

    def _asleep_in_positions(self) -> dict[str, np.ndarray]:
        """The epochs of sleep, bool (epochs,), in each position in which there was some, and in all but supine."""
        if self.positions is None:
            return {}
        asleep = self.stages > 0
        parts = {name: asleep & (self.positions == name) for name in POSITIONS}
        parts["not supine"] = asleep & (self.positions != "supine") & (self.positions != "")
        return {name: where for name, where in parts.items() if where.any()}

    def statistics(self) -> dict[str, Any]:
        """The figures of the night between lights off and on: see :func:`evaluation.statistics.statistics`."""
        return statistics(self.stages, self.lights)

    @property
    def partly_scored(self) -> bool:
        """Whether the scorer lacks epochs in bed that the models have staged."""
        if self.scored is None:
            return False
        lacking = (self.scored == UNSCORED) & (self.stages != UNSCORED)
        return bool(lacking[slice(*(self.lights or (None,)))].any())

    def compared_statistics(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The figures of these stages and those of the scorer's, to compare with each other.

        If the night is :attr:`partly_scored`, both are of the epochs that both have, as if lights went off at the first
        of these and on after the last. A latency is None then if an epoch without a stage of both lies before its end.
        The result is None without a scorer's stages, or if no epoch in bed has stages of both.
        """
        if self.scored is None:
            return None
        if not self.partly_scored:
            return self.statistics(), statistics(self.scored, self.lights)
        off, on = self.lights or (0, len(self.stages))
        both = (self.stages != UNSCORED) & (self.scored != UNSCORED)
        there = off + np.flatnonzero(both[off:on])
        if not len(there):
            return None
        span = int(there[0]), int(there[-1]) + 1
        # Until the first epoch in bed that not both have.
        begin = slice(off, off + int(np.argmin(np.append(both[off:on], False))))

        def of(stages: np.ndarray) -> dict[str, Any]:
            figures = statistics(np.where(both, stages, UNSCORED), span)
            return figures | {name: None for name, ends in LATENCIES.items() if not np.isin(stages[begin], ends).any()}

        return of(self.stages), of(self.scored)

    def periods(self) -> list[tuple[int, int]]:
        """The sleep periods, each from its first epoch of N2, N3 or REM to the one after its last.

        More than two hours without N2, N3 and REM separate two periods; a period has at least ten minutes of them. N1
        does not count, because networks often take unusual wake for N1.
        """
        asleep = np.flatnonzero(self.stages >= STAGES.index("N2"))
        parts = np.split(asleep, np.flatnonzero(np.diff(asleep) > 7200 / EPOCH_SECONDS) + 1)
        return [(int(part[0]), int(part[-1]) + 1) for part in parts if len(part) >= 600 / EPOCH_SECONDS]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the statistics should know, one sentence for each point."""
        told, hours = [], len(self.stages) * EPOCH_SECONDS / 3600
        if hours < 2:
            told.append(f"it lasts only {hours * 60:.0f} min, so latencies and efficiency mean little.")
        if not (self.stages > 0).any():
            told.append("no sleep was found.")
        if (self.stages == UNSCORED).any():
            unscored = (self.stages == UNSCORED).sum()
            told.append(f"{unscored} epochs are unscored, in stretches of more than ten minutes without EEG.")
        if self.scored is not None and self.partly_scored:
            there = f"{np.count_nonzero(self.scored != UNSCORED)} of the recording's {len(self.stages)} epochs"
            told.append(f"the scoring has {there}, and only these are compared.")
        periods = self.periods()
        if len(periods) > 1:
            spans = ", ".join(f"{self.clock(first)} to {self.clock(end)}" for first, end in periods)
            told.append(
                f"there are {len(periods)} periods of sleep, {spans}; SPT, WASO and SME include the time between them."
            )
        return told

    @property
    def doubts(self) -> list[str]:
        """Why the whole hypnogram may be wrong, one sentence for each reason.

        A network stages every signal, even one that is not EEG, or whose level or unit is not that of its training.
        Then it is usually unsure everywhere, or sure of one stage, mostly wake or N1. Only these two signs are looked
        for: subtler ones also appear in the nights of ill sleepers. Short recordings may really hold only one stage.
        The models' own probabilities count here, because smoothing makes them look surer than they are.
        """
        scored = self.stages[self.stages != UNSCORED]
        if not len(scored):
            return []
        told, check = [], "check the channel and its unit before you rely on the hypnogram."
        confidence = self.probabilities[self.stages != UNSCORED].max(axis=1).mean()
        if confidence < DOUBTED:
            told.append(f"the models' mean confidence is {confidence:.2f}, below {DOUBTED:g}: {check}")
        hours, counts = len(scored) * EPOCH_SECONDS / 3600, np.bincount(scored, minlength=len(STAGES))
        if hours > LEAST_HOURS:
            most, share = STAGES[counts.argmax()], counts.max() / len(scored)
            if share > LARGEST_SHARE:
                told.append(f"{100 * share:.0f} % of {hours:.1f} h are {most}: {check}")
            elif not counts[STAGES.index("N2") :].any():
                told.append(f"{hours:.1f} h hold no N2, N3 or REM: {check}")
        return told

    def clock(self, epoch: int) -> str:
        """When an epoch begins: the clock time if the start is known, else the time since the first sample."""
        return clock(self.start, epoch)

    @property
    def doubtful(self) -> np.ndarray:
        """bool (epochs,): the scored epochs in which no stage is probable, except corrected ones."""
        model = self.stages if self.model_stages is None else self.model_stages
        return (self.confidence < UNSURE) & (self.stages != UNSCORED) & (self.stages == model)

    def unsure(self) -> pd.DataFrame:
        """The stretches to check by hand, where no stage is probable, the longest first.

        Columns ``epoch`` (the first), ``epochs``, ``start_s``, ``stages`` and mean ``confidence``.
        """
        return self._stretches(self.doubtful)

    def differing(self) -> pd.DataFrame:
        """The stretches where the scorer has another stage, the longest first; they have a column ``scored`` too.

        Raises:
            ValueError: no scorer's stages are known.
        """
        if self.scored is None:
            raise ValueError("there are no scorer's stages to compare with.")
        scored = self.scored
        both = (scored != UNSCORED) & (self.stages != UNSCORED)
        table = self._stretches(both & (scored != self.stages))
        spans = zip(table["epoch"], table["epoch"] + table["epochs"], strict=True)
        table.insert(4, "scored", [_listed(scored[first:end]) for first, end in spans])
        return table

    def _stretches(self, which: np.ndarray) -> pd.DataFrame:
        rows = []
        for first, end in stretches(which):
            confidence = float(self.confidence[first:end].mean())
            rows.append((first, end - first, first * EPOCH_SECONDS, _listed(self.stages[first:end]), confidence))
        table = pd.DataFrame(rows, columns=["epoch", "epochs", "start_s", "stages", "confidence"])
        return table.sort_values(["epochs", "epoch"], ascending=[False, True], ignore_index=True)

    def plot(self) -> "Figure":
        """A figure: hypnogram, hypnodensity and, if there are any, spectrogram and breathing events."""
        from evaluation.figures import night_figure

        return night_figure(self)

    def save_csv(self, path: Path) -> None:
        """Write :meth:`to_frame` as CSV; the file appears whole."""
        with written_aside(path) as aside:
            self.to_frame().to_csv(aside, index=False, float_format="%.6f")

    @classmethod
    def read_csv(cls, path: Path, **more: Any) -> "Hypnogram":
        """The night in a file, local or remote, that :meth:`save_csv` wrote; ``more`` are its other attributes.

        Raises:
            InputError: the file is absent, or is not such a table.
        """
        file = BytesIO(content(path))
        try:
            table = pd.read_csv(file)
            stages = numbers(table["stage"])
            model_stages = numbers(table.pop("model_stage")) if "model_stage" in table else None
            columns = table.drop(columns=["epoch", "start_s", "stage"]).astype(np.float32)
            probabilities = columns[list(STAGES)].to_numpy()
            smoothed = columns[SMOOTHED].to_numpy() if SMOOTHED[0] in columns else None
            events = {name: columns[name].to_numpy() for name in TASKS if name in columns}
            if not np.isfinite(columns).all(axis=None):
                raise ValueError("a probability is missing")
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{path} is not a hypnogram of this toolkit ({in_one_line(error)}): stage the recording again."
            ) from None
        return cls(
            stages=stages,
            probabilities=probabilities,
            events=events,
            smoothed=smoothed,
            model_stages=model_stages,
            **more,
        )

    def save_edf(self, path: Path) -> None:
        """Write :meth:`to_annotations` as an EDF+ file that holds only annotations, as Sleep-EDF's scorings do."""
        import edfio

        # EDF has no earlier year, and uses this date for an unknown one.
        begin = self.start if self.start and 1985 <= self.start.year <= 2084 else datetime(1985, 1, 1)
        edf = edfio.Edf(
            [],
            recording=edfio.Recording(startdate=begin.date()),
            starttime=begin.replace(microsecond=0).time(),
            annotations=[edfio.EdfAnnotation(*entry) for entry in self._runs()],
        )
        with written_aside(path) as aside:
            edf.write(aside)


def _agreement(scored: np.ndarray, found: np.ndarray) -> Scores | None:
    """Agreement over the epochs (epochs,) that both have scored; None if there are none."""
    both = (scored != UNSCORED) & (found != UNSCORED)
    return Scores.of(scored[both], found[both]) if both.any() else None


def clock(start: datetime | None, epoch: int) -> str:
    """When an epoch begins: the clock time if the ``start`` is known, else the time since the first sample."""
    passed = timedelta(seconds=int(epoch) * EPOCH_SECONDS)
    return f"{start + passed:%H:%M:%S}" if start else str(passed)


def numbers(names: Iterable[str]) -> np.ndarray:
    """Stages int32 (epochs,) from their :data:`NAMES`; ValueError for any other name."""
    return np.array([(*range(len(STAGES)), UNSCORED)[NAMES.index(name)] for name in names], np.int32)


def _names(stages: np.ndarray) -> np.ndarray:
    return np.array(NAMES)[stages]


def _listed(stages: np.ndarray) -> str:
    """The stages that occur, the most frequent first."""
    found, counts = np.unique(stages, return_counts=True)
    return ", ".join(_names(found[np.argsort(-counts, kind="stable")]))
