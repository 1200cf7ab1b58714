"""A lab's own recordings, described in a small TOML or YAML file instead of code."""

import fnmatch
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import regex

from data.databases import DATABASES, ChannelSpec, Database
from data.recipe import BAND_LIMITS
from data.scorings.any_form import ANY
from data.scorings.scoring import read_text
from data.terms import EVENTS, STAGES, UNSCORED, InputError, in_one_line

KEYS = {
    "recordings": "the recordings' file names, such as '*.edf'",
    "scoring": "the scoring's file name, {name} standing for the recording's name without suffix",
    "form": "how the scoring is written: annotations, csv, lines, nsrr, or any that predict.py --scoring reads",
    "channels": "a table of the channels: the name each will have, and its spellings in recordings",
    "labels": "a table of the scoring's labels and the stages they stand for",
    "columns": "of form csv, the columns of start (s), duration (s) and label",
    "events": "a table of the scoring's labels and the breathing events they stand for",
    "subject": "regular expression; its first group is the subject's number in the recording's path below --data",
    "as_stored": "true: voltages stay in the recording's own unit",
    "multimodal": "true: each channel is scaled by its median and interquartile range",
}
"""What a spec may hold; the first four must be there, and ``labels`` except for the forms nsrr and any."""

KINDS: dict[str, tuple[type, str]] = dict.fromkeys(("channels", "labels", "columns", "events"), (dict, "a table"))
KINDS |= dict.fromkeys(("as_stored", "multimodal"), (bool, "true or false"))
"""What the values of a spec must be; the others are texts."""

KNOWING = ("nsrr", ANY)
"""The forms whose labels are known."""
FORMS = ("annotations", "csv", "lines", *KNOWING)
COLUMNS = {"start": "start", "duration": "duration", "label": "label"}


def load_spec(path: Path) -> Database:
    """The spec in a ``.toml``, ``.yaml`` or ``.yml`` file; InputError if no preparation could follow it."""
    values = _parsed(path)
    try:
        return _database(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # Such as a number of too many digits.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds what no spec does ({in_one_line(error)}).") from None


def _database(values: Any) -> Database:
    if not isinstance(values, dict):
        raise InputError("a spec is a table of names and values.")
    unknown = sorted(set(map(str, values)) - set(KEYS))
    if unknown:
        raise InputError(f"{unknown[0]!r} is not part of a spec; it may hold {', '.join(KEYS)}.")
    for key in (
        "recordings",
        "scoring",
        "form",
        "channels",
        *(["labels"] if values.get("form") not in KNOWING else []),
    ):
        if not values.get(key):
            raise InputError(f"{key} is missing: {KEYS[key]}.")
    for key, value in values.items():
        kind, name = KINDS.get(key, (str, "a text"))
        # An empty table may be written as nothing.
        if not isinstance(value, kind) and (value or kind is not dict):
            raise InputError(f"{key} must be {name}: {KEYS[key]}.")
    if values["form"] not in FORMS:
        raise InputError(f"form is {values['form']!r}; it may be {', '.join(FORMS)}.")
    if not re.fullmatch(r"[^/\\\0{}]*(\{name\}[^/\\\0{}]*)?", values["scoring"]):
        raise InputError(f"scoring must be {KEYS['scoring']}, and no path.")
    columns = COLUMNS | _mapping(values, "columns")
    if set(columns) != set(COLUMNS):
        raise InputError(f"columns names {', '.join(COLUMNS)}: {KEYS['columns']}.")
    codes = {**{stage: code for code, stage in enumerate(STAGES)}, "unscored": UNSCORED}
    stages = _mapping(values, "labels", tuple(codes))
    return replace(
        DATABASES["custom"],
        recording=fnmatch.translate(values["recordings"]),
        scoring={"stages": (values["scoring"],)},
        form="table",
        rules={
            "form": values["form"],
            "labels": {label: codes[stage] for label, stage in stages.items()},
            "events": _mapping(values, "events", EVENTS),
            "columns": columns,
        },
        channels=_channels(values["channels"]),
        subject=_subject(values.get("subject", "")),
        as_stored=values.get("as_stored", False),
        scaled=values.get("multimodal", False),
        details=json.loads(json.dumps(values, default=str)),
    )


def _parsed(path: Path) -> Any:
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise InputError(f"{path}: a spec is a .toml, .yaml or .yml file.")
    text = read_text(path)
    import yaml

    try:
        return tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    # PyYAML's constructors meet a wrong value with almost any exception.
    except Exception as error:
        form = "TOML" if path.suffix == ".toml" else "YAML"
        raise InputError(f"{path} is not valid {form} ({in_one_line(error)}).") from None


def _mapping(values: dict[str, Any], key: str, allowed: tuple[str, ...] = ()) -> dict[str, str]:
    """The table called ``key``, of texts; its values are ``allowed``, unless that is empty."""
    table = values.get(key) or {}
    if not all(isinstance(part, (str, int)) for entry in table.items() for part in entry):
        raise InputError(f"{key} holds something else than texts: {KEYS[key]}.")
    table = {str(name): str(value) for name, value in table.items()}
    stray = [value for value in table.values() if allowed and value not in allowed]
    if stray:
        raise InputError(f"{key} names {stray[0]!r}; it may name {', '.join(allowed)}.")
    return table


def _channels(table: dict[str, Any]) -> tuple[ChannelSpec, ...]:
    channels = []
    for name, value in table.items():
        value = value if isinstance(value, dict) else {"spellings": value}
        spellings, band = value.get("spellings", []), value.get("band")
        spellings = [spellings] if isinstance(spellings, str) else spellings
        alike = isinstance(spellings, list) and all(isinstance(spelling, str) for spelling in spellings)
        if set(value) - {"spellings", "band"} or not alike:
            raise InputError(f"channel {name}: give its spellings as a list, or spellings and a band.")
        if band is not None:
            lowest, highest = BAND_LIMITS
            numbers = isinstance(band, list) and len(band) == 2 and all(type(b) in (int, float) for b in band)
            if not numbers or not lowest <= band[0] < band[1] <= highest:
                known = f"two frequencies in Hz, such as [0.5, 40], from {lowest} to {highest}"
                raise InputError(f"channel {name}: band is {known}.")
            band = (float(band[0]), float(band[1]))
        channels.append(ChannelSpec(str(name), tuple(spellings), band))
    return tuple(channels)


def _subject(pattern: str) -> str:
    try:
        groups = regex.compile(pattern).groups
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(f"subject is no regular expression ({error}).") from None
    if pattern and not groups:
        raise InputError(f"subject must have a group in brackets: {KEYS['subject']}.")
    return pattern
