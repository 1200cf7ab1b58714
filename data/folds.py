"""Which subjects train, validate and test in each fold, and which night files they have."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config import DatasetSpec, InputError


@dataclass(frozen=True)
class Split:
    """One fold's subjects. No subject is in two of the three."""

    fold: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def subjects_tested(spec: DatasetSpec, fold: int) -> tuple[int, ...]:
    """The subjects that fold ``fold`` tests, the same in every run.

    Raises:
        InputError: the database has no such fold.
    """
    if not 0 <= fold < spec.folds:
        raise InputError(f"{spec.db} has folds 0 to {spec.folds - 1}; fold {fold} is outside.")
    return tuple(int(s) for s in np.array_split(spec.subjects, spec.folds)[fold])


def split(spec: DatasetSpec, fold: int, available: Collection[int], seed: int, validation_fraction: float) -> Split:
    """The fold's subjects, drawn as the reference code draws them.

    ``available`` are the subjects that have night files. Test subjects are the published ones; validation subjects are
    drawn from the others available, so with every file at hand the split is the reference's.

    Raises:
        InputError: a test subject has no file, or too few other subjects have.
    """
    test = subjects_tested(spec, fold)
    absent = sorted(set(test) - set(available))
    if absent:
        raise InputError(
            f"fold {fold} of {spec.db} tests subject {absent[0]}, who has no night file: "
            "add it, or choose other folds with --from_fold and --to_fold."
        )
    others = [subject for subject in spec.subjects if subject in available and subject not in test]
    if len(others) < 2:
        raise InputError(
            f"fold {fold} of {spec.db} needs at least 2 subjects beside its test subjects, to train and to validate; "
            f"{len(others)} have night files."
        )
    size = min(max(1, round(len(others) * validation_fraction)), len(others) - 1)
    # The legacy generator: it is what gives the reference's subjects.
    drawn = np.random.RandomState(seed + fold).choice(others, size=size, replace=False)
    validation = tuple(sorted(int(subject) for subject in drawn))
    return Split(fold, tuple(s for s in others if s not in validation), validation, test)


def find_nights(spec: DatasetSpec, folder: Path) -> dict[int, list[Path]]:
    """The night files in ``folder`` by subject; subjects without any are left out.

    Raises:
        InputError: there is no such folder, or a file could be two subjects'.
    """
    if not folder.is_dir():
        raise InputError(f"the folder of night files {folder} does not exist: name it with --data.")
    nights = {
        subject: sorted(
            {path for pattern in spec.night_patterns for path in folder.glob(pattern.format(subject=subject))}
        )
        for subject in spec.subjects
    }
    owners: dict[Path, int] = {}
    for subject, paths in nights.items():
        for path in paths:
            if owners.setdefault(path, subject) != subject:
                raise InputError(
                    f"{path} fits the names of subjects {owners[path]} and {subject}: "
                    "make night_patterns tell them apart."
                )
    return {subject: paths for subject, paths in nights.items() if paths}


def missing_subjects(spec: DatasetSpec, nights: Collection[int]) -> list[int]:
    """The database's subjects that have no night file."""
    return [subject for subject in spec.subjects if subject not in nights]
