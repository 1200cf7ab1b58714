"""Work on many recordings, in one or more processes: skip finished ones, go on after bad ones, and list all results."""

import hashlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, ClassVar

from tqdm import tqdm

from data.recordings.channels import open_signals
from data.recordings.edf import NoSignals
from data.recordings.lights import lights
from data.recordings.positions import noted, of_epochs
from data.scorings.any_form import read_scoring
from data.store import content, location, reaching
from data.terms import STAGES, UNPRINTABLE, InputError
from data.writing import as_table, failed, working_in, written_aside
from evaluation.breathing import ScoredEvents, scorer_index
from evaluation.corrections import corrected
from evaluation.statistics import columns
from runs import workers
from staging.recordings import Source
from staging.results import LIGHTS, NEEDED, SCORES, finished, stored, told, write_results
from staging.shown import traces
from staging.stager import Stager


@dataclass(frozen=True)
class Settings:
    """How recordings are staged, the same for all.

    Attributes:
        channels: the channels to stage and average; empty for the best ones of each recording.
        calibrate: whether to scale each channel to the level of the training data.
        smooth: whether the epochs before and after an epoch help to decide its stage.
        scoring: file of a scorer's stages; ``{name}`` in it stands for the recording's name; "" for none.
        rules: the rules of a custom specification that says how the scoring is written, if any.
        overwrite: whether finished recordings are staged again.
        lights_off: when lights went off, as :func:`data.recordings.lights.lights` takes it.
        lights_on: when lights went on, in the same form.
        corrections: file of corrected stages; ``{name}`` in it stands for the recording's name; "" for none.
        signals: whether the page shows the signals.
        patient: whether the page shows what the header says about the patient, which may include the name.
    """

    channels: tuple[str, ...]
    calibrate: bool
    smooth: bool
    scoring: str
    rules: dict[str, Any] | None
    overwrite: bool
    lights_off: str = ""
    lights_on: str = ""
    corrections: str = ""
    signals: bool = True
    patient: bool = False


@dataclass(frozen=True)
class Models:
    """Where trained models are. Calling it loads them, once in each worker process, and returns what works with them.

    Attributes:
        load: the function that loads the models, such as ``recsleep.load_stager``; it takes ``folder``, ``options`` and
            ``threads``. The ``models`` of its result hold each network's ``folder`` and the ``sha256`` of its weights.
        folder: the folder of the models.
        options: other arguments of ``load``, such as the database that the models were trained on.
        threads: how many threads compute; 0 for one on each core.
        sha256: those of the weights. A cluster's worker, which runs longer than a command, sees by them when the folder
            holds other weights.
    """

    load: Callable[..., Any]
    folder: Path
    options: tuple[str | None, ...] = ()
    threads: int = 0
    sha256: tuple[str, ...] = ()

    def __call__(self) -> Any:
        # A cluster's worker may have several threads.
        with _LOADING:
            return _loaded(self)


_LOADING = Lock()


@lru_cache(maxsize=1)
def _loaded(models: Models) -> Any:
    # The command itself has already printed what there is to say about the models.
    with redirect_stdout(None):
        return models.load(models.folder, *models.options, models.threads)


@dataclass(frozen=True)
class Outcome:
    """The result of one recording: ``status`` says what was done, or is kept, left out or failed."""

    source: Source
    status: str
    result: dict[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Work(ABC):
    """Works on one recording after another, with loaded models, or, in a worker process, with models it loads there.

    Attributes:
        models: the loaded models, or a :class:`Models`, which loads them.
        folder: the folder of the results, local or remote.
        settings: the settings, which are the same for all recordings.
        doing: the word for the work in the progress bar.
        table: the name of the file in ``folder`` that lists the results of all recordings.
    """

    models: Any
    folder: Path
    settings: Any

    doing: ClassVar[str]
    table: ClassVar[str]

    def __call__(self, source: Source) -> Outcome:
        """Work on one recording, or find it finished; a bad recording gives an outcome, not an error."""
        try:
            if source.problem:
                raise InputError(source.problem)
            return self.outcome(source, self.models() if isinstance(self.models, Models) else self.models)
        # Whatever is wrong with one recording, the others are still worked on.
        except Exception as error:
            # A folder may hold scorings beside the recordings.
            left_out = isinstance(error, NoSignals) and not source.named
            reason = failed(error, source.path, self.folder / f"{source.name}.log")
            return Outcome(source, "left out" if left_out else "failed", reason=reason)

    @abstractmethod
    def outcome(self, source: Source, models: Any) -> Outcome:
        """The outcome of working on a recording; any exception if that is impossible."""

    @staticmethod
    @abstractmethod
    def told(result: dict[str, Any]) -> str:
        """The result of a finished recording in a few lines, to print on a terminal."""

    @staticmethod
    @abstractmethod
    def row(result: dict[str, Any]) -> dict[str, Any]:
        """The columns of the table that belong to this kind of work; a failed recording has an empty ``result``."""


def work_on_all(
    kind: type[Work],
    sources: Sequence[Source],
    models: Models,
    folder: Path,
    settings: Any,
    jobs: int = 1,
    cluster: str | None = None,
) -> list[Outcome]:
    """Work on every recording, print the result of each, write the table of all, and print a summary.

    Args:
        kind: the kind of work.
        sources: the recordings.
        models: the models for the work.
        folder: the folder of the results, local or remote.
        settings: the settings, which are the same for all recordings.
        jobs: the number of processes on this machine, which share its cores.
        cluster: address of a Dask scheduler whose workers do the work instead, a recording on each of their threads.

    Returns:
        The outcome of each recording, in the order of ``sources``.

    Raises:
        InputError: a model or the only recording is unusable, or the cluster or a worker process failed.
    """
    # Also loaded here, which takes a tenth of a second, so that a mistake in the models is told once and at the start.
    loaded = models.load(models.folder, *models.options, 0)
    print(f"models: {len(loaded.models)}, from {models.folder}")
    alone, jobs, outcomes = len(sources) == 1, min(jobs, len(sources)), {}
    work = kind(loaded, folder, settings)
    if jobs > 1 or cluster:
        from joblib import cpu_count

        known = tuple(model["sha256"] for model in loaded.models)
        threads = 1 if cluster else max(1, cpu_count() // jobs)
        work = kind(replace(models, threads=threads, sha256=known), folder, settings)
    found = workers.each(work, sources, jobs, cluster)
    with working_in(folder, jobs > 1 and cluster is None), closing(found), _progress(kind.doing, sources) as bar:
        for outcome in found:
            if alone and outcome.status == "failed":
                raise InputError(outcome.reason)
            outcomes[outcome.source] = outcome
            bad = f"{outcome.source.name}: {outcome.status}: {outcome.reason}"
            lines = kind.told(outcome.result).split("\n") if outcome.result else [bad]
            bar.write("\n".join(UNPRINTABLE.sub(" ", line) for line in lines))
            bar.update()
    ordered = [outcomes[source] for source in sources]
    with written_aside(folder / kind.table) as aside:
        as_table(_row(kind, outcome) for outcome in ordered).to_csv(aside, index=False)
    print(_summary(ordered, folder, kind.table))
    return ordered


@contextmanager
def _progress(doing: str, sources: Sequence[Source]) -> Iterator[tqdm]:
    """A progress bar on a terminal, or only the time if there is one recording; it is refreshed every second."""
    alone, ended = len(sources) == 1, Event()
    with tqdm(
        total=len(sources),
        desc=f"{doing} {sources[0].path.name}" if alone else doing,
        bar_format="{desc}: {elapsed}" if alone else None,
        leave=not alone,
        unit="recording",
        smoothing=0,
        # In a file, the bar would be one long line.
        disable=None,
    ) as bar:

        def go_on() -> None:
            while not ended.wait(1):
                bar.refresh()

        clock = Thread(target=go_on, daemon=True)
        clock.start()
        try:
            yield bar
        finally:
            ended.set()
            clock.join()


class Staging(Work):
    """Stages recordings, with a :class:`staging.stager.Stager` and :class:`Settings`."""

    doing, table = "staging", "summary.csv"

    def outcome(self, source: Source, stager: Stager) -> Outcome:
        started, settings = time.perf_counter(), self.settings
        scoring, corrections = (
            location(text.replace("{name}", source.name)) if text else None
            for text in (settings.scoring, settings.corrections)
        )
        # Only options in use are written: so the results of earlier versions, which did not have them, still fit.
        options = {name: getattr(settings, name) for name in (*LIGHTS, "patient")}
        options["no_signals"] = not settings.signals
        settled = {
            "channels": list(settings.channels),
            "calibrate": settings.calibrate,
            "smooth": settings.smooth,
            "models": [model["sha256"] for model in stager.models],
            **{name: value for name, value in options.items() if value},
        }
        origin: dict[str, Any] = {
            "recording": described(source.path),
            "settings": settled,
            "scoring": scoring and {**described(scoring), "rules": settings.rules},
            # The size is not enough here: another correction may leave it unchanged.
            "corrected": corrections and {**described(corrections), "sha256": _sha256(corrections)},
        }
        before = None if settings.overwrite else finished(self.folder / f"{source.name}.json", origin, NEEDED)
        if before:
            # What is not given anew stays.
            origin["settings"] = {n: before["settings"][n] for n in LIGHTS if n in before["settings"]} | settled
            given = {"settings": True, "scoring": scoring, "corrected": corrections}
            if all(before.get(name) == origin[name] for name in given if given[name]):
                return Outcome(source, "kept", before)
        if before and corrections is None:
            origin["corrected"] = before.get("corrected")
        with open_signals(source.path, settings.channels) as recording:
            scored = read_scoring(scoring, recording, settings.rules) if scoring else None
            opened = time.perf_counter()
            if before:
                night = stored(self.folder, source.name, before)
                eeg = [channel["name"] for channel in before["channels"] if channel["modality"] == "eeg"]
                if eeg:
                    night = replace(night, spectra=stager.spectra(recording, eeg[0], settings.calibrate))
            else:
                night = stager.stage(recording, settings.channels, settings.calibrate, settings.smooth)
                night.about["took"]["reading"] += opened - started
            night.about["subject"] = recording.header.code if recording.header else ""
            night = replace(
                night,
                name=source.name,
                scored=scored.stages if scored else recording.stages,
                scored_events=ScoredEvents.of(scored) if scored else None,
                positions=of_epochs(
                    noted(recording.notes()) or (scored.positions if scored else ()), len(night.stages)
                ),
                lights=lights(recording, *(origin["settings"].get(name, "") for name in LIGHTS)),
                traces=traces(recording, night.about["channels"]) if settings.signals else (),
                patient=recording.header.patient if recording.header and settings.patient else "",
            )
        if corrections:
            night = corrected(night, corrections)
        done = "corrected" if corrections else "compared" if scoring else "renewed"
        return Outcome(source, done if before else "staged", write_results(night, self.folder, origin))

    @staticmethod
    def told(result: dict[str, Any]) -> str:
        return told(result)

    @staticmethod
    def row(result: dict[str, Any]) -> dict[str, Any]:
        statistics, agreement = result.get("statistics", {}), result.get("agreement") or {}
        breathing, correction = result.get("breathing") or {}, result.get("correction") or {}
        lain = breathing.get("index_by_position", {})
        return {
            **columns(statistics),
            "apnea_hypopnea_index": breathing.get("apnea_hypopnea_index"),
            **{f"index_{stage}": breathing.get("index_by_stage", {}).get(stage) for stage in STAGES[1:]},
            **{f"index_{name.replace(' ', '_')}": lain.get(name, {}).get("index") for name in ("supine", "not supine")},
            "scorer_index": scorer_index(breathing),
            "confidence": result.get("confidence"),
            **{name: agreement.get(name) for name in SCORES},
            **{f"correction_{name}": correction.get(name) for name in SCORES},
        }


def described(path: Path) -> dict[str, Any]:
    """The path and size in bytes of a file, or of a folder of files; InputError if it does not exist."""
    try:
        with reaching(path):
            size = sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, or no longer exists: check its name.") from None
    return {"path": str(path), "bytes": size}


def _sha256(path: Path) -> str:
    return hashlib.sha256(content(path)).hexdigest()


def _row(kind: type[Work], outcome: Outcome) -> dict[str, Any]:
    """A recording's row in the table; a failed recording has only its reason."""
    result = outcome.result or {}
    return {
        "name": outcome.source.name,
        "status": outcome.status,
        "recording": str(outcome.source.path),
        "channels": "; ".join(channel["name"] for channel in result.get("channels", ())),
        "epochs": result.get("epochs"),
        **kind.row(result),
        "warnings": " ".join(result.get("warnings", ())),
        "reason": outcome.reason,
    }


def _summary(outcomes: Sequence[Outcome], folder: Path, table: str) -> str:
    """How many recordings have which status, and the failures with their reasons."""
    numbers = Counter(outcome.status for outcome in outcomes)
    told = ", ".join(f"{number} {status}" for status, number in numbers.items())
    lines = [f"{told}; the results and {table} are in {folder}."]
    lines += [f"  failed: {o.source.name}: {o.reason}" for o in outcomes if o.status == "failed"]
    return "\n".join(lines)
