"""A lab's own recordings, described in a small TOML or YAML file instead of code."""

import fnmatch
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.databases import DATABASES, ChannelSpec, Database
from data.scorings.scoring import read_text
from data.terms import EVENTS, STAGES, UNSCORED, InputError

KEYS = {
    "recordings": "the recordings' file names, such as '*.edf'",
    "scoring": "the scoring's file name, {name} standing for the recording's name without suffix",
    "form": "how the scoring is written: annotations, csv, lines or nsrr",
    "channels": "a table of the channels: the name each will have, and its spellings in recordings",
    "labels": "a table of the scoring's labels and the stages they stand for",
    "columns": "of form csv, the columns of start (s), duration (s) and label",
    "events": "a table of the scoring's labels and the breathing events they stand for",
    "subject": "regular expression; its first group is the subject's number in the recording's path below --data",
    "as_stored": "true: voltages stay in the recording's own unit",
    "multimodal": "true: each channel is scaled by its median and interquartile range",
}
"""What a spec may hold; the first four must be there, and ``labels`` except for form nsrr."""

FORMS = ("annotations", "csv", "lines", "nsrr")
COLUMNS = {"start": "start", "duration": "duration", "label": "label"}


def load_spec(path: Path) -> Database:
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
    return replace(
        DATABASES["custom"],
        recording=fnmatch.translate(values["recordings"]),
        scoring={"stages": (values["scoring"],)},
        form="table",
        rules={
            "form": values["form"],
            "labels": {k: UNSCORED if stage == "unscored" else STAGES.index(stage) for k, stage in stages.items()},
            "events": _mapping(values, "events", EVENTS, wrong),
            "columns": columns,
        },
        channels=_channels(values["channels"], wrong),
        subject=_subject(values.get("subject", ""), wrong),
        as_stored=values.get("as_stored", False),
        scaled=values.get("multimodal", False),
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
