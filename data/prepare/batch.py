"""Turn many recordings into night files: skip finished ones, go on after bad ones, and list the result of each."""

import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.databases import ChannelSpec, Database
from data.nights.files import about_of, read_arrays, write_arrays
from data.prepare.conversion import convert, settings, sizes
from data.prepare.sources import TABLE, Source
from data.terms import STAGES, UNSCORED, InputError
from data.writing import as_table, failed, working_in, written_aside
from runs import workers

if TYPE_CHECKING:
    import pandas as pd

    from config import PreparationConfig


@dataclass(frozen=True)
class Job:
    """What one night's preparation needs to know."""

    source: Source
    target: Path
    database: Database
    channels: tuple[ChannelSpec, ...]
    config: "PreparationConfig"


COUNTED = {**dict(enumerate(STAGES)), UNSCORED: "unscored"}
"""The column of ``nights.csv`` that counts each label."""
NOTHING: dict[str, Any] = {"epochs": 0, **dict.fromkeys(COUNTED.values(), 0)}
NOTHING |= {"trimmed_minutes": 0.0, "dropped_epochs": 0, "events": "", "channels": "", "notes": "", "seconds": 0.0}
"""What ``nights.csv`` holds for a night that failed."""


@dataclass(frozen=True)
class Outcome:
    """The result of one night: ``status`` is written, kept or failed; ``found`` goes into ``nights.csv``."""

    night: str
    status: str
    recording: str
    found: dict[str, Any] = field(default_factory=lambda: NOTHING)
    reason: str = ""


def prepare(job: Job) -> Outcome:
    """Prepare one night, or find it finished; a bad recording is an outcome, not an error."""
    started = time.perf_counter()
    name, recording = job.source.night, job.source.recording
    try:
        if job.source.problem:
            raise InputError(job.source.problem)
        if job.target.exists():
            return _kept(job)
        other = job.target.with_suffix("") if job.target.suffix == ".npz" else job.target.with_name(f"{name}.npz")
        if other.exists():
            raise InputError(f"{other} holds this night in another --format: remove it, or name another --out.")
        arrays = convert(job.source, job.database, job.channels, job.config)
        write_arrays(job.target, arrays)
        return _outcome(name, "written", arrays, time.perf_counter() - started)
    # Whatever is wrong with one recording, the others are still prepared.
    except Exception as error:
        # An OSError, such as of a full disk, comes from writing.
        where = job.target if isinstance(error, OSError) else recording
        return Outcome(name, "failed", recording.name, reason=failed(error, where, job.target.with_name(f"{name}.log")))


def _kept(job: Job) -> Outcome:
    """The outcome of a night that is already there, made from the same files in the same way."""
    where = f"{job.target} exists already, but"
    try:
        arrays = read_arrays(job.target, ("y", "events", "event_names", "about"))
        outcome, about = _outcome(job.source.night, "kept", arrays, 0.0), about_of(arrays)
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{where} is not a whole night: remove it and run the same command again.") from None
    if about.get("settings") != settings(job.database, job.channels, job.config):
        raise InputError(f"{where} was prepared with other channels or settings: remove it, or name another --out.")
    if about.get("bytes") != sizes(job.source):
        raise InputError(
            f"{where} its recording or scoring has changed since: remove it and run the same command again."
        )
    return outcome


def _outcome(night: str, status: str, arrays: dict[str, np.ndarray], seconds: float) -> Outcome:
    about = about_of(arrays)
    stages = arrays["y"]
    if stages.ndim != 1 or not np.isin(stages, range(UNSCORED, len(STAGES))).all():
        raise ValueError("y holds no stages")
    names = arrays.get("event_names", ())
    counts = arrays["events"].sum(axis=0) if len(names) else ()
    found = {
        "epochs": len(stages),
        **{name: int((stages == label).sum()) for label, name in COUNTED.items()},
        "trimmed_minutes": about["trimmed_minutes"],
        "dropped_epochs": about["dropped_epochs"],
        "events": "; ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)),
        "channels": "; ".join(f"{c['name']} ({c['unit']})" for c in about["channels"]),
        "notes": "; ".join(about["notes"]),
        "seconds": round(seconds, 2),
    }
    return Outcome(night, status, about["recording"], found)


def prepare_all(jobs: Sequence[Job], output: Path, processes: int = 1, cluster: str | None = None) -> list[Outcome]:
    """Prepare every night, with a progress bar, and write ``nights.csv`` beside the nights.

    Raises:
        InputError: the cluster or a worker process failed, or another process works in ``output``; nights finished
            until then stay.
    """
    from tqdm import tqdm

    outcomes: list[Outcome] = []
    done = workers.each(prepare, jobs, processes, cluster)
    with working_in(output, processes > 1 and cluster is None), closing(done):
        with tqdm(done, total=len(jobs), desc=f"preparing {output.name}", unit="night", smoothing=0) as bar:
            for outcome in bar:
                outcomes.append(outcome)
                bad = sum(outcome.status == "failed" for outcome in outcomes)
                bar.set_postfix_str(f"{bad} failed" if bad else "", refresh=False)
        outcomes.sort(key=lambda outcome: outcome.night)
        with written_aside(output / TABLE) as aside:
            _table(outcomes).to_csv(aside, index=False)
    return outcomes


def _table(outcomes: Sequence[Outcome]) -> "pd.DataFrame":
    return as_table(
        {"night": o.night, "status": o.status, "recording": o.recording, **o.found, "reason": o.reason}
        for o in outcomes
    )


def summary(outcomes: Sequence[Outcome]) -> str:
    """What to print at the end: a row for each night, the sums, and the failures with their reasons."""
    import pandas as pd

    good = [outcome for outcome in outcomes if outcome.status != "failed"]
    lines = []
    if good:
        columns = ["night", "status", "epochs", *COUNTED.values(), "trimmed_minutes", "dropped_epochs"]
        table = _table(good)[columns]
        sums = {"night": f"{len(good)} nights", "status": "", **{name: table[name].sum() for name in columns[2:]}}
        shown = pd.concat([table, pd.DataFrame([sums])])
        if len(good) > 40:
            shown = shown.iloc[[*range(20), -1]]
            lines.append(f"The first 20 nights of {len(good)}; all are in {TABLE}.")
        titles = {"trimmed_minutes": "trimmed min", "dropped_epochs": "dropped"}
        lines.append(shown.rename(columns=titles).to_string(index=False))
        lines += [f"note: {o.night}: {o.found['notes']}" for o in good if o.found["notes"]]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        lines.append(f"{len(failed)} of {len(outcomes)} failed:")
        lines += [f"  {o.night}: {o.reason}" for o in failed]
    return "\n".join(lines)


def make_jobs(
    sources: Sequence[Source],
    output: Path,
    form: str,
    database: Database,
    channels: tuple[ChannelSpec, ...],
    config: "PreparationConfig",
) -> list[Job]:
    """One job for each source; InputError if ``output`` holds one of the nights under another subject's number."""
    if database.db == "custom":
        _same_subjects(sources, output)
    suffix = ".npz" if form == "npz" else ""
    return [Job(source, output / f"{source.night}{suffix}", database, channels, config) for source in sources]


def _same_subjects(sources: Sequence[Source], output: Path) -> None:
    """Refuse to give subjects new numbers where nights with the old ones exist: one person would count as two."""
    try:
        there = {path.name.removesuffix(".npz") for path in output.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return
    for source in sources:
        name = re.compile(rf"subject\d+_{re.escape(source.night.partition('_')[2])}")
        others = [night for night in there if name.fullmatch(night)]
        if others and source.night not in there:
            number = "under another subject's number, because recordings were added since"
            remedy = "let the spec's subject find the number in the recordings' names, or name another --out"
            raise InputError(f"{output / others[0]} holds {source.recording} {number}: {remedy}.")
