import os
from pathlib import Path

import pytest

from data.store import files_below, read_json
from data.terms import InputError
from data.writing import new_folder, remove_unfinished, require_writable, working_in, write_json, written_aside


def test_nothing_appears_when_writing_fails(tmp_path):
    with pytest.raises(RuntimeError), written_aside(tmp_path / "a.npz") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_when_writing_fails(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail(folder):
        (folder / "part").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        new_folder(tmp_path / "a", fail)
    assert list(tmp_path.iterdir()) == []
    new_folder(tmp_path / "a", lambda folder: (folder / "part").touch())
    assert (tmp_path / "a" / "part").exists()


def test_hidden_folders_are_not_searched(tmp_path):
    """What another process writes meanwhile, or a killed one left, lies in some; it may be somebody else's."""
    (tmp_path / "sub").mkdir()
    write_json(tmp_path / "sub" / "a.json", 1)
    entered, walk = [], os.walk

    def watched(*arguments, **options):
        for root, folders, files in walk(*arguments, **options):
            entered.append(Path(root).name)
            yield root, folders, files

    with pytest.MonkeyPatch.context() as patch, written_aside(tmp_path / "sub" / "b.json") as aside:
        aside.touch()
        patch.setattr(os, "walk", watched)
        assert files_below(tmp_path) == [tmp_path / "sub" / "a.json"]
    assert entered == [tmp_path.name, "sub"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / ".unfinished-1").mkdir(parents=True)
        (folder / ".unfinished-1" / "a.npz").touch()
        (folder / ".unfinished-a.json").touch()
    remove_unfinished(tmp_path, below=False)
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]
    remove_unfinished(tmp_path)
    assert list((tmp_path / "sub").iterdir()) == []


def test_damaged_json_is_told(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_device_is_never_replaced():
    with pytest.raises(InputError, match="cannot be replaced by a file"):
        write_json(Path("/dev/null"), 1)
    assert Path("/dev/null").is_char_device()


def test_a_folder_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        require_writable(tmp_path / "file" / "results")
    require_writable(tmp_path / "some" / "results")
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize("processes", [True, False])
def test_nothing_half_written_stays_of_a_killed_worker(processes, tmp_path):
    """Other workers did its work. If the run fails, workers of a cluster may still be writing."""
    left = tmp_path / ".unfinished-n0"
    with working_in(tmp_path, processes):
        left.mkdir()
    assert not left.exists()
    with pytest.raises(RuntimeError), working_in(tmp_path, processes):
        left.mkdir()
        raise RuntimeError
    assert left.exists() != processes
