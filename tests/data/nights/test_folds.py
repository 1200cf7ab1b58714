"""The folds against the published protocol, spelled out again with the generator that the reference uses."""

from dataclasses import replace

import numpy as np
import pytest

from data.databases import DATABASES
from data.nights.folds import find_nights, split, subjects_tested
from data.terms import InputError

PUBLISHED = ("sleepedf", "sleepedfx", "isruc", "ucddb")


@pytest.mark.parametrize("db", PUBLISHED)
def test_same_seed_gives_the_reference_subjects(db):
    spec = DATABASES[db]
    for fold in range(spec.folds):
        test = np.array_split(spec.subjects, spec.folds)[fold]
        rest = np.setdiff1d(spec.subjects, test)
        np.random.seed(42 + fold)  # noqa: NPY002
        validation = np.random.choice(rest, size=round(len(rest) * 0.10), replace=False)  # noqa: NPY002
        ours = split(spec, fold, spec.subjects, 42, 0.10)
        assert ours.test == tuple(test)
        assert set(ours.validation) == set(validation)
        assert set(ours.train) == set(np.setdiff1d(rest, validation))


@pytest.mark.parametrize("db", PUBLISHED)
def test_each_subject_is_tested_once_and_never_in_two_parts(db):
    spec = DATABASES[db]
    tested = [subject for fold in range(spec.folds) for subject in subjects_tested(spec, fold)]
    assert sorted(tested) == sorted(spec.subjects)
    for fold in range(spec.folds):
        parts = split(spec, fold, spec.subjects, 42, 0.10)
        assert sorted(parts.train + parts.validation + parts.test) == sorted(spec.subjects)


def test_known_subjects():
    """Fold 14 of UCDDB tests subject 18, as its published checkpoint does."""
    assert subjects_tested(DATABASES["ucddb"], 14) == (18,)


def test_missing_subjects_leave_the_test_subjects_alone():
    spec = DATABASES["ucddb"]
    available = (2, 3, 5, 6, 8, 11, 13, 18, 20)
    ours = split(spec, 14, available, 42, 0.10)
    assert ours.test == (18,)
    assert len(ours.validation) == 1
    assert sorted(ours.train + ours.validation) == [s for s in available if s != 18]
    with pytest.raises(InputError, match="tests subject 7, who has no night file"):
        split(spec, 4, available, 42, 0.10)
    with pytest.raises(InputError, match="at least 2 subjects"):
        split(spec, 14, (18, 2), 42, 0.10)


def test_validation_leaves_someone_to_train():
    assert len(split(DATABASES["ucddb"], 14, (2, 3, 18), 42, 0.9).train) == 1


def test_fold_outside_the_range():
    with pytest.raises(InputError, match="folds 0 to 9; fold 10"):
        subjects_tested(DATABASES["isruc"], 10)


def test_a_file_of_two_subjects_is_refused(tmp_path):
    (tmp_path / "night10.npz").touch()
    spec = replace(DATABASES["isruc"], subjects=(1, 10), night_patterns=("night{subject}*.npz",))
    with pytest.raises(InputError, match="subjects 1 and 10"):
        find_nights(spec, tmp_path)


def test_nights_are_found_by_subject(tmp_path):
    for name in ("SC4001E0.npz", "SC4002E0.npz", "SC4011E0.npz", "ST7011J0.npz", "SC4201E0.npz", "notes.txt"):
        (tmp_path / name).touch()
    nights = find_nights(DATABASES["sleepedf"], tmp_path)
    assert {subject: [path.name for path in paths] for subject, paths in nights.items()} == {
        0: ["SC4001E0.npz", "SC4002E0.npz"],
        1: ["SC4011E0.npz", "ST7011J0.npz"],
    }
    for name in ("subject1.npz", "subject11.npz"):
        (tmp_path / name).touch()
    isruc = replace(DATABASES["isruc"], subjects=(1, 11, 12))
    assert {s: [p.name for p in paths] for s, paths in find_nights(isruc, tmp_path).items()} == {
        1: ["subject1.npz"],
        11: ["subject11.npz"],
    }
    with pytest.raises(InputError, match="does not exist"):
        find_nights(isruc, tmp_path / "absent")
