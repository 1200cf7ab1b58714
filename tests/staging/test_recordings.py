"""Which recordings files, folders and patterns mean, and what their results are called."""

import numpy as np
import pytest

from data.nights.files import write_arrays
from data.store import location
from data.terms import InputError
from staging.recordings import find_recordings


@pytest.fixture
def folder(tmp_path):
    for name in ("a/night.edf", "b/night.edf", "b/other.BDF", "b/notes.txt", "a/night.hypnogram.edf", "c/x.vhdr"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    arrays = {"x": np.ones((1, 1, 3000)), "y": np.zeros(1), "ch_names": np.array(["C3"])}
    write_arrays(tmp_path / "c" / "parquet", arrays)
    return tmp_path


def test_a_folder(folder):
    found = find_recordings([str(folder)])
    assert [source.name for source in found] == ["a_night.edf", "b_night.edf", "other", "parquet", "x"]
    assert not any(source.named for source in found)


def test_what_lies_in_a_night_of_tables_is_no_recording(folder):
    (folder / "c/parquet/scoring.edf").touch()
    assert [source.name for source in find_recordings([str(folder / "c/parq*")])] == ["parquet"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a/night.edf"], ["night"]),
        (["b/*.edf", "c/x.vhdr"], ["night", "x"]),
        (["**/night.*"], ["a_night.edf", "b_night.edf"]),
        (["c/parquet"], ["parquet"]),
        (["a/night.edf", "a"], ["night"]),
        (["b/notes.txt"], ["notes"]),
    ],
)
def test_files_and_patterns(folder, monkeypatch, given, names):
    monkeypatch.chdir(folder)
    found = find_recordings(given)
    assert [source.name for source in found] == names
    assert found[0].named == ("*" not in given[0])


@pytest.mark.parametrize("given", ["absent.edf", "a/*.bdf", "empty"])
def test_nothing_found(folder, monkeypatch, given):
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=r"does not exist|no recording"):
        find_recordings([given])


def test_remote_ones(s3_server):  # noqa: ARG001
    for name in ("a.edf", "b.edf", "c.csv"):
        (location("s3://nights/found") / name).write_bytes(b"x")
    for given in ("s3://nights/found", "s3://nights/found/*.edf"):
        assert [str(source.path) for source in find_recordings([given])] == [
            "s3://nights/found/a.edf",
            "s3://nights/found/b.edf",
        ]
    assert find_recordings(["s3://nights/found/a.edf"])[0].named
