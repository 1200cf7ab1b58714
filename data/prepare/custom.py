"""A lab's own recordings, described in a small TOML or YAML file instead of code."""

import csv
import fnmatch
import io
import json
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from config import EVENTS, STAGES, InputError
from data.night import UNSCORED
from data.prepare import nsrr
from data.prepare.recording import Recording
from data.prepare.scoring import Event, Scoring, from_codes, from_intervals, read_text
from data.prepare.sleepedf import read_annotations
from data.prepare.spec import ChannelSpec, RecordingSpec

KEYS = {
    "recordings": "the recordings' file names, such as '*.edf'",
    "scoring": "the scoring's file name, {name} standing for the recording's name without suffix",
    "form": "how the scoring is written: annotations, csv, lines or nsrr",
    "channels": "a table of the channels: the name each will have, and its spellings in recordings",
    "labels": "a table of the scoring's labels and the stages they stand for",
    "columns": "of form csv, the columns of start (s), duration (s) and label",
    "events": "a table of the scoring's labels and the breathing events they stand for",
    "subject": "regular expression; its first group is the subject's number in the recording's path below --data_dir",
    "as_stored": "true: voltages stay in the recording's own unit",
    "multimodal": "true: each channel is scaled by its median and interquartile range",
}
"""What a spec may hold; the first four must be there, and ``labels`` except for form nsrr."""

FORMS = ("annotations", "csv", "lines", "nsrr")
COLUMNS = {"start": "start", "duration": "duration", "label": "label"}


def load_spec(path: Path) -> RecordingSpec:
    """The spec in a ``.toml``, ``.yaml`` or ``.yml`` file.

    Raises:
        InputError: it cannot be read, or says something that no preparation could follow.
    """
    values = _parsed(path)

    def wrong(what: str) -> InputError:
        return InputError(f"{path}: {what}")

    if not isinstance(values, dict):
        raise wrong("a spec is a table of names and values.")
    unknown = sorted(set(map(str, values)) - set(KEYS))
    if unknown:
        raise wrong(f"{unknown[0]!r} is not part of a spec; it may hold {', '.join(KEYS)}.")
    for key in ("recordings", "scoring", "form", "channels", *(["labels"] if values.get("form") != "nsrr" else [])):
        if not values.get(key):
            raise wrong(f"{key} is missing: {KEYS[key]}.")
    for key in ("recordings", "scoring", "form", "subject"):
        if not isinstance(values.get(key, ""), str):
            raise wrong(f"{key} must be a text: {KEYS[key]}.")
    for key in ("as_stored", "multimodal"):
        if not isinstance(values.get(key, False), bool):
            raise wrong(f"{key} must be true or false: {KEYS[key]}.")
    if values["form"] not in FORMS:
        raise wrong(f"form is {values['form']!r}; it may be {', '.join(FORMS)}.")
    if not re.fullmatch(r"[^/\\\0{}]*(\{name\}[^/\\\0{}]*)?", values["scoring"]):
        raise wrong(f"scoring must be {KEYS['scoring']}, and no path.")
    columns = COLUMNS | _mapping(values, "columns", None, wrong)
    if set(columns) != set(COLUMNS):
        raise wrong(f"columns names {', '.join(COLUMNS)}: {KEYS['columns']}.")
    stages = _mapping(values, "labels", (*STAGES, "unscored"), wrong)
    return RecordingSpec(
        db="custom",
        recording=fnmatch.translate(values["recordings"]),
        night="subject{subject}_{name}",
        scoring={"stages": (values["scoring"],)},
        read_scoring=partial(
            read_scoring,
            form=values["form"],
            labels={k: UNSCORED if stage == "unscored" else STAGES.index(stage) for k, stage in stages.items()},
            events=_mapping(values, "events", EVENTS, wrong),
            columns=columns,
        ),
        channels=_channels(values["channels"], wrong),
        subject=_subject(values.get("subject", ""), wrong),
        as_stored=values.get("as_stored", False),
        multimodal=values.get("multimodal", False),
        details=json.loads(json.dumps(values, default=str)),
    )


def _parsed(path: Path) -> Any:
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise InputError(f"{path}: a spec is a .toml, .yaml or .yml file.")
    text = read_text(path)
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{path} is not valid TOML ({error}).") from None
    import yaml

    try:
        return yaml.safe_load(text)
    # PyYAML's constructors meet a wrong value with almost any exception.
    except Exception as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())[:160]}).") from None


def _mapping(
    values: dict[str, Any], key: str, allowed: tuple[str, ...] | None, wrong: Callable[[str], InputError]
) -> dict[str, str]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise wrong(f"{key} must be a table: {KEYS[key]}.")
    if not all(isinstance(part, (str, int)) for entry in table.items() for part in entry):
        raise wrong(f"{key} holds something else than texts: {KEYS[key]}.")
    table = {str(name): str(value) for name, value in table.items()}
    stray = [value for value in table.values() if allowed and value not in allowed]
    if stray:
        raise wrong(f"{key} names {stray[0]!r}; it may name {', '.join(allowed or ())}.")
    return table


def _channels(table: Any, wrong: Callable[[str], InputError]) -> tuple[ChannelSpec, ...]:
    if not isinstance(table, dict):
        raise wrong(f"channels must be a table: {KEYS['channels']}.")
    channels = []
    for name, value in table.items():
        value = value if isinstance(value, dict) else {"spellings": value}
        spellings, band = value.get("spellings", []), value.get("band")
        spellings = [spellings] if isinstance(spellings, str) else spellings
        alike = isinstance(spellings, list) and all(isinstance(spelling, str) for spelling in spellings)
        if set(value) - {"spellings", "band"} or not alike:
            raise wrong(f"channel {name}: give its spellings as a list, or spellings and a band.")
        if band is not None:
            numbers = isinstance(band, list) and len(band) == 2 and all(type(b) in (int, float) for b in band)
            if not numbers or not 0.01 <= band[0] < band[1] <= 49:
                raise wrong(f"channel {name}: band is two frequencies in Hz, such as [0.5, 40], from 0.01 to 49.")
            band = (float(band[0]), float(band[1]))
        channels.append(ChannelSpec(str(name), tuple(map(str, spellings)), band))
    return tuple(channels)


def _subject(pattern: str, wrong: Callable[[str], InputError]) -> str:
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise wrong(f"subject is no regular expression ({error}).") from None
    if pattern and not groups:
        raise wrong(f"subject must have a group in brackets: {KEYS['subject']}.")
    return pattern


def read_scoring(
    files: dict[str, Path],
    recording: Recording,
    form: str,
    labels: dict[str, int],
    events: dict[str, str],
    columns: dict[str, str],
) -> Scoring:
    """The scoring of one recording, written in ``form``.

    Raises:
        InputError: it is not written so, or uses a label that the spec does not explain.
    """
    path = files["stages"]
    if form == "nsrr":
        return nsrr.read_scoring(files, recording)
    if form == "lines":
        return Scoring(from_codes(path, read_text(path).split(), labels))
    rows = _csv(path, columns) if form == "csv" else read_annotations(path, recording)
    unknown = [label for _, _, label in rows if label not in labels and label not in events]
    if unknown:
        known = ", ".join(map(repr, (*labels, *events)))
        raise InputError(f"{path}: the label {unknown[0][:40]!r} is not in the spec's labels or events, {known}.")
    stages, start = from_intervals(path, [(on, length, labels[label]) for on, length, label in rows if label in labels])
    found = tuple(Event(events[label], on, length) for on, length, label in rows if label in events)
    return Scoring(stages, start, found, tuple(name for name in EVENTS if name in events.values()))


def _csv(path: Path, columns: dict[str, str]) -> list[tuple[float, float, str]]:
    """Rows of (start in s, duration in s, label)."""
    text = read_text(path)
    wanted = set(columns.values())
    header = text.partition("\n")[0]
    delimiter = next((d for d in ",;\t" if wanted <= set(next(csv.reader([header], delimiter=d), []))), None)
    if delimiter is None:
        raise InputError(f"{path} does not begin with a line that names the columns {', '.join(columns.values())}.")
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not a table of values ({error}).") from None
    entries = []
    for number, row in enumerate(rows, 2):
        lacking = [name for name in columns.values() if row.get(name) is None]
        if lacking:
            raise InputError(f"{path}, line {number}: there is no value in the column {lacking[0]!r}.")
        try:
            span = float(row[columns["start"]]), float(row[columns["duration"]])
        except ValueError:
            raise InputError(f"{path}, line {number}: start and duration are seconds.") from None
        if not (abs(span[0]) < 1e7 and 0 <= span[1] < 1e7):
            raise InputError(f"{path}, line {number}: start and duration are seconds of one night.")
        if any("\n" in value for value in row.values() if isinstance(value, str)):
            raise InputError(f"{path}, line {number}: a quotation mark is not closed.")
        entries.append((*span, row[columns["label"]].strip()))
    return entries
