"""The folds against the published protocol, spelled out again with the generator that the reference uses."""

import fnmatch
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.databases import DATABASES
from data.nights.folds import find_nights, listed_subjects, split, subjects_tested, with_channels_found
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
    with pytest.raises(InputError, match="is tested on subject 7, who has no night file"):
        split(spec, 4, available, 42, 0.10)
    with pytest.raises(InputError, match="at least 2 subjects"):
        split(spec, 14, (18, 2), 42, 0.10)


def test_validation_leaves_someone_to_train():
    assert len(split(DATABASES["ucddb"], 14, (2, 3, 18), 42, 0.9).train) == 1


def test_fold_outside_the_range():
    with pytest.raises(InputError, match="no fold 10: isruc has the folds 0 to 9"):
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


def by_definition(spec, folder) -> dict[int, set[str]]:
    """What each subject's names are, subject by subject: slow, but plain."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    found = {}
    for subject in spec.subjects:
        for pattern in (pattern.format(subject=subject) for pattern in spec.night_patterns):
            files = {name for name in fnmatch.filter(names, pattern) if name.endswith(".npz")}
            tables = set(fnmatch.filter(names, pattern.removesuffix(".npz"))) - set(fnmatch.filter(names, "*.npz"))
            found.setdefault(subject, set()).update(files | {n for n in tables if (folder / n / "y.parquet").exists()})
    return {subject: mine for subject, mine in found.items() if mine}


PATTERNS = st.lists(
    st.builds(
        "{}{}{}{}".format,
        st.text("n01*?", max_size=3),
        st.sampled_from(["{subject}", "{subject:02d}", "{subject:03d}"]),
        st.text("n01_*?", max_size=3),
        st.sampled_from(["", ".npz"]),
    ),
    min_size=1,
    max_size=2,
)
NAMES = st.lists(
    st.tuples(st.text("n0123_", min_size=1, max_size=6), st.sampled_from(["file", "folder", "night"])),
    max_size=12,
    unique_by=lambda named: named[0],
)


@settings(max_examples=200, deadline=None)
@given(PATTERNS, NAMES, st.sets(st.integers(0, 130), min_size=1))
def test_each_name_belongs_to_the_subjects_whose_patterns_it_fits(patterns, names, subjects):
    spec = replace(DATABASES["isruc"], subjects=tuple(subjects), night_patterns=tuple(patterns))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for name, form in names:
            if form == "file":
                (folder / f"{name}.npz").touch()
            else:
                (folder / name).mkdir()
                if form == "night":
                    (folder / name / "y.parquet").touch()
        expected = by_definition(spec, folder)
        owned = [name for mine in expected.values() for name in mine]
        if len(owned) > len(set(owned)):
            with pytest.raises(InputError, match=r"fits the names of subjects|holds the same night as"):
                find_nights(spec, folder)
            return
        # One night would be there under its subject's number and under another name that ends with it.
        stems = [[name.removesuffix(".npz") for name in mine] for mine in expected.values()]
        if any(n.isdecimal() and re.search(f"[^0-9]{n}$", other) for mine in stems for n in mine for other in mine):
            with pytest.raises(InputError, match="holds the same night as"):
                find_nights(spec, folder)
            return
        found = find_nights(spec, folder)
    assert {subject: [path.name for path in paths] for subject, paths in found.items()} == {
        subject: sorted(mine) for subject, mine in expected.items()
    }
    assert list(found) == [subject for subject in spec.subjects if subject in found]


def test_a_night_in_two_forms_is_refused(tmp_path):
    (tmp_path / "subject1.npz").touch()
    (tmp_path / "subject1").mkdir()
    assert len(find_nights(DATABASES["isruc"], tmp_path)[1]) == 1
    (tmp_path / "subject1" / "y.parquet").touch()
    with pytest.raises(InputError, match=r"subject1 as \.npz and as Parquet"):
        find_nights(DATABASES["isruc"], tmp_path)


def test_subjects_are_found_from_names(tmp_path):
    for number in (1, 20, 300):
        (tmp_path / f"subject{number}_a.npz").touch()
    (tmp_path / "subject7.npz").touch()
    assert list(find_nights(DATABASES["custom"], tmp_path)) == [1, 20, 300]


@pytest.mark.parametrize(("having", "used"), [(0, False), (8, False), (9, True), (10, True)])
def test_further_channels_that_too_few_nights_hold_are_left_out(having, used):
    """Whichever night comes first."""
    nights = [
        ["EOG_Right", "EEG_C4"][::order] if number < having else ["EEG_C4"] for order in (1, -1) for number in range(10)
    ]
    for each in (nights, nights[::-1]):
        spec = with_channels_found(DATABASES["shhs"], each)
        assert spec.streams("eeg") == {"eeg": "EEG_C4"}
        # The first of a modality stays: whether it is needed is not known here.
        assert spec.streams("eog") == {"eog": "EOG_Left"} | ({"eog2": "EOG_Right"} if used else {})


def test_a_test_subject_without_a_usable_night_is_left_out():
    spec = DATABASES["ucddb"]
    spec = replace(spec, folds=5)
    tested, others = subjects_tested(spec, 0), [s for s in spec.subjects if s not in subjects_tested(spec, 0)]
    ours = split(spec, 0, [*tested[1:], *others], 42, 0.10, unusable=tested[:1])
    assert ours.test == tested[1:] and not set(tested) & {*ours.train, *ours.validation}
    with pytest.raises(InputError, match="no night of the test subjects of fold 0 of ucddb can be used"):
        split(spec, 0, others, 42, 0.10, unusable=tested)


def test_one_shhs_night_under_two_names_is_refused(tmp_path):
    (tmp_path / "200001").mkdir()
    (tmp_path / "200001" / "y.parquet").touch()
    (tmp_path / "shhs1-200002.npz").touch()
    found = find_nights(DATABASES["shhs"], tmp_path)
    assert {subject: [path.name for path in paths] for subject, paths in found.items()} == {
        200001: ["200001"],
        200002: ["shhs1-200002.npz"],
    }
    (tmp_path / "shhs1-200001.npz").touch()
    with pytest.raises(InputError, match=r"holds the same night as shhs1-200001\.npz and as 200001: remove one"):
        find_nights(DATABASES["shhs"], tmp_path)


@pytest.mark.parametrize(
    ("db", "lines", "subjects"),
    [
        ("shhs", "shhs1-200010\n200001\n\n  shhs1-200003.edf \nshhs1-200001.npz\n", (200001, 200003, 200010)),
        ("sleepedf", "SC4001E0-PSG.edf\nSC4012E0\n19\n", (0, 1, 19)),
        # Recording 1 is subject 0; a number alone is a subject's.
        ("isruc", "1.rec\r\nsubject7\r\n1\r\n", (0, 1, 7)),
        ("ucddb", "ucddb002\n28", (2, 28)),
        ("custom", "subject12_night", (12,)),
    ],
)
def test_lists_of_subjects(tmp_path, db, lines, subjects):
    path = tmp_path / "list.txt"
    path.write_text(lines)
    assert listed_subjects(DATABASES[db], path) == subjects


def test_the_list_of_the_published_recordings(reference):
    found = listed_subjects(DATABASES["shhs"], reference / "selected_shhs1_files.txt")
    # The last of its lines has no end.
    assert len(found) == 329 and found[0] == 200010


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"2\n4\n", "line 2 of .*, '4', names no subject of ucddb"),
        (b"2\nshhs1-200001\n", "'shhs1-200001', names no subject of ucddb"),
        (b"2\n-3\n", "'-3', names no subject"),
        (b" \n", "is empty"),
        (b"\xff\xfe2", "is not a text file"),
        (None, "does not exist"),
    ],
)
def test_bad_lists_of_subjects_are_told(tmp_path, content, told):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        listed_subjects(DATABASES["ucddb"], path)
