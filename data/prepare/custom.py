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
    "recordings": "a pattern for the recordings' file names, such as '*.edf'",
    "scoring": "the scoring's file name, in which {name} stands for the recording's name without suffix",
    "form": "the form of the scoring: annotations, csv, lines, nsrr, or any (whatever predict.py --scoring reads)",
    "channels": "a table of the channels: the name that each will get, and its names in recordings",
    "labels": "a table of the scoring's labels and the stages that they mean",
    "columns": "a table with the names of the columns start (s), duration (s) and label, for the form csv",
    "events": "a table of the scoring's labels and the breathing events that they mean",
    "subject": "a regular expression whose first group finds the subject's number in the recording's path below --data",
    "as_stored": "true if voltages stay in the recording's own unit",
    "multimodal": "true if each channel is scaled by its median and interquartile range",
}
"""What a spec may hold; the first four are required, and so is ``labels`` except with the forms nsrr and any."""

KINDS: dict[str, tuple[type, str]] = dict.fromkeys(("channels", "labels", "columns", "events"), (dict, "a table"))
KINDS |= dict.fromkeys(("as_stored", "multimodal"), (bool, "true or false"))
"""Of which kind these values of a spec must be; all other values are texts."""

KNOWING = {"nsrr": ("labels", "events", "columns"), ANY: ("events", "columns")}
"""The forms whose labels the spec need not explain; with each, the parts of a spec that would have no effect."""
FORMS = ("annotations", "csv", "lines", *KNOWING)
COLUMNS = {"start": "start", "duration": "duration", "label": "label"}


def load_spec(path: Path) -> Database:
    """The spec in a ``.toml``, ``.yaml`` or ``.yml`` file; InputError if it is not a valid one."""
    values = _parsed(path)
    try:
        return _database(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # For example, a number has too many digits.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds a value that no spec may hold ({in_one_line(error)}): correct it.") from None


def _database(values: Any) -> Database:
    if not isinstance(values, dict):
        raise InputError("a spec is a table of names and values, but this file is something else.")
    unknown = sorted(set(map(str, values)) - set(KEYS))
    if unknown:
        raise InputError(f"{unknown[0]!r} is not part of a spec: choose among {', '.join(KEYS)}.")
    for key in (
        "recordings",
        "scoring",
        "form",
        "channels",
        *(["labels"] if values.get("form") not in KNOWING else []),
    ):
        if not values.get(key):
            raise InputError(f"{key} is missing: give {KEYS[key]}.")
    for key, value in values.items():
        kind, name = KINDS.get(key, (str, "a text"))
        # YAML reads an empty table as None.
        if not isinstance(value, kind) and (value or kind is not dict):
            raise InputError(f"{key} must be {name}: give {KEYS[key]}.")
    if values["form"] not in FORMS:
        raise InputError(f"form is {values['form']!r}: choose one of {', '.join(FORMS)}.")
    for key in KNOWING.get(values["form"], ()):
        if values.get(key):
            raise InputError(
                f"{key} has no effect with the form {values['form']}: leave it out, or choose another form."
            )
    if not re.fullmatch(r"[^/\\\0{}]*(\{name\}[^/\\\0{}]*)?", values["scoring"]):
        raise InputError(f"scoring must be {KEYS['scoring']}: leave out folders, other braces and backslashes.")
    columns = COLUMNS | _mapping(values, "columns")
    if set(columns) != set(COLUMNS):
        raise InputError(f"columns may hold only {', '.join(COLUMNS)}: give {KEYS['columns']}.")
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
        raise InputError(f"{path}: a spec must be a .toml, .yaml or .yml file.")
    text = read_text(path)
    import yaml

    try:
        return tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    # PyYAML's constructors raise almost any exception on a wrong value.
    except Exception as error:
        form = "TOML" if path.suffix == ".toml" else "YAML"
        raise InputError(f"{path} is not valid {form} ({in_one_line(error)}): correct it there.") from None


def _mapping(values: dict[str, Any], key: str, allowed: tuple[str, ...] = ()) -> dict[str, str]:
    """The table of texts called ``key``; its values must be among ``allowed``, unless that is empty."""
    table = values.get(key) or {}
    if not all(isinstance(part, (str, int)) for entry in table.items() for part in entry):
        raise InputError(f"{key} must hold texts only: give {KEYS[key]}.")
    table = {str(name): str(value) for name, value in table.items()}
    stray = [value for value in table.values() if allowed and value not in allowed]
    if stray:
        raise InputError(f"{key} names {stray[0]!r}: choose among {', '.join(allowed)}.")
    return table


def _channels(table: dict[str, Any]) -> tuple[ChannelSpec, ...]:
    channels = []
    for name, value in table.items():
        value = value if isinstance(value, dict) else {"spellings": value}
        spellings, band = value.get("spellings", []), value.get("band")
        spellings = [spellings] if isinstance(spellings, str) else spellings
        alike = isinstance(spellings, list) and all(isinstance(spelling, str) for spelling in spellings)
        if set(value) - {"spellings", "band"} or not alike:
            raise InputError(
                f"channel {name}: give a list of its names in recordings, or a table with spellings (that list) and "
                "band."
            )
        if band is not None:
            lowest, highest = BAND_LIMITS
            numbers = isinstance(band, list) and len(band) == 2 and all(type(b) in (int, float) for b in band)
            if not numbers or not lowest <= band[0] < band[1] <= highest:
                known = f"two frequencies in Hz, such as [0.5, 40], from {lowest} to {highest}"
                raise InputError(f"channel {name}: band must be {known}.")
            band = (float(band[0]), float(band[1]))
        channels.append(ChannelSpec(str(name), tuple(spellings), band))
    return tuple(channels)


def _subject(pattern: str) -> str:
    try:
        groups = regex.compile(pattern).groups
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(f"subject is not a valid regular expression ({error}): correct it.") from None
    if pattern and not groups:
        raise InputError(f"subject must have a group in round brackets: give {KEYS['subject']}.")
    return pattern
