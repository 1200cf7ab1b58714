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
"""For which a regular expression of a user may be looked for in a name."""


@dataclass(frozen=True)
class Source:
    """One recording with the files of its scoring, by part; or the problem, in a sentence, that leaves it unusable."""

    night: str
    recording: Path
    scoring: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


TABLE = "nights.csv"
"""What preparation writes beside the nights; never a scoring."""


def find_sources(database: Database, folder: Path, wanted: Sequence[int] = ()) -> list[Source]:
    """The recordings below ``folder``, by path, each with its scoring or its problem.

    Raises:
        InputError: there is none, or none of one of the subjects that are ``wanted``, if it is not all of them.
    """
    if wanted and not database.subject and "(?P<subject>" not in database.recording:
        raise InputError("--subjects needs a spec whose subject finds the subjects' numbers in the recordings' names.")
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
        example = f"a name like {database.example}" if database.example else "what the spec calls recordings"
        raise InputError(f"{folder} holds no recording of {database.db}: {example} is looked for.")
    if absent := sorted(set(wanted) - seen):
        raise InputError(
            f"{folder} holds no recording of {len(absent)} of the {len(wanted)} subjects of the list, such as subject "
            f"{absent[0]}: add what is missing, or take it off the list."
        )
    if outside:
        whom = f"the {len(wanted)} of the list" if wanted else f"{database.db}'s {subjects[0]} to {subjects[-1]}"
        some = f"{len(outside)} recordings in {folder}, such as {outside[0]},"
        print(f"{some} are of subjects outside {whom}, and are left out.")
    return _each_scoring_once(list(sources.values()))


def _each_scoring_once(sources: list[Source]) -> list[Source]:
    """``sources``, of which those that share a scoring with another have that as their problem."""
    users: dict[Path, list[Source]] = {}
    for source in sources:
        for path in source.scoring.values():
            users.setdefault(path, []).append(source)
    shared: dict[Path, Source] = {}
    for path, sharing in users.items():
        if len(sharing) > 1:
            both = f"{sharing[0].recording} and of {sharing[1].recording}"
            problem = f"{path} would be the scoring of {both}: name each recording's scoring after it."
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
        """The files of a name like ``pattern``, less those that a longer recording's name claims."""
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
            f"{path}: the spec's subject, {database.subject!r}, takes more than {SEARCH_SECONDS} s to be looked for: "
            "write it without a repetition within a repetition."
        ) from None
    if not found or not found[1] or not found[1].isdecimal():
        raise InputError(f"{path}: the spec's subject, {database.subject!r}, finds no number in {below}.")
    return int(found[1])


def _with_scoring(
    database: Database, night: str, recording: Path, groups: dict[str, str | int], listing: _Listing
) -> Source:
    files: dict[str, Path] = {}
    escaped = {key: glob.escape(value) if isinstance(value, str) else value for key, value in groups.items()}
    for part, templates in database.scoring.items():
        for template in templates:
            found = [path for path in listing.matching(template.format(**escaped), recording.stem) if path != recording]
            # Names may repeat in other folders: the recording's own folder comes first, and alone where the name of
            # the scoring does not say whose it is.
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
                return Source(night, recording, problem=f"{recording} has no scoring: {names} is not there.")
    return Source(night, recording, files)
