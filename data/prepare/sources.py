"""Which recordings of a database lie below a folder, and which scoring belongs to each."""

import fnmatch
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import regex

from data.databases import Database
from data.store import files_below
from data.terms import InputError

SEARCH_SECONDS = 2
"""How long the search for a user's regular expression in a name may take."""


@dataclass(frozen=True)
class Source:
    """One recording with the files of its scoring, by part; or a sentence with the problem that makes it unusable."""

    night: str
    recording: Path
    scoring: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


TABLE = "nights.csv"
"""The table that preparation writes beside the nights; it is never taken for a scoring."""


def find_sources(database: Database, folder: Path, wanted: Sequence[int] = ()) -> list[Source]:
    """The recordings below ``folder``, by path, each with its scoring or its problem.

    Raises:
        InputError: there is no recording, or none of one of the ``wanted`` subjects (all are wanted if it is empty).
    """
    if wanted and not database.subject and "(?P<subject>" not in database.recording:
        raise InputError(
            "--subjects cannot be used without a subject in the spec, which finds the subjects' numbers: add it."
        )
    subjects = wanted or database.subjects
    files = [path for path in files_below(folder) if path.name != TABLE]
    found = [(path, match) for path in files if (match := re.fullmatch(database.recording, path.name, re.IGNORECASE))]
    listing = _Listing(files, {path.stem for path, _ in found})
    sources: dict[str, Source] = {}
    outside, seen = [], set()
    for path, match in found:
        groups: dict[str, str | int] = {**match.groupdict(), "name": path.stem}
        number = _subject(database, path, folder, groups, len(sources))
        if subjects and number not in subjects:
            outside.append(path.name)
            continue
        seen.add(number)
        night = database.night.format(**{**groups, "subject": number})
        groups["subject"] = number + database.first_subject
        if night in sources:
            problem = f"{path} and {sources[night].recording} are both night {night}: keep one of them."
            sources[f"{night} ({path})"] = Source(night, path, problem=problem)
        else:
            sources[night] = _with_scoring(database, night, path, groups, listing)
    if not found:
        example = f"like {database.example}" if database.example else "that fits recordings in the spec"
        raise InputError(f"{folder} holds no recording of {database.db}, with a name {example}: check --data.")
    if absent := sorted(set(wanted) - seen):
        raise InputError(
            f"{folder} holds no recording of {len(absent)} of the {len(wanted)} subjects in --subjects, such as "
            f"subject {absent[0]}: add the recordings, or remove these subjects from the list."
        )
    if outside:
        whom = f"the {len(wanted)} in --subjects" if wanted else f"{database.db}'s {subjects[0]} to {subjects[-1]}"
        some = f"{len(outside)} recordings in {folder}, such as {outside[0]},"
        print(f"{some} are left out: their subjects are not among {whom}.")
    return _each_scoring_once(list(sources.values()))


def _each_scoring_once(sources: list[Source]) -> list[Source]:
    """``sources``, where each that shares a scoring with another one has this as its problem."""
    users: dict[Path, list[Source]] = {}
    for source in sources:
        for path in source.scoring.values():
            users.setdefault(path, []).append(source)
    shared: dict[Path, Source] = {}
    for path, sharing in users.items():
        if len(sharing) > 1:
            both = f"{sharing[0].recording} and of {sharing[1].recording}"
            problem = f"{path} would be the scoring of {both}: give each recording a scoring named after it."
            shared |= {source.recording: replace(source, scoring={}, problem=problem) for source in sharing}
    return [shared.get(source.recording, source) for source in sources]


class _Listing:
    """The files below a folder, by name, and the stems of the recordings among them."""

    def __init__(self, files: Sequence[Path], stems: set[str]) -> None:
        self.by_name: dict[str, list[Path]] = {}
        for path in files:
            self.by_name.setdefault(path.name, []).append(path)
        self.stems = stems

    def matching(self, pattern: str, stem: str) -> list[Path]:
        """The files whose names fit ``pattern``, without those that begin with another recording's longer name."""
        if not glob.has_magic(pattern):
            return self.by_name.get(pattern, [])
        longer = [other for other in self.stems if other != stem and other.startswith(stem)]
        names = [name for name in fnmatch.filter(self.by_name, pattern) if not name.startswith(tuple(longer))]
        return [path for name in names for path in self.by_name[name]]


def _subject(database: Database, path: Path, folder: Path, groups: dict[str, str | int], position: int) -> int:
    """The number of the recording's subject."""
    if "subject" in groups:
        return int(groups["subject"]) - database.first_subject
    if not database.subject:
        return position
    below = str(path).removeprefix(str(folder)).lstrip("/")
    try:
        found = regex.search(database.subject, below, timeout=SEARCH_SECONDS)
    except TimeoutError:
        raise InputError(
            f"{path}: searching for the spec's subject, '{database.subject}', takes more than {SEARCH_SECONDS} s: "
            "write it without a repetition inside another."
        ) from None
    if not found or not found[1] or not found[1].isdecimal():
        raise InputError(
            f"{path}: the spec's subject, '{database.subject}', finds no number in {below}: correct the spec."
        )
    return int(found[1])


def _with_scoring(
    database: Database, night: str, recording: Path, groups: dict[str, str | int], listing: _Listing
) -> Source:
    files: dict[str, Path] = {}
    escaped = {key: glob.escape(value) if isinstance(value, str) else value for key, value in groups.items()}
    for part, templates in database.scoring.items():
        for template in templates:
            found = [path for path in listing.matching(template.format(**escaped), recording.stem) if path != recording]
            # Other folders may hold the same names: the recording's own folder comes first, and only this one counts
            # if the scoring's name does not contain the recording's.
            beside = [path for path in found if path.parent == recording.parent]
            found = beside if beside or "{" not in template else found
            if len(found) > 1:
                problem = f"{recording} has two scorings, {found[0]} and {found[1]}: keep one of them."
                return Source(night, recording, problem=problem)
            if found:
                files[part] = found[0]
                break
        else:
            if part not in database.optional:
                names = " or ".join(template.format(**groups) for template in templates)
                return Source(night, recording, problem=f"{recording} has no scoring: add {names}.")
    return Source(night, recording, files)
