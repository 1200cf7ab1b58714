"""Many recordings, one after another: goes on after a bad one, skips finished ones, and keeps the books."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.recordings.channels import open_signals
from data.recordings.edf import NoSignals
from data.scorings.any_form import read_scoring
from data.store import as_table, is_remote, location, reaching, remove_unfinished, written_aside
from data.terms import FAILURES, STAGES, InputError, failure
from evaluation.report import FIGURES
from staging.recordings import Source
from staging.results import finished, told, write_results
from staging.stager import Stager

TABLE = "summary.csv"


@dataclass(frozen=True)
class Settings:
    """How recordings are staged, the same for all.

    Attributes:
        channels: to stage and average; none for the best of each recording.
        calibrate: whether each is brought to the level of the training data.
        smooth: whether the epochs before and after an epoch help to decide its stage.
        scoring: file of a scorer's stages; ``{name}`` in it stands for the recording's name; "" for none.
        overwrite: whether finished recordings are staged again.
    """

    channels: tuple[str, ...]
    calibrate: bool
    smooth: bool
    scoring: str
    overwrite: bool


@dataclass(frozen=True)
class Outcome:
    """What became of one recording: ``status`` is staged, kept, left out or failed."""

    source: Source
    status: str
    result: dict[str, Any] | None = None
    reason: str = ""


def stage_all(sources: Sequence[Source], stager: Stager, folder: Path, settings: Settings) -> list[Outcome]:
    """Stage every recording into ``folder``, saying of each what was found, and write ``summary.csv``.

    Raises:
        InputError: the only recording is unusable, or one scoring was given for several.
    """
    if len(sources) > 1 and settings.scoring and "{name}" not in settings.scoring:
        raise InputError("--scoring: with several recordings, write {name} where a recording's name stands in it.")
    if not is_remote(folder):
        # Of a killed run; a run beside this one on the same folder is not foreseen.
        remove_unfinished(folder, below=False)
    outcomes: list[Outcome] = []
    with tqdm(sources, desc="staging", unit="recording", smoothing=0, disable=len(sources) == 1) as bar:
        for source in bar:
            outcome = _outcome(source, stager, folder, settings)
            outcomes.append(outcome)
            if outcome.status == "failed" and len(sources) == 1:
                raise InputError(outcome.reason)
            bar.write(told(outcome.result) if outcome.result else f"{source.name}: {outcome.status}: {outcome.reason}")
    with written_aside(folder / TABLE) as aside:
        as_table(map(_row, outcomes)).to_csv(aside, index=False)
    return outcomes


def _outcome(source: Source, stager: Stager, folder: Path, settings: Settings) -> Outcome:
    """Stage one recording, or find it finished; a bad one is an outcome, not an error."""
    try:
        return _staged(source, stager, folder, settings)
    except FAILURES as error:
        # In a folder, scorings lie beside recordings.
        left_out = isinstance(error, NoSignals) and not source.named
        return Outcome(source, "left out" if left_out else "failed", reason=failure(error, source.path))


def _staged(source: Source, stager: Stager, folder: Path, settings: Settings) -> Outcome:
    started = time.perf_counter()
    scoring = location(settings.scoring.replace("{name}", source.name)) if settings.scoring else None
    origin = {
        "recording": {"path": str(source.path), "bytes": _size(source.path)},
        "settings": {
            "channels": list(settings.channels),
            "calibrate": settings.calibrate,
            "smooth": settings.smooth,
            "scoring": scoring and {"path": str(scoring), "bytes": _size(scoring)},
            "models": [model["sha256"] for model in stager.models],
        },
    }
    before = None if settings.overwrite else finished(folder, source.name, origin)
    if before:
        return Outcome(source, "kept", before)
    with open_signals(source.path, settings.channels) as recording:
        scored = read_scoring(scoring, recording) if scoring else recording.stages
        opened = time.perf_counter()
        night = stager.stage(recording, settings.channels, settings.calibrate, settings.smooth)
    night.about["took"]["reading"] += opened - started
    night = replace(night, name=source.name, scored=scored)
    return Outcome(source, "staged", write_results(night, folder, origin))


def _size(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    try:
        with reaching(path):
            return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist (any more).") from None


def _row(outcome: Outcome) -> dict[str, Any]:
    """A recording's row of the table; a failed one has its reason alone."""
    result = outcome.result or {}
    statistics, agreement = result.get("statistics", {}), result.get("agreement") or {}
    return {
        "name": outcome.source.name,
        "status": outcome.status,
        "recording": str(outcome.source.path),
        "channels": "; ".join(channel["name"] for channel in result.get("channels", ())),
        "epochs": result.get("epochs"),
        **{name: statistics.get(name) for name in FIGURES},
        **{f"{stage}_min": statistics.get("minutes", {}).get(stage) for stage in STAGES},
        "apnea_hypopnea_index": (result.get("breathing") or {}).get("apnea_hypopnea_index"),
        "confidence": result.get("confidence"),
        **{name: agreement.get(name) for name in ("accuracy", "macro_f1", "kappa")},
        "warnings": " ".join(result.get("warnings", ())),
        "reason": outcome.reason,
    }


def summary(outcomes: Sequence[Outcome], folder: Path) -> str:
    """What to print at the end: how many, and the failures with their reasons."""
    numbers = Counter(outcome.status for outcome in outcomes)
    told = ", ".join(f"{number} {status}" for status, number in numbers.items())
    lines = [f"{told}; all is in {folder}, with {TABLE}."]
    lines += [f"  failed: {o.source.name}: {o.reason}" for o in outcomes if o.status == "failed"]
    return "\n".join(lines)
