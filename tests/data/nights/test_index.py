"""What was checked is remembered: unchanged nights are not read again, and no index file is trusted too far."""

import json
import os
import time

import numpy as np
import pytest

from data.nights import index
from data.nights.files import write_arrays
from data.nights.index import INDEX, NightIndex, channels_of, check_nights
from data.store import location
from data.terms import InputError


@pytest.fixture
def read(monkeypatch):
    """The names of the nights that were read."""
    names, read_night = [], index.read_night

    def counted(path, channels):
        names.append(path.name)
        return read_night(path, channels)

    monkeypatch.setattr(index, "read_night", counted)
    return names


@pytest.fixture
def nights(tmp_path, make_night):
    return {n: [make_night(tmp_path / f"subject{n}.npz", 6 + n, seed=n)] for n in range(3)}


def parquet(folder, make_night):
    with np.load(make_night(folder.with_suffix(".npz"), 4)) as file:
        write_arrays(folder, {"x": file["x"][:, None], "y": file["y"], "ch_names": np.array(["EEG"])})
    return folder


def test_an_unchanged_night_is_read_once(nights, read):
    first = check_nights(nights, ("EEG",))
    assert len(read) == 3
    assert check_nights(nights, ("EEG",)) == first
    assert len(read) == 3
    check_nights(nights, ("EMG",))
    assert len(read) == 6


def test_a_changed_night_is_read_again(nights, read, make_night):
    first = check_nights(nights, ("EEG",))
    path = nights[1][0]
    make_night(path, 7, seed=9)
    second = check_nights(nights, ("EEG",))
    assert read[3:] == ["subject1.npz"] and second[1] != first[1]
    os.utime(path, ns=(0, 1_000_000_000))
    check_nights(nights, ("EEG",))
    assert read[4:] == ["subject1.npz"]
    make_night(path, 7, y=np.full(7, 9))
    with pytest.raises(InputError, match=r"subject1\.npz"):
        check_nights(nights, ("EEG",))
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        check_nights(nights, ("EEG",))


@pytest.mark.parametrize("part", ["x.parquet", "y.parquet"])
def test_either_table_of_a_parquet_night_shows_a_change(tmp_path, make_night, read, part):
    nights = {1: [parquet(tmp_path / "subject1", make_night)]}
    check_nights(nights, ("EEG",))
    check_nights(nights, ("EEG",))
    assert len(read) == 1
    os.utime(nights[1][0] / part, ns=(0, 1_000_000_000))
    check_nights(nights, ("EEG",))
    assert len(read) == 2


def test_the_channels_of_each_night_are_remembered(nights, tmp_path, make_night, monkeypatch):
    """Of unnamed ones there is none; what an index holds is not trusted."""
    nights = nights | {3: [parquet(tmp_path / "subject3", make_night)]}
    expected = {path: ["EEG"] if path.name == "subject3" else [] for (path,) in nights.values()}
    opened, read_arrays = [], index.read_arrays
    monkeypatch.setattr(index, "read_arrays", lambda path, keys: opened.append(path) or read_arrays(path, keys))
    for _ in range(2):
        assert channels_of(nights) == expected
    assert len(opened) == 4
    check_nights(nights, ("EEG",))
    for spoilt in ("EEG", [1], None):
        held = json.loads((tmp_path / INDEX).read_text())
        held["nights"]["subject3"]["channels"] = spoilt
        (tmp_path / INDEX).write_text(json.dumps(held))
        assert channels_of(nights) == expected
    assert len(opened) == 7
    with pytest.raises(InputError, match="no channel 'EMG': choose among EEG"):
        check_nights(nights, ("EMG",))


def test_a_stopped_check_goes_on(nights, read, make_night):
    """The bad night stops the check; those before it are not read again."""
    make_night(nights[2][0], 8, y=np.full(8, 9))
    for _ in range(2):
        with pytest.raises(InputError):
            check_nights(nights, ("EEG",))
    assert read[3:] == ["subject2.npz"]


def test_the_index_is_saved_on_the_way(nights, monkeypatch):
    """A kill of the process leaves what was saved before it."""
    path, read_night, saved = nights[0][0].parent / INDEX, index.read_night, []

    def observed(*arguments):
        saved.append(len(json.loads(path.read_text())["nights"]) if path.exists() else 0)
        return read_night(*arguments)

    monkeypatch.setattr(index, "read_night", observed)
    monkeypatch.setattr(index, "SAVE_EVERY", 1)
    check_nights(nights, ("EEG",))
    assert saved == [0, 1, 2]


def spoilt(value) -> str:
    """An index in which ``value`` stands in place of every number."""
    return json.dumps({"format": 1, "nights": {"subject0.npz": value, "subject1.npz": value}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 2, "nights": {}}',
        spoilt(None),
        spoilt([]),
        spoilt({"files": [], "checked": []}),
    ],
)
def test_a_damaged_index_does_no_harm(nights, read, content):
    first = check_nights(nights, ("EEG",))
    (nights[0][0].parent / INDEX).write_text(content)
    assert check_nights(nights, ("EEG",)) == first
    assert len(read) == 6


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [None, "5", True, -1, [], {}, float("nan"), float("inf"), 1e400, 1.5])
def test_numbers_of_the_wrong_type_are_not_trusted(nights, read, place, value):
    first = check_nights(nights, ("EEG",))
    path = nights[0][0].parent / INDEX
    held = json.loads(path.read_text())
    numbers = held["nights"]["subject1.npz"]["checked"]['["EEG"]']
    # Where the value is of the right type, it is a night like any other.
    if not (type(value) is type(numbers[place]) and np.isfinite(value) and (place or value > 0)):
        numbers[place] = value
        path.write_text(json.dumps(held))
        assert check_nights(nights, ("EEG",)) == first
        assert read[3:] == ["subject1.npz"]


def test_what_else_stands_in_an_entry_stays_while_the_night_does(nights, make_night):
    check_nights(nights, ("EEG",))
    folder, path = nights[0][0].parent, nights[0][0]
    held = NightIndex(folder)
    held.entry(path)["about"] = {"EEG": 1}
    held.added()
    held.save()
    check_nights(nights, ("EMG",))
    assert NightIndex(folder).entry(path)["about"] == {"EEG": 1}
    make_night(path, 30)
    assert "about" not in NightIndex(folder).entry(path)


def test_where_nothing_can_be_written_nights_are_checked_all_the_same(nights, read):
    """A folder in the index's place refuses it to every user, as a read-only folder does to all but root."""
    (nights[0][0].parent / INDEX).mkdir()
    assert check_nights(nights, ("EEG",)) == check_nights(nights, ("EEG",))
    assert len(read) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(nights, read):
    folder = nights[0][0].parent
    folder.chmod(0o500)
    try:
        assert check_nights(nights, ("EEG",)) == check_nights(nights, ("EEG",))
    finally:
        folder.chmod(0o700)
    assert len(read) == 6


@pytest.mark.usefixtures("s3_server")
def test_in_a_bucket(nights, read):
    folder = location("s3://nights/index")
    remote = {}
    for subject, (path,) in nights.items():
        there = folder / path.name
        there.fs.put_file(str(path), there.path)
        remote[subject] = [there]
    first = check_nights(remote, ("EEG",))
    assert check_nights(remote, ("EEG",)) == first
    assert len(read) == 3
    # Of the same size, and later: a bucket tells times in seconds.
    time.sleep(1.1)
    remote[1][0].fs.pipe_file(remote[1][0].path, nights[1][0].read_bytes())
    check_nights(remote, ("EEG",))
    assert read[3:] == ["subject1.npz"]
