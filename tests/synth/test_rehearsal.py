"""A dry run of SynthSleepNet: every step, from nights as users have them, with nothing left behind."""

import re
import shutil

import pytest
from recordings import as_shhs

import trainer
from data.nights.files import read_arrays, write_arrays
from data.prepare.__main__ import main as prepare
from data.prepare.synthetic import make_night
from runs.saved import read_metadata
from runs.settings import configure

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("small_backbone")]

SETTINGS = ("folds=3", "labelled_subjects=4", "unimodal_passes=1", "multimodal_passes=3", "probing_passes=2")
ROW = re.compile(r"^fold 0 (.+?) {2,}([\d.]+) +([\d,]+) .* ([\d.]+) ([MG]iB) +(\d+) MiB$", re.MULTILINE)
STEPS = ("multimodal/eeg", "linear probing of apnea", "fine-tuning for apnea (mamba2)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of six prepared nights of some 18 minutes."""
    folder, config = tmp_path_factory.mktemp("rehearsed"), configure("synthetic", ["hours=0.3"]).synthetic
    for number in range(6):
        as_shhs(folder / "raw", 200001 + number, make_night(number, config))
    where = ["--data", str(folder / "raw"), "--out", str(folder / "nights")]
    assert prepare(["--db", "shhs", *where, "--select_ch", "EEG_C4"]) == 0
    return folder


def run(folder, capsys, *arguments: str, expected: int = 0) -> str:
    settings = [part for value in SETTINGS for part in ("--set", value)]
    where = ["--data", str(folder / "nights"), "--out", str(folder / "out"), "--to_fold", "0"]
    what = ["--db", "shhs", "--preset", "tiny", "--modality", "eeg", "--task", "apnea"]
    capsys.readouterr()
    assert trainer.main(["--model", "synthsleepnet", *what, *settings, *where, *arguments]) == expected
    return "".join(capsys.readouterr())


def rows(printed: str) -> dict[str, int]:
    """The updates of each step; the other figures are plausible."""
    found = {}
    for title, seconds, updates, memory, unit, disk in ROW.findall(printed):
        assert 1e-5 < float(seconds) < 60
        assert 100 < float(memory) * {"MiB": 1, "GiB": 1024}[unit] < 16_000
        assert int(disk) < 1000
        found[title] = int(updates.replace(",", ""))
    return found


def test_a_dry_run_of_what_is_left(folder, capsys, caplog, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(folder, capsys, "--step", "unimodal")
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()}
    assert "Every fold is finished" in run(folder, capsys, "--dry-run", "--step", "unimodal")
    printed = run(folder, capsys, "--dry-run")
    updates = rows(printed)
    assert list(updates) == [*STEPS]
    trained = read_metadata(folder / "out/shhs/0/unimodal/eeg")
    epochs = sum(len(read_arrays(folder / "nights" / night, ("y",))["y"]) for night in trained["nights"])
    batches = epochs // trained["config"]["training"]["multimodal_batch"]
    assert updates["multimodal/eeg"] == 3 * batches > 0
    assert "Folds left: 1, 1 at a time: about" in printed
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("rehearsal-*"))
    # TensorFlow warns of functions that are compiled again and again.
    assert "retracing" not in caplog.text


def test_a_dry_run_tells_of_a_night_that_was_not_scored_for_the_task(folder, capsys, tmp_path):
    """Before anything else: pretraining would take days."""
    shutil.copytree(folder / "nights", tmp_path / "nights")
    arrays = read_arrays(tmp_path / "nights/shhs1-200001.npz", ("x", "y", "ch_names", "about"))
    write_arrays(tmp_path / "nights/shhs1-200001.npz", arrays)
    told = run(tmp_path, capsys, "--dry-run", expected=2)
    assert (
        "apnea cannot be learnt from night shhs1-200001, which holds no scored breathing events: prepare it again"
        in told
    )
