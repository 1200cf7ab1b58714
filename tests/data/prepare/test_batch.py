"""Batches: failures listed, kills survived, finished nights skipped, several processes and machines."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import recordings

from data.nights.night import read_night
from data.prepare.__main__ import main

pytestmark = pytest.mark.long

CODES = "0012233355001122"


def command(folder, *options, db="isruc"):
    return ["--db", db, "--data", str(folder / "raw"), "--out", str(folder / "out"), *options]


@pytest.fixture
def ten(tmp_path):
    """Ten ISRUC nights, of which the third is truncated, the fifth lacks its scoring and the eighth its channel."""
    for number in range(1, 11):
        recordings.isruc(tmp_path / "raw", CODES, number, name="F3-A2" if number == 8 else "C3-A2")
    third = tmp_path / "raw" / "3" / "3.rec"
    third.write_bytes(third.read_bytes()[:-1000])
    (tmp_path / "raw" / "5" / "5_1.txt").unlink()
    return tmp_path


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_three_bad_nights_among_ten(ten, capfd, jobs):
    assert main(command(ten, "--jobs", jobs)) == 1
    printed = capfd.readouterr().out
    assert "3 of 10 failed:" in printed
    assert "3.rec is truncated: it should have" in printed
    assert "5.rec has no scoring: add 5_1.txt." in printed
    assert "8.rec has no channel C3-A2 (nor C3-M2): choose among LOC-A2, F3-A2, SaO2" in printed
    written = sorted(path.name for path in (ten / "out").glob("*.npz"))
    assert written == [f"subject{n}.npz" for n in (0, 1, 3, 5, 6, 8, 9)]
    table = pd.read_csv(ten / "out" / "nights.csv").set_index("night")
    assert table.status.value_counts().to_dict() == {"written": 7, "failed": 3}
    assert table.loc["subject0", ["epochs", "W", "N1", "N2", "N3", "REM"]].tolist() == [16, 4, 3, 4, 3, 2]
    assert "truncated" in table.loc["subject2", "reason"]


def test_finished_nights_are_skipped_and_mended_ones_made(ten, capsys):
    main(command(ten))
    before = {path: path.stat().st_mtime_ns for path in (ten / "out").glob("*.npz")}
    recordings.isruc(ten / "raw", CODES, 3)
    (ten / "raw" / "5" / "5_1.txt").write_text("\n".join(CODES))
    recordings.isruc(ten / "raw", CODES, 8)
    assert main(command(ten)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = pd.read_csv(ten / "out" / "nights.csv")
    assert table.status.value_counts().to_dict() == {"kept": 7, "written": 3}
    assert (table.epochs == 16).all() and (table.trimmed_minutes == 0).all()
    assert "10 nights" in capsys.readouterr().out


def test_other_settings_do_not_mix(ten, capsys):
    main(command(ten))
    assert main(command(ten, "--select_ch", "LOC-A2")) == 1
    assert "subject0.npz exists already, but was prepared with other channels or settings" in capsys.readouterr().out


def test_changed_files_and_odd_ones_in_their_place_are_told(ten, capsys):
    main(command(ten))
    out = ten / "out"
    (ten / "raw" / "1" / "1_1.txt").write_text("\n".join(CODES) + "\n\n\n")
    (out / "subject1.npz").write_bytes(b"PK")
    np.savez(out / "subject3.npz", x=np.zeros((2, 3000)), about="{}")
    np.savez(out / "subject5.npz", x=1, y=["a", "b"], about='{"recording": "a"}')
    (out / "subject6.npz").rename(out / "subject6")
    assert main(command(ten)) == 1
    printed = capsys.readouterr().out
    assert "subject0.npz exists already, but its recording or scoring has changed since" in printed
    assert printed.count("exists already, but is not a whole night: remove it") == 3
    assert "subject6 holds this night in another --format" in printed
    # These five, and the three that were bad from the start.
    assert "8 of 10 failed:" in printed


def test_killed_midway_finishes_the_rest(tmp_path, project):
    """SIGKILL after each written night: at the end every night is there, whole, and nothing else."""
    for number in range(1, 5):
        recordings.isruc(tmp_path / "raw", CODES * 20, number)
    out = tmp_path / "out"
    for finished in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "data.prepare", *command(tmp_path)], cwd=project, stderr=subprocess.DEVNULL
        )
        while len(list(out.glob("subject*.npz"))) < finished and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in out.glob("subject*.npz"):
            assert len(read_night(path, ["C3-A2"]).stages) == len(CODES) * 20
    (out / ".unfinished-subject3-x.npz").write_bytes(b"half a night")
    assert main(command(tmp_path)) == 0
    assert sorted(path.name for path in out.iterdir()) == ["nights.csv", *(f"subject{n}.npz" for n in range(4))]


def test_on_a_dask_cluster(tmp_path, capfd, dask_cluster):
    """The same files as in this process, made by two workers started in another folder."""
    for number in range(1, 5):
        recordings.isruc(tmp_path / "raw", CODES, number)
    (tmp_path / "raw" / "4" / "4.rec").write_bytes(b"")
    assert main(command(tmp_path, "--cluster", dask_cluster)) == 1
    assert "4.rec is empty" in capfd.readouterr().out
    (tmp_path / "out").rename(tmp_path / "cluster")
    main(command(tmp_path))
    for n in range(3):
        there, here = (np.load(tmp_path / folder / f"subject{n}.npz") for folder in ("cluster", "out"))
        assert np.array_equal(there["x"], here["x"]) and np.array_equal(there["y"], here["y"])


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://"])
def test_no_scheduler_is_told(tmp_path, capsys, address):
    recordings.isruc(tmp_path / "raw", CODES)
    assert main(command(tmp_path, "--cluster", address)) == 2
    error = capsys.readouterr().err
    assert f"no Dask scheduler answers at {address}" in error and "Traceback" not in error


def test_list_writes_nothing(ten, capsys):
    (ten / "raw" / "2" / "2_1.txt").write_text("\n".join(3 * CODES))
    assert main(command(ten, "--list")) == 1
    printed = capsys.readouterr().out
    assert not (ten / "out").exists()
    assert "C3-A2                    200 Hz  uV        -> C3-A2" in printed
    assert "SaO2                    12.5 Hz  %" in printed
    assert "scoring 1_1.txt: 16 epochs; W 4, N1 3, N2 4, N3 3, REM 2, unscored 0" in printed
    assert "MISSING: C3-A2" in printed and "CANNOT BE USED" in printed
    assert printed.endswith("6 of 10 recordings can be prepared; see MISSING and CANNOT BE USED above.\n")


def test_a_folder_that_cannot_be_written(ten, capsys):
    (ten / "file").write_text("")
    assert main(["--db", "isruc", "--data", str(ten / "raw"), "--out", str(ten / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_fails_the_night_alone(ten, capsys, monkeypatch):
    def full(path, _):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr("data.prepare.batch.write_arrays", full)
    assert main(command(ten)) == 1
    assert "No space left on device" in capsys.readouterr().out


def test_a_list_of_subjects_is_prepared_alone(ten, capsys):
    wanted = ten / "list.txt"
    wanted.write_text("subject0\n2.rec\n")
    assert main(command(ten, "--subjects", str(wanted))) == 0
    assert sorted(path.name for path in (ten / "out").glob("*.npz")) == ["subject0.npz", "subject1.npz"]
    assert "8 recordings in" in (printed := capsys.readouterr().out) and "not among the 2 in --subjects" in printed
    wanted.write_text("subject0\nsubject40\nsubject41\n")
    assert main(command(ten, "--subjects", str(wanted))) == 2
    assert "no recording of 2 of the 3 subjects in --subjects, such as subject 40" in capsys.readouterr().err


def test_a_spec_without_subjects_takes_no_list_of_them(tmp_path, capsys):
    (tmp_path / "lab.toml").write_text(
        'recordings = "*.edf"\nscoring = "{name}.txt"\nform = "lines"\n[channels]\nEEG = []\n[labels]\n0 = "W"\n'
    )
    (tmp_path / "list.txt").write_text("3\n")
    (tmp_path / "raw").mkdir()
    options = ["--spec", str(tmp_path / "lab.toml"), "--subjects", str(tmp_path / "list.txt")]
    assert main(command(tmp_path, *options, db="custom")) == 2
    assert "--subjects cannot be used without a subject in the spec, which finds" in capsys.readouterr().err
