"""Many recordings side by side, the same results as one after another; and how staging is stopped, seen and silent."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from functools import partial

import numpy as np
import pandas as pd
import psutil
import pytest
from recordings import write_edf, write_hypnogram

import predict
from recsleep.model import RecSleepNet
from recsleep.predictor import load_stager
from runs.networks import save_model
from staging.stager import Stager

# One process makes the folds and stages the recordings that several tests look at.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("recordings side by side")]

TINY = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}
SPEC = """
recordings = "*.edf"
scoring = "{name}.txt"
form = "lines"

[channels]
C3 = []

[labels]
wach = "W"
tief = "N3"
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two folds with their ONNX file, and a third whose training has not finished."""
    folder = tmp_path_factory.mktemp("models")
    for fold in range(2):
        metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [fold]}, "amplitude": 12.5}
        save_model(folder / str(fold), RecSleepNet(**TINY), metadata)
    load_stager(folder)
    (folder / "2").mkdir()
    return folder


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """Four recordings of five minutes, the first of which has a scoring and the third of which is none."""
    folder = tmp_path_factory.mktemp("nights")
    for number in range(4):
        walk = np.random.default_rng(number).normal(0, 1, 30_000).cumsum()
        write_edf(folder / f"n{number}.edf", {"EEG C3-A2": (40 * np.sin(walk), 100, "uV")})
    (folder / "n2.edf").write_text("not a recording")
    scored = folder / "scored"
    scored.mkdir()
    write_hypnogram(scored / "n0.edf", [(0.0, 150.0, "Sleep stage W"), (150.0, 150.0, "Sleep stage 2")])
    (scored / "n0.txt").write_text("\n".join(["wach"] * 5 + ["tief"] * 5))
    return folder


def command(models, recordings, out, *options) -> list[str]:
    return ["--dir", str(models), "--recording", str(recordings), "--out", str(out), *map(str, options)]


@pytest.fixture(scope="module")
def one_by_one(models, nights, tmp_path_factory):
    """The results of all recordings that lie in the folder itself."""
    out = tmp_path_factory.mktemp("results")
    assert predict.main(command(models, nights / "*.edf", out)) == 1
    return out


def content(folder) -> dict[str, object]:
    """What the files of results hold, but for what depends on the time."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == ".json":
            found[path.name] = {name: value for name, value in json.loads(path.read_text()).items() if name != "took"}
        else:
            found[path.name] = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", path.read_bytes())
    return found


@pytest.mark.parametrize("workers", ["jobs", "cluster"])
def test_side_by_side_as_one_by_one(workers, models, nights, one_by_one, tmp_path, request, capfd):
    options = ("--jobs", 2) if workers == "jobs" else ("--cluster", request.getfixturevalue("dask_cluster"))
    assert predict.main(command(models, nights / "*.edf", tmp_path, *options)) == 1
    assert content(tmp_path) == content(one_by_one)
    assert pd.read_csv(tmp_path / "summary.csv")["name"].tolist() == ["n0", "n1", "n2", "n3"]
    printed, errors = capfd.readouterr()
    assert printed.count("holds no finished model") == 1
    assert len(re.findall(r"^n[013]: 10 epochs", printed, re.MULTILINE)) == 3
    assert "n2: failed: " in printed and "1 failed" in printed
    # Nothing of progress where nobody watches.
    assert errors == ""


def test_finished_ones_are_kept_by_several_processes(models, nights, one_by_one, tmp_path, capfd):
    out = shutil.copytree(one_by_one, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "summary.csv"}
    assert predict.main(command(models, nights / "*.edf", out, "--jobs", 2)) == 1
    assert "3 kept, 1 failed" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_models_that_cannot_be_used_are_told_once(nights, tmp_path, capfd):
    assert predict.main(command(tmp_path, nights, tmp_path / "out", "--jobs", 2)) == 2
    assert capfd.readouterr().err.count("holds no trained model") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--jobs", "0"], "--jobs 0: give a number of processes"),
        (["--jobs", "2", "--cluster", "tcp://a:1"], "give only one of them"),
        (["--spec", "lab.toml"], "give --scoring too"),
    ],
)
def test_mistakes(models, nights, tmp_path, capsys, options, told):
    assert predict.main(command(models, nights, tmp_path / "out", *options)) == 2
    assert told in capsys.readouterr().err


def test_side_by_side_is_of_staging(models, capsys):
    assert predict.main(["--dir", str(models), "--jobs", "2"]) == 2
    assert "--jobs belongs to the staging" in capsys.readouterr().err


def test_ctrl_c_ends_all_processes_at_once(models, nights, tmp_path, project):
    """Once with a result written; the same command then goes on."""
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for number in range(30):
        (many / f"n{number:02}.edf").symlink_to(nights / f"n{number % 2}.edf")
    process = subprocess.Popen(
        [sys.executable, "predict.py", *command(models, many, out, "--jobs", 2)],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches every process of a terminal, also where the tests run in the background of a shell.
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not list(out.glob("*.json")) and process.poll() is None:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    # Joblib's own helper may tell afterwards that it tidied up.
    assert errors.startswith("predict.py: stopped; run the same command again to continue.\n")
    assert "Traceback" not in errors
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert len(list(out.glob("*.json"))) < 30
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_a_scoring_is_compared_with_later(models, nights, tmp_path, monkeypatch, capsys):
    """The results are those of staging and comparing at once, and no network runs."""
    scoring = ("--scoring", nights / "scored" / "{name}.edf")
    once, later = tmp_path / "once", tmp_path / "later"
    assert predict.main(command(models, nights / "n0.edf", once, *scoring)) == 0
    assert predict.main(command(models, nights / "n0.edf", later)) == 0
    monkeypatch.setattr(Stager, "stage", None)
    assert predict.main(command(models, nights / "n0.edf", later, *scoring)) == 0
    printed = capsys.readouterr().out
    assert "1 compared" in printed and "agreement with the scoring" in printed
    compared, staged = content(later), content(once)
    table = pd.read_csv(later / "summary.csv").set_index("name")
    assert table.loc["n0", "status"] == "compared" and table.loc["n0", "accuracy"] >= 0
    del compared["summary.csv"], staged["summary.csv"]
    # A confidence that is a float's last digit away may be rounded to another fourth decimal place.
    events = "n0_desc-recsleep_events.tsv"
    del compared[events], staged[events]
    pd.testing.assert_frame_equal(*(pd.read_csv(out / events, sep="\t") for out in (later, once)), rtol=0, atol=1.1e-4)
    for result in (compared["n0.json"], staged["n0.json"]):
        result["confidence"] = pytest.approx(result["confidence"], abs=1e-6)
        for stretch in result["to_check"]:
            stretch["confidence"] = pytest.approx(stretch["confidence"], abs=1e-6)
    page = compared["n0.html"].decode()
    assert '"spectra": {"bins": 61' in page and "Stage by stage" in page
    assert compared == staged
    # So with lights, which stay until others are given, with the scoring too.
    for options, status, lights in (
        (["--lights-off", "60"], "renewed", [2, 10]),
        (["--lights-on", "270"], "renewed", [2, 9]),
        (["--lights-off", "60"], "kept", [2, 9]),
        ([], "kept", [2, 9]),
        (scoring, "compared", [2, 9]),
        ([*scoring, "--lights-off", "30"], "compared", [1, 9]),
    ):
        assert predict.main(command(models, nights / "n0.edf", later, *options)) == 0
        assert f"1 {status}" in capsys.readouterr().out
        result = json.loads((later / "n0.json").read_text())
        assert list(result["lights"].values()) == lights
        parts = ("statistics", "scorer_statistics") if status == "compared" else ("statistics",)
        assert {result[part]["TIB"] for part in parts} == {(lights[1] - lights[0]) / 2}
    # Another time it is kept, also where no scoring is wanted.
    assert predict.main(command(models, nights / "n0.edf", later, *scoring)) == 0
    assert predict.main(command(models, nights / "n0.edf", later)) == 0
    assert capsys.readouterr().out.count("1 kept") == 2
    csv = later / "n0.hypnogram.csv"
    csv.write_text("".join(csv.read_text().splitlines(keepends=True)[:-1]))
    other = ("--scoring", nights / "scored" / "n0.txt")
    assert predict.main(command(models, nights / "n0.edf", later, *other)) == 2
    assert "'wach' is not a stage" in capsys.readouterr().err
    (nights / "scored" / "plain.txt").write_text("\n".join("W" * 10))
    assert predict.main(command(models, nights / "n0.edf", later, *other[:1], nights / "scored" / "plain.txt")) == 2
    assert "Stage the recording again with --overwrite." in capsys.readouterr().err
    assert json.loads((later / "n0.json").read_text())["agreement"]


def test_a_scoring_with_a_laboratorys_own_labels(models, nights, tmp_path):
    spec = tmp_path / "lab.toml"
    spec.write_text(SPEC)
    options = ("--scoring", nights / "scored" / "{name}.txt", "--spec", spec)
    assert predict.main(command(models, nights / "n0.edf", tmp_path / "out", *options)) == 0
    result = json.loads((tmp_path / "out" / "n0.json").read_text())
    assert result["scoring"]["rules"]["labels"] == {"wach": 0, "tief": 3}
    assert np.sum(result["agreement"]["confusion_matrix"], axis=1).tolist() == [5, 0, 0, 5, 0]


def test_doubts_come_first(one_by_one, models, nights, tmp_path, capsys):
    """Networks of random weights are unsure of every epoch."""
    result = json.loads((one_by_one / "n0.json").read_text())
    assert re.match(r"the models' mean confidence is 0\.[234]\d, below 0\.5", result["warnings"][0])
    out = shutil.copytree(one_by_one, tmp_path / "out")
    assert predict.main(command(models, nights / "n0.edf", out)) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("n0: "))
    assert lines[first + 1] == f"  WARNING: {result['warnings'][0]}"
    text = (one_by_one / "n0.html").read_text()
    assert text.index("Warning: the models&#39; mean confidence") < text.index("10 epochs of 30 s")


def test_a_terminal_sees_the_time_pass(models, nights, tmp_path, project):
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 80))
    arguments = [sys.executable, "predict.py", *command(models, nights / "n0.edf", tmp_path)]
    done = subprocess.run(arguments, cwd=project, stdout=subprocess.PIPE, stderr=its_end, text=True, check=True)
    assert re.search(r"staging n0\.edf: 00:0\d", os.read(terminal, 10_000).decode())
    for end in (its_end, terminal):
        os.close(end)
    assert "staging n0.edf" not in done.stdout
