"""A laboratory's own scoring, whose labels, events and columns a custom specification explains."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from data.recordings.recording import Recording
from data.scorings import nsrr
from data.scorings.scoring import Event, Scoring, from_codes, from_intervals, read_text
from data.scorings.sleepedf import read_annotations
from data.terms import EVENTS, InputError

if TYPE_CHECKING:
    from data.recordings.channels import NightRecording


def read_scoring(
    files: dict[str, Path],
    recording: "Recording | NightRecording",
    form: str,
    labels: dict[str, int],
    events: dict[str, str],
    columns: dict[str, str],
) -> Scoring:
    """The scoring of one recording, in the ``form``; InputError if it is not, or uses a label that the spec lacks."""
    path = files["stages"]
    if form == "nsrr":
        return nsrr.read_scoring(files)
    if form == "lines":
        return Scoring(from_codes(path, read_text(path).split(), labels))
    rows = _csv(path, columns) if form == "csv" else read_annotations(path, recording)
    unknown = [label for _, _, label in rows if label not in labels and label not in events]
    if unknown:
        known = ", ".join(map(repr, (*labels, *events)))
        raise InputError(
            f"{path}: the label {unknown[0][:40]!r} is not among the spec's labels and events, {known}: add it to the "
            "spec."
        )
    stages, start = from_intervals(path, [(on, length, labels[label]) for on, length, label in rows if label in labels])
    found = tuple(Event(events[label], on, length) for on, length, label in rows if label in events)
    return Scoring(stages, start, found, tuple(name for name in EVENTS if name in events.values()))


def _csv(path: Path, columns: dict[str, str]) -> list[tuple[float, float, str]]:
    """Rows of (start in s, duration in s, label)."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty: name another scoring.")
    wanted = set(columns.values())
    header = text.partition("\n")[0]
    delimiter = next((d for d in ",;\t" if wanted <= set(next(csv.reader([header], delimiter=d), []))), None)
    if delimiter is None:
        raise InputError(
            f"{path} begins with {header.strip()[:80]!r}, not with a line that names the columns "
            f"{', '.join(columns.values())}: correct columns in the spec, or this line."
        )
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not a valid table ({error}): correct it.") from None
    entries = []
    for number, row in enumerate(rows, 2):
        lacking = [name for name in columns.values() if row.get(name) is None]
        if lacking:
            raise InputError(f"{path}, line {number}: the column {lacking[0]!r} has no value: add it.")
        try:
            start, duration = float(row[columns["start"]]), float(row[columns["duration"]])
        except ValueError:
            raise InputError(f"{path}, line {number}: start and duration must be numbers of seconds.") from None
        if not (abs(start) < 1e7 and 0 <= duration < 1e7):
            raise InputError(f"{path}, line {number}: start and duration must be seconds within one night.")
        if any("\n" in value for value in row.values() if isinstance(value, str)):
            raise InputError(f"{path}, line {number}: a quotation mark is not closed: add it.")
        entries.append((start, duration, row[columns["label"]].strip()))
    return entries
