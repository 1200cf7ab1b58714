"""Read a scorer's stages for a recording, and breathing events and positions, in any of the common forms."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.databases import plain
from data.nights import night
from data.recordings.channels import NightRecording
from data.recordings.positions import letters, noted
from data.recordings.quality import stretches
from data.recordings.recording import Recording
from data.scorings import nsrr, table
from data.scorings.scoring import N1, N2, N3, REM, Event, Scoring, W, from_intervals, read_text
from data.scorings.sleepedf import read_annotations
from data.terms import EPOCH_SECONDS, EVENTS, UNSCORED, InputError, whole_epochs

SPELLINGS = {
    W: "w wake awake 0",
    N1: "n1 s1 1 nrem1",
    N2: "n2 s2 2 nrem2",
    N3: "n3 n4 s3 s4 3 4 nrem3 nrem4",
    REM: "r rem 5",
    UNSCORED: "? n/a unscored uns unknown m mt movement movementtime art artifact artefact 6 7 8 9 -1",
}
LABELS = {spelling: stage for stage, spellings in SPELLINGS.items() for spelling in spellings.split()}
"""Stages by their spellings, without "sleep" and "stage"; numbers have the meaning of Rechtschaffen & Kales."""

COLUMNS = {
    "start": ("start_s", "start", "onset"),
    "duration": ("duration", "duration_s"),
    "stage": ("stage", "sleep_stage", "label", "description", "trial_type", "scored"),
}
"""The known names of a table's columns, by what the columns hold."""

ANY = "any"
"""The name in a custom specification for all forms that are recognised here by their content, corrections included."""

BIDS_SCORER = ("annotation_method", "annotator_id")
"""Columns of BIDS events that tell how and by whom a row was scored, because a table may hold several scorings."""
BIDS_KIND = "annotationtype"
"""Column of BIDS events that, if there is one, names what is not a stage."""

_KIND = r"(obstructive|central|mixed)?"
_EVENT = re.compile(rf"(?:resp(?:iratory)?(?:event)?)?{_KIND}(hypo|a)pno?ea{_KIND}(?:desat|event)?")


def read_scoring(path: Path, recording: Recording | NightRecording, rules: dict[str, Any] | None = None) -> Scoring:
    """The scoring on the recording's epochs: its stages, -1 where the scorer has none, its events and positions.

    The events of a night file are runs of epochs. Annotations and BIDS events only show that the scorer looked for
    apneas and hypopneas if they hold some.

    Args:
        path: a night file, the NSRR's XML, a table of stages and their starts in s, such as BIDS events, a text file
            with an epoch's stage on each line, or a file from which MNE reads annotations, such as EDF+; local or
            remote.
        recording: the recording that was scored.
        rules: form, labels and columns from a custom specification; if given, the scoring is read by them. Of the form
            :data:`ANY`, only the labels count, and only where the scoring names stages by words of its own.

    Raises:
        InputError: the file has none of these forms, uses an unknown label, or belongs to another recording.
    """
    epochs = whole_epochs(recording.seconds)
    ending = path.suffix.lower()
    own = rules["labels"] if rules else {}
    if rules and rules["form"] != ANY:
        scoring = table.read_scoring({"stages": path}, recording, **rules)
    elif ending == ".npz":
        scoring = _of_night(path, epochs)
    elif ending == ".xml":
        scoring = nsrr.read_scoring({"stages": path})
    elif ending in (".csv", ".tsv", ".txt"):
        scoring = _from_text(path, own)
    else:
        # Files of annotations hold much else besides stages.
        noticed = read_annotations(path, recording)
        entries = [entry for entry in noticed if _stage(entry[2], own) is not None]
        starts, lengths, labels = zip(*entries, strict=True) if entries else ((), (), ())
        found = from_intervals(path, zip(starts, lengths, _checked(path, labels, own), strict=True))
        scoring = _with_events(*found, noticed)
    stages, start = scoring.stages, scoring.start
    if not len(stages):
        raise InputError(f"{path} scores no epoch: name another scoring.")
    # For each epoch of the recording, the scorer's epoch that holds its middle.
    middle = np.floor((np.arange(epochs) * EPOCH_SECONDS + EPOCH_SECONDS / 2 - start) / EPOCH_SECONDS).astype(int)
    there = (middle >= 0) & (middle < len(stages))
    scored = np.where(there, stages[np.clip(middle, 0, len(stages) - 1)], UNSCORED).astype(np.int32)
    beyond = int((stages[max(0, middle[-1] + 1) :] != UNSCORED).sum())
    if (scored == UNSCORED).all() or beyond > 1:
        told = f"{beyond} epochs beyond the end of" if beyond > 1 else "none of the epochs of"
        raise InputError(f"{path} scores {told} {recording.path}: check that they belong together.")
    return replace(scoring, stages=scored, start=0.0)


def _with_events(stages: np.ndarray, start: float, entries: Iterable[tuple[float, float, str]]) -> Scoring:
    """A scoring with the breathing events and positions among ``entries`` of onset, duration in s and label."""
    entries = list(entries)
    events = tuple(Event(name, onset, length) for onset, length, label in entries if (name := _event(label)))
    positions = noted((onset, label) for onset, _, label in entries)
    return Scoring(stages, start, events, EVENTS[:4] if events else (), positions=positions)


def _of_night(path: Path, epochs: int) -> Scoring:
    """The scoring in a night file that holds all epochs of its recording."""
    scored = night.read_scoring(path)
    count = len(scored.stages)
    if abs(count - epochs) > 1 or scored.about.get("trimmed_minutes") or scored.about.get("dropped_epochs"):
        what = f"{path} holds {count} epochs of a recording with {epochs}, because preparation left some out"
        raise InputError(f"{what}, so that their places are unknown: name the scoring that it was prepared from.")
    events = tuple(
        Event(name, float(first * EPOCH_SECONDS), float((end - first) * EPOCH_SECONDS))
        for name, there in scored.events.items()
        for first, end in stretches(there)
    )
    return Scoring(scored.stages, 0.0, events, tuple(scored.events), events_in_sleep=scored.events_in_sleep)


def _from_text(path: Path, own: dict[str, int]) -> Scoring:
    """The scoring in a table, or in a label on each line, with the scorer's ``own`` labels."""
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if "" in lines:
        raise InputError(f"{path}: line {lines.index('') + 1} is empty: write ? for an unscored epoch.")
    if not lines:
        raise InputError(f"{path} scores no epoch: name another scoring.")
    delimiter = next((d for d in "\t;," if d in lines[0]), "\t")
    header = [plain(name.strip('"')) for name in lines[0].split(delimiter)]
    start, duration, stage = (
        next((header.index(plain(name)) for name in names if plain(name) in header), None) for names in COLUMNS.values()
    )
    if stage is None:
        if len(header) > 1 and _stage(lines[0], own) is None:
            raise InputError(
                f"{path} begins with {lines[0][:40]!r}, where no column is called stage: begin the table with a line "
                f"such as epoch{delimiter}stage."
            )
        return Scoring(np.array(_checked(path, lines, own), np.int32))
    try:
        rows, named = list(csv.reader(lines[1:], delimiter=delimiter, strict=True)), []
        if start is not None and path.name.endswith("_events.tsv"):
            rows, others = _by_a_scorer(path, header, rows, stage, own)
            kind = header.index(BIDS_KIND) if BIDS_KIND in header else stage
            told = [row for row in others if _event(row[kind]) or noted([(0.0, row[kind])])]
            named = [(float(row[start]), _seconds(row, duration), row[kind]) for row in told]
        labels = [row[stage] for row in rows]
        starts = [float(row[start]) for row in rows] if start is not None else []
        lengths = [_seconds(row, duration) for row in rows]
    except (csv.Error, ValueError, IndexError) as error:
        raise InputError(
            f"{path} is not a table of stages and their starts in seconds ({error}): correct it."
        ) from None
    stages = _checked(path, labels, own)
    if start is None:
        return Scoring(np.array(stages, np.int32))
    lengths = [length or EPOCH_SECONDS for length in lengths]
    return _with_events(*from_intervals(path, zip(starts, lengths, stages, strict=True)), named)


def _by_a_scorer(
    path: Path, header: list[str], rows: list[list[str]], stage: int, own: dict[str, int]
) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of BIDS events that are stages, and the others; of a human scorer only, if software scored too.

    Raises:
        InputError: several persons scored the night.
    """
    scored = [row for row in rows if _stage(row[stage], own) not in (None, UNSCORED)]
    others = [row for row in rows if _stage(row[stage], own) in (None, UNSCORED)]
    method, who = (header.index(plain(name)) if plain(name) in header else None for name in BIDS_SCORER)
    if method is not None:
        scored = [row for row in scored if row[method] != "automated"] or scored
        methods = {row[method] for row in scored}
        others = [row for row in others if row[method] in methods]
    scorers = sorted({row[who] for row in scored}) if who is not None else []
    if len(scorers) > 1:
        raise InputError(f"{path} holds the scorings of {', '.join(scorers)[:200]}: keep the rows of only one of them.")
    return scored, [row for row in others if who is None or row[who] in scorers]


def _seconds(row: Sequence[str], column: int | None) -> float:
    """A duration in a row of a table; 0 where it is not known."""
    return 0.0 if column is None or row[column] == "n/a" else float(row[column])


def _event(label: str) -> str | None:
    """The breathing event that a label names; an apnea of no kind is called obstructive, as most are."""
    match = _EVENT.fullmatch(letters(label))
    if not match:
        return None
    return "Hypopnea" if match[2] == "hypo" else f"{(match[1] or match[3] or 'obstructive').title()} Apnea"


def _checked(path: Path, labels: Sequence[str], own: dict[str, int]) -> list[int]:
    """The stages that the labels stand for."""
    found = [_stage(label, own) for label in labels]
    if None in found:
        raise InputError(
            f"{path}: {labels[found.index(None)][:40]!r} is not a stage: write W, N1, N2, N3, REM or ?, or say what it "
            "means in the labels of a --spec FILE."
        )
    stages = [stage for stage in found if stage is not None]
    unexplained = (label for label in labels if label.strip() not in own)
    numbers = {_short(label) for label in unexplained if re.fullmatch(r"\s*-?\d+(\.0)?\s*", label)}
    if "4" in numbers and REM not in stages:
        raise InputError(f"{path}: 4 may mean stage 4 or REM: write the stages by name, W, N1, N2, N3, REM.")
    return stages


def _stage(label: str, own: dict[str, int]) -> int | None:
    """The stage that a label stands for, one of the scorer's ``own`` or a common one; None if it stands for none."""
    if label.strip() in own:
        return own[label.strip()]
    return LABELS.get(_short(label).removeprefix("sleep").removeprefix("stage").removesuffix("sleep"))


def _short(label: str) -> str:
    return plain(label).removesuffix(".0")
