"""Which subjects train, validate and test in each fold, and which night files they have."""

import fnmatch
import itertools
import re
from collections import Counter
from collections.abc import Collection, Container
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data.databases import Database
from data.store import content, reaching
from data.terms import InputError

ENOUGH = 0.9
"""A second channel of a modality is used only if this share of the nights has it: nights without it cannot be used."""


@dataclass(frozen=True)
class Split:
    """One fold's subjects. No subject is in two of the three."""

    fold: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def subjects_tested(spec: Database, fold: int) -> tuple[int, ...]:
    """The subjects that fold ``fold`` tests, the same in every run; InputError if there is no such fold."""
    if not 0 <= fold < spec.folds:
        raise InputError(f"there is no fold {fold}: {spec.db} has the folds 0 to {spec.folds - 1}; choose among these.")
    return tuple(int(s) for s in np.array_split(spec.subjects, spec.folds)[fold])


def split(
    spec: Database,
    fold: int,
    available: Collection[int],
    seed: int,
    validation_fraction: float,
    unusable: Collection[int] = (),
) -> Split:
    """The fold's subjects, drawn as the reference code draws them from those ``available``, who have night files.

    Subjects all of whose night files are ``unusable`` are not tested.

    Raises:
        InputError: a test subject has no file, all are unusable, or too few other subjects have files.
    """
    test = tuple(subject for subject in subjects_tested(spec, fold) if subject not in unusable)
    if not test:
        raise InputError(f"no night of the test subjects of fold {fold} of {spec.db} can be used: choose other folds.")
    absent = sorted(set(test) - set(available))
    if absent:
        tested = f"fold {fold} of {spec.db} is tested on subject {absent[0]}, who has no night file"
        raise InputError(f"{tested}: add that file, or choose other folds with --from_fold and --to_fold.")
    others = [subject for subject in spec.subjects if subject in available and subject not in test]
    if len(others) < 2:
        needed = (
            f"fold {fold} of {spec.db} needs at least 2 subjects besides its test subjects, for training and validation"
        )
        raise InputError(f"{needed}, but only {len(others)} have night files: add night files.")
    size = min(max(1, round(len(others) * validation_fraction)), len(others) - 1)
    # NumPy's legacy generator: only this one draws the same subjects as the reference code.
    drawn = np.random.RandomState(seed + fold).choice(others, size=size, replace=False)
    validation = tuple(sorted(int(subject) for subject in drawn))
    return Split(fold, tuple(s for s in others if s not in validation), validation, test)


def labelled_subjects(split: Split, count: int, seed: int, last: float = 0.0) -> tuple[int, ...]:
    """The training subjects whose scoring may be used: at most ``count``, drawn by the ``seed``.

    If ``last`` is above 0, they are that share of the training subjects, the last ones, and at least one.
    """
    if last:
        return split.train[-max(1, round(last * len(split.train))) :]
    drawn = np.random.default_rng((seed, split.fold)).permutation(split.train)[:count]
    return tuple(sorted(int(subject) for subject in drawn))


def find_nights(spec: Database, folder: Path) -> dict[int, list[Path]]:
    """The night files in ``folder``, local or remote, by subject; subjects without any are left out.

    Raises:
        InputError: there is no such folder, a file's name fits two subjects, or a night is there in two forms or under
            two names.
    """
    try:
        with reaching(folder):
            there = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"the folder of night files {folder} does not exist: name it with --data.") from None
    subjects = spec.subjects or _subjects_named(spec, there)
    by_subject = _names_by_subject(spec.night_patterns, there, frozenset(subjects))
    owners: dict[str, int] = {}
    nights: dict[int, list[Path]] = {}
    for subject in subjects:
        names = by_subject.get(subject, ())
        names = {name for name in names if name.endswith(".npz") or (there[name] / "y.parquet").exists()}
        _require_each_night_once(folder, sorted(names))
        for name in sorted(names):
            if owners.setdefault(name, subject) != subject:
                both = f"{there[name]} fits the names of subjects {owners[name]} and {subject}"
                raise InputError(f"{both}: change night_patterns so that each name fits one subject.")
            nights.setdefault(subject, []).append(there[name])
    return nights


def _require_each_night_once(folder: Path, names: list[str]) -> None:
    """Refuse ``names`` of one subject's nights if two name the same night, such as shhs1-200001 and 200001."""
    for one, other in itertools.permutations(names, 2):
        night, number = one.removesuffix(".npz"), other.removesuffix(".npz")
        if night == number:
            raise InputError(f"{folder} holds night {night} as .npz and as Parquet: remove one of them.")
        if number.isdecimal() and re.search(f"[^0-9]{number}$", night):
            raise InputError(f"{folder} holds the same night as {one} and as {other}: remove one of them.")


def listed_subjects(spec: Database, path: Path) -> tuple[int, ...]:
    """The subjects whom the lines of a text file name, in the order of their numbers; empty lines do not count.

    A line holds a subject's number, as in the names of night files, or the name of a night or of a recording, such as
    shhs1-200001, with or without its suffix.

    Raises:
        InputError: there is no such file, a line names no subject of the database, or no line names any.
    """
    try:
        lines = content(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"the list of subjects {path} is not a text file: save it as UTF-8 text.") from None
    found = set()
    for number, line in enumerate(lines, 1):
        if name := line.strip():
            subject = _subject_of(spec, name)
            if subject is None or (spec.subjects and subject not in spec.subjects):
                what = "write a subject's number, or the name of a night or a recording"
                raise InputError(f"line {number} of {path}, {name!r}, names no subject of {spec.db}: {what}.")
            found.add(subject)
    if not found:
        raise InputError(f"the list of subjects {path} is empty: write a subject on each line.")
    return tuple(sorted(found))


def _subject_of(spec: Database, name: str) -> int | None:
    """The number of the subject whom ``name``, a number or the name of a night or recording, means; None if nobody."""
    if re.fullmatch("[0-9]{1,9}", name):
        return int(name)
    for recording in (name, f"{name}.edf"):
        match = re.fullmatch(spec.recording, recording, re.IGNORECASE)
        if match and "subject" in match.groupdict():
            return int(match["subject"]) - spec.first_subject
        if match and spec.subject and (found := re.search(spec.subject, recording)) and (found[1] or "").isdecimal():
            return int(found[1])
    owners = _names_by_subject(spec.night_patterns, [name], range(10**9))
    return next(iter(owners)) if len(owners) == 1 else None


def _names_by_subject(
    patterns: Collection[str], names: Collection[str], subjects: Container[int]
) -> dict[int, set[str]]:
    """The ``names`` that fit a pattern with the number of one of ``subjects``, by subject.

    A pattern without its ``.npz`` fits the names of Parquet nights. Each name is compared once, not once for each
    subject, because there may be thousands of both.
    """
    parts = []
    for pattern in patterns:
        start, form, end = re.split(r"(\{subject[^}]*\})", pattern)
        around = (start, end, end.removesuffix(".npz"))
        before, after_npz, after_tables = (re.compile(_as_regex(text), re.DOTALL) for text in around)
        parts.append((form, before, after_npz, after_tables))
    by_subject: dict[int, set[str]] = {}
    for name in names:
        # There may be other digits next to the number, so every part of a run of digits may be the number.
        runs = [run.span() for run in re.finditer("[0-9]+", name)]
        spans = [span for first, end in runs for span in itertools.combinations(range(first, end + 1), 2)]
        for form, before, after_npz, after_tables in parts:
            after = after_npz if name.endswith(".npz") else after_tables
            for begin, end in spans:
                subject = int(name[begin:end])
                fits = before.fullmatch(name, 0, begin) and after.fullmatch(name, end)
                if fits and subject in subjects and form.format(subject=subject) == name[begin:end]:
                    by_subject.setdefault(subject, set()).add(name)
    return by_subject


def _subjects_named(spec: Database, names: Collection[str]) -> list[int]:
    """The subjects whose nights are among ``names``, for a database that does not list its subjects."""
    found = set()
    for pattern in spec.night_patterns:
        before, after = map(_as_regex, re.split(r"\{subject[^}]*\}", pattern.removesuffix(".npz")))
        subject = re.compile(rf"{before}(\d{{1,9}}){after}(\.npz)?")
        found |= {int(match[1]) for name in names if (match := subject.fullmatch(name))}
    return sorted(found)


def _as_regex(glob: str) -> str:
    """A part of a file name with the wildcards ``*``, ``?`` and ``[...]`` as a regular expression."""
    # Remove the parts that make it match a whole name.
    return fnmatch.translate(glob).removeprefix("(?s:").removesuffix(")\\Z")


def with_subjects_found(spec: Database, nights: Collection[int]) -> Database:
    """``spec`` with its own subjects, or else those who have ``nights``, and at most as many folds as subjects."""
    if spec.subjects:
        return spec
    return replace(spec, subjects=tuple(sorted(nights)), folds=min(spec.folds, len(nights)))


def with_channels_found(spec: Database, nights: Collection[Collection[str]]) -> Database:
    """``spec`` without the second and later channels of its modalities that too few nights hold, see :data:`ENOUGH`.

    ``nights`` gives the names of each night's channels.
    """
    held = Counter(channel for names in nights for channel in set(names))
    found = [
        (name, first, *(other for other in others if held[other] >= ENOUGH * len(nights)))
        for name, first, *others in spec.modalities
    ]
    return replace(spec, modalities=tuple(found))


def missing_subjects(spec: Database, nights: Collection[int]) -> list[int]:
    """The database's subjects that have no night file."""
    return [subject for subject in spec.subjects if subject not in nights]
