"""A staged night: its hypnogram and hypnodensity, what can be computed from them, and the files they become."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

from data.recordings.positions import POSITIONS
from data.recordings.quality import stretches
from data.store import content
from data.terms import EPOCH_SECONDS, SAMPLING_RATE, STAGES, TASKS, UNSCORED, InputError, in_one_line
from data.writing import written_aside
from evaluation.breathing import ScoredEvents, apnea_hypopnea_index
from evaluation.signals import Trace
from evaluation.stages import Scores, as_json
from evaluation.statistics import statistics

if TYPE_CHECKING:
    import mne
    import yasa
    from matplotlib.figure import Figure

NAMES = (*STAGES, "unscored")
"""Stages by number; -1, what is not scored, is the last."""
ANNOTATIONS = tuple(f"Sleep stage {stage}" for stage in ("W", "N1", "N2", "N3", "R", "?"))
"""The same in the texts that EDF+ prescribes."""
SMOOTHED = [f"smoothed_{stage}" for stage in STAGES]
"""Columns of the probabilities that were smoothed."""
UNSURE = 0.6
"""Probability of the chosen stage below which an epoch is worth a look."""
DOUBTED = 0.5
"""Mean probability of the most probable stage below which its hypnogram is not to be relied on."""
LEAST_HOURS = 3
"""Of scored epochs, from which on a night of a single stage, or without deep or REM sleep, is a strange one."""
LARGEST_SHARE = 0.9
"""Of a night that any stage may have; that of N2, the most frequent one, is seldom above 0.6."""
HIGHEST_FREQUENCY = 30
"""Hz, of the spectrogram."""


@dataclass(frozen=True)
class Hypnogram:
    """Stages of a recording's consecutive 30-s epochs, from its first sample on.

    Attributes:
        name: the recording's.
        stages: int32 (epochs,), 0..4 for W, N1, N2, N3, REM, or -1 for unscored.
        probabilities: float32 (epochs, 5), the hypnodensity, as the models see it.
        start: clock time of the first epoch, if known.
        scored: int32 (epochs,), a scorer's stages to compare with, if there are any.
        scored_events: the apneas and hypopneas of that scorer, if they are known.
        events: float32 (epochs,) of each breathing event, by its name: its probability, where the models tell it.
        spectra: float32 (epochs, bins), the signal's power at 0, 0.5, 1, … 30 Hz in dB of its median, if known.
        about: how it came about, as JSON values: channels, assumptions, warnings, models.
        smoothed: float32 (epochs, 5), the probabilities that decided the stages given the epochs before and after, if
            they did; else ``probabilities`` did.
        model_stages: int32 (epochs,), what the models found, if somebody corrected it: ``stages`` are corrected then.
        lights: the epoch at whose beginning lights went off, and that at which they went on, if known.
        traces: the signals that its page shows.
        positions: str (epochs,) of :data:`data.recordings.positions.POSITIONS`, "" where it is not known, if any is.
        patient: what the recording's header says of the patient, for the page alone; "" where it is not to be shown.

    Example:

    >>> night = Hypnogram("night", stages=np.array([0, 2, 2, 4]), probabilities=np.full((4, 5), 0.2, np.float32))
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

    @property
    def title(self) -> str:
        """The name as text: bytes of a file's name that are none are escaped."""
        return self.name.encode("utf-8", "backslashreplace").decode()

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each epoch's most probable stage (epochs,), of those by which the stages were decided."""
        return (self.probabilities if self.smoothed is None else self.smoothed).max(axis=1)

    @property
    def mean_confidence(self) -> float:
        """The mean of :attr:`confidence` over the scored epochs; 0 where there are none."""
        scored = self.confidence[self.stages != UNSCORED]
        return float(scored.mean()) if len(scored) else 0.0

    @property
    def agreement(self) -> Scores | None:
        """Agreement with the scorer over the epochs that both have scored; None where there is none."""
        return None if self.scored is None else _agreement(self.scored, self.stages)

    @property
    def correction(self) -> Scores | None:
        """Agreement of the models with the corrected stages, over the epochs that both have; None if nobody did any."""
        return None if self.model_stages is None else _agreement(self.stages, self.model_stages)

    @property
    def fingerprint(self) -> str:
        """By which the night is known again, whatever it is called: of its start, its probabilities and its stages."""
        seen = np.rint(1e6 * self.probabilities.astype(np.float64)).astype("<i4")
        parts = (str(self.start).encode(), seen.tobytes(), self.stages.astype("<i4").tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """A row per epoch: ``epoch``, ``start_s``, ``stage`` by name, the five probabilities, and those of events.

        Where the stages were smoothed, the probabilities that decided them are ``smoothed_W`` to ``smoothed_REM``;
        where they were corrected, ``model_stage`` is what the models found.
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
        """Each stretch of a stage, and of an event, as an annotation in EDF+'s texts; onsets from the first sample."""
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
        """The stages, and the probabilities that decided them, as a hypnogram of the library YASA.

        Raises:
            InputError: YASA is not installed.
        """
        try:
            import yasa
        except ImportError:
            raise InputError("YASA is not installed, which a hypnogram of YASA needs: pip install yasa.") from None
        names = ("WAKE", *STAGES[1:], "UNS")
        decided = self.probabilities if self.smoothed is None else self.smoothed
        table = pd.DataFrame(decided.astype(float), columns=list(names[:-1]))
        return yasa.Hypnogram(np.array(names)[self.stages], start=self.start, proba=table)

    def found(self, event: str) -> np.ndarray:
        """bool (epochs,): the scored epochs in which the event is more probable than not."""
        return (self.events[event] > 0.5) & (self.stages != UNSCORED)

    @property
    def breathing(self) -> dict[str, Any] | None:
        """How many epochs each event was found in, how many runs they make, and the estimated apnea-hypopnea index.

        ``index_by_stage`` counts the runs within each stage of sleep per hour of it, ``index_by_position`` those within
        each position, with the minutes of sleep in it. ``scorer`` is what :meth:`ScoredEvents.beside` tells, if they
        are known. An index is None without sleep, or where apnea and hypopnea were not both looked for; the whole is
        None where neither was.
        """
        if not self.events:
            return None
        found = {name: self.found(name) for name in self.events}
        told: dict[str, Any] = {
            name: {"epochs": int(which.sum()), "runs": len(stretches(which))} for name, which in found.items()
        }
        asleep, events = self.stages > 0, np.any(list(found.values()), axis=0)
        lain = self._asleep_in_positions()
        every = {"sleep": asleep, **{stage: self.stages == number for number, stage in enumerate(STAGES)}, **lain}
        indices = as_json({name: apnea_hypopnea_index(events, where) for name, where in every.items()})
        if not {"apnea", "hypopnea"} <= found.keys():
            indices = dict.fromkeys(indices)
        minutes = {name: int(where.sum()) * EPOCH_SECONDS / 60 for name, where in lain.items()}
        return {
            **told,
            "apnea_hypopnea_index": indices["sleep"],
            "index_by_stage": {stage: indices[stage] for stage in STAGES[1:]},
            "index_by_position": {name: {"minutes": minutes[name], "index": indices[name]} for name in lain},
            "scorer": self.scored_events and self.scored_events.beside(indices["sleep"]),
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

    def scorer_statistics(self) -> dict[str, Any] | None:
        """The same of the scorer's stages; None if there are none."""
        return None if self.scored is None else statistics(self.scored, self.lights)

    def periods(self) -> list[tuple[int, int]]:
        """The sleep periods: first epoch of N2, N3 or REM, and the one after the last.

        More than two hours without any separate two; ten minutes of them make one. N1 does not count, of which networks
        find some wherever wake is strange to them.
        """
        asleep = np.flatnonzero(self.stages >= STAGES.index("N2"))
        parts = np.split(asleep, np.flatnonzero(np.diff(asleep) > 7200 / EPOCH_SECONDS) + 1)
        return [(int(part[0]), int(part[-1]) + 1) for part in parts if len(part) >= 600 / EPOCH_SECONDS]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the statistics should know, a sentence each."""
        told, hours = [], len(self.stages) * EPOCH_SECONDS / 3600
        if hours < 2:
            told.append(f"it lasts {hours * 60:.0f} min, for which a night's latencies and efficiency mean little.")
        if not (self.stages > 0).any():
            told.append("no sleep was found.")
        if (self.stages == UNSCORED).any():
            unscored = (self.stages == UNSCORED).sum()
            told.append(f"{unscored} epochs, more than ten minutes on end without EEG, are unscored.")
        periods = self.periods()
        if len(periods) > 1:
            spans = ", ".join(f"{self.clock(first)} to {self.clock(end)}" for first, end in periods)
            told.append(
                f"sleep comes in {len(periods)} periods, {spans}; SPT, WASO and SME span them and what lies between."
            )
        return told

    @property
    def doubts(self) -> list[str]:
        """Why the whole hypnogram may be wrong, a sentence each.

        A network gives every signal some stages, also one that is no EEG, or whose level or unit it does not know. Then
        it is unsure of them all, or sure of the same one, wake or N1 as a rule. That is looked for, and nothing finer:
        a sick sleeper's night differs from those of the training as well. Short recordings may well hold one stage.
        What counts is how sure the models are themselves: smoothing makes a strange night look surer than it is.
        """
        scored = self.stages[self.stages != UNSCORED]
        if not len(scored):
            return []
        told, check = [], "check the channel and its unit before relying on the hypnogram."
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
        """When an epoch begins: by the clock if the start is known, else from the recording's first sample on."""
        passed = timedelta(seconds=int(epoch) * EPOCH_SECONDS)
        return f"{self.start + passed:%H:%M:%S}" if self.start else str(passed)

    @property
    def doubtful(self) -> np.ndarray:
        """bool (epochs,): the scored epochs in which no stage is probable, but for those that somebody corrected."""
        model = self.stages if self.model_stages is None else self.model_stages
        return (self.confidence < UNSURE) & (self.stages != UNSCORED) & (self.stages == model)

    def unsure(self) -> pd.DataFrame:
        """The stretches to check by hand, where no stage is probable, the longest first.

        Columns ``epoch`` (the first), ``epochs``, ``start_s``, ``stages`` and mean ``confidence``.
        """
        return self._stretches(self.doubtful)

    def differing(self) -> pd.DataFrame:
        """The stretches where the scorer has another stage, the longest first; a column ``scored`` more.

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
        """Hypnogram over hypnodensity over spectrogram over breathing events, as far as there are any."""
        from evaluation.figures import night_figure

        return night_figure(self)

    def save_csv(self, path: Path) -> None:
        """Write :meth:`to_frame` as CSV; the file appears whole."""
        with written_aside(path) as aside:
            self.to_frame().to_csv(aside, index=False, float_format="%.6f")

    @classmethod
    def read_csv(cls, path: Path, **more: Any) -> "Hypnogram":
        """The night, local or remote, that :meth:`save_csv` wrote, with ``more`` of its attributes.

        Raises:
            InputError: the file is absent, or no such table.
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
            raise InputError(f"{path} is no hypnogram of this toolkit ({in_one_line(error)}).") from None
        return cls(
            stages=stages,
            probabilities=probabilities,
            events=events,
            smoothed=smoothed,
            model_stages=model_stages,
            **more,
        )

    def save_edf(self, path: Path) -> None:
        """Write :meth:`to_annotations` as an EDF+ file of annotations alone, as Sleep-EDF's scorings are."""
        import edfio

        # EDF knows no earlier year, and begins there where nothing is known.
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
    """Agreement over the epochs (epochs,) that both have scored; None where there are none."""
    both = (scored != UNSCORED) & (found != UNSCORED)
    return Scores.of(scored[both], found[both]) if both.any() else None


def numbers(names: Iterable[str]) -> np.ndarray:
    """Stages int32 (epochs,) by their :data:`NAMES`; ValueError at any other name."""
    return np.array([(*range(len(STAGES)), UNSCORED)[NAMES.index(name)] for name in names], np.int32)


def _names(stages: np.ndarray) -> np.ndarray:
    return np.array(NAMES)[stages]


def _listed(stages: np.ndarray) -> str:
    """The stages that occur, the most frequent first."""
    found, counts = np.unique(stages, return_counts=True)
    return ", ".join(_names(found[np.argsort(-counts, kind="stable")]))


def spectra(signals: np.ndarray) -> np.ndarray:
    """Power of ``signals`` (epochs, 3000) at 0, 0.5, … 30 Hz, in dB of the night's median: float32 (epochs, 61).

    By Welch's method (IEEE Trans. Audio Electroacoust. 15, 1967) with Hann windows of two seconds, one from each second
    on, as ``scipy.signal.welch`` has it; SciPy's signal package takes longer to load than the spectra to compute.
    """
    size, bins = 2 * SAMPLING_RATE, 2 * HIGHEST_FREQUENCY + 1
    hann = np.hanning(size + 1)[:-1]
    power = np.empty((len(signals), bins))
    for epoch, signal in enumerate(signals):
        windows = sliding_window_view(signal, size)[::SAMPLING_RATE]
        centred = windows - windows.mean(axis=1, keepdims=True)
        power[epoch] = np.mean(np.abs(np.fft.rfft(centred * hann)[:, :bins]) ** 2, axis=0)
    # Of every frequency but 0 there is a negative one of the same power.
    power[:, 1:] *= 2
    median = np.median(power[power > 0]) if (power > 0).any() else 1.0
    return (10 * np.log10(np.maximum(power / median, 1e-6))).astype(np.float32)
