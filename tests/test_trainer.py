"""The training command as users run it: from night files to scores, killed and continued, given wrong input."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from tqdm import tqdm

import predict
import trainer
from data.terms import InputError
from runs.settings import configure

TINY = [
    *("filters=6", "first_kernel=20", "lstm_units=8", "block_kernel=3"),
    *("reconstruction_passes=2", "passes=5", "learning_rate=0.003", "batch_nights=2", "window_epochs=8"),
    *("subjects=(0,1,2,3,4,5)", "folds=3", "hours=0.4"),
]


def command(*arguments: str | Path) -> list[str]:
    settings = [part for value in TINY for part in ("--set", value)]
    return [sys.executable, "trainer.py", "--db", "synthetic", *settings, *map(str, arguments)]


def run(project: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), cwd=project, capture_output=True, text=True, timeout=300, check=False)


def weights(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An undisturbed run of fold 1; its nights, its results, what it printed."""
    project = Path(__file__).resolve().parent.parent
    folder = tmp_path_factory.mktemp("trained")
    done = run(project, "--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.parametrize("first", [0, 1])
def test_folds_elsewhere_give_the_same_weights(trained, project, tmp_path, first, request):
    """Two folds in two processes of this machine; one on a worker of a Dask cluster started in another folder."""
    folder, _ = trained
    option = ("--jobs", 2) if first == 0 else ("--cluster", request.getfixturevalue("dask_cluster"))
    done = run(project, "--from_fold", first, "--to_fold", 1, "--data", folder / "nights", "--out", tmp_path, *option)
    assert done.returncode == 0, done.stderr
    assert "pooled: accuracy" in done.stdout
    alone, beside = (weights(out / "synthetic" / "1") for out in (folder / "out", tmp_path))
    assert all(np.array_equal(alone[name], beside[name]) for name in alone)


def test_what_a_worker_refuses_is_told(trained, project):
    folder, _ = trained
    refused = run(
        project,
        "--jobs",
        2,
        "--from_fold",
        1,
        "--to_fold",
        1,
        "--data",
        folder / "nights",
        "--out",
        folder / "out",
        "--set",
        "passes=6",
    )
    assert refused.returncode == 2 and refused.stderr.count("error:") == 1, refused.stderr
    assert "was trained with passes 5, not 6" in refused.stderr and "Traceback" not in refused.stderr


def test_folds_end_when_their_trainer_is_killed(trained, project, tmp_path):
    folder, _ = trained
    places = ("--data", folder / "nights", "--out", tmp_path, "--to_fold", 1)
    process = subprocess.Popen(
        command(*places, "--jobs", 2, "--set", "passes=100000"), cwd=project, stdout=subprocess.PIPE, text=True
    )
    assert any("joint" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    # The folds' processes hold the other ends of this pipe: it ends when they have ended.
    process.stdout.read()
    process.wait()


def test_a_fold_leaves_model_logs_predictions_and_split(trained):
    folder, printed = trained
    fold = folder / "out" / "synthetic" / "1"
    names = {"config.json", "model.weights.h5", "metadata.json", "split.json", "log.csv", "tensorboard", "predictions"}
    assert {path.name for path in fold.iterdir()} == names
    for word in ("accuracy", "macro-F1", "kappa", "precision", "as REM", "predictions", "log.csv"):
        assert word in printed
    metadata = json.loads((fold / "metadata.json").read_text())
    assert metadata["split"]["test"] == [2, 3]
    parts = [set(metadata["split"][part]) for part in ("train", "validation", "test")]
    assert set.union(*parts) == {0, 1, 2, 3, 4, 5}
    assert sum(map(len, parts)) == 6
    assert json.loads((fold / "split.json").read_text())["split"] == metadata["split"]
    assert 3 < metadata["amplitude"] < 30
    assert sorted(path.name for path in (fold / "predictions").iterdir()) == ["synthetic02.csv", "synthetic03.csv"]
    with (fold / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["reconstruction"] * 2 + ["joint"] * 5
    # The kept network is the last one whose validation accuracy and macro-F1 both rose above the best before.
    best = None
    for row in rows[2:]:
        figures = float(row["val_accuracy"]), float(row["val_macro_f1"])
        if best is None or (figures[0] > best[0][0] and figures[1] > best[0][1]):
            best = figures, int(row["pass"])
    assert metadata["best"]["pass"] == best[1]


def test_evaluating_again_gives_the_trainers_scores(trained, tmp_path, capsys):
    """With the command that the trainer printed, which names the fold that was trained and no other."""
    folder, told = trained
    report = tmp_path / "report.json"
    python, script, *arguments = shlex.split(told.partition("Evaluate again: ")[2])
    assert (python, script) == ("python", "predict.py") and arguments[-2:] == ["--fold", "1"]
    assert predict.main([*arguments, "--json", str(report), "--save", str(tmp_path / "saved")]) == 0
    assert "Not evaluated" not in capsys.readouterr().out
    figures = json.loads(report.read_text())
    tested = json.loads((folder / "out" / "synthetic" / "1" / "metadata.json").read_text())["test"]
    assert [fold["fold"] for fold in figures["folds"]] == [1]
    for key in ("accuracy", "macro_f1", "kappa", "confusion_matrix"):
        assert figures["pooled"][key] == figures["folds"][0][key] == tested[key]
    saved = tmp_path / "saved" / "synthetic" / "1" / "synthetic02.csv"
    assert saved.read_text() == (folder / "out" / "synthetic" / "1" / "predictions" / "synthetic02.csv").read_text()
    with saved.open() as file:
        rows = list(csv.DictReader(file))
    assert all(abs(sum(float(row[stage]) for stage in ("W", "N1", "N2", "N3", "REM")) - 1) < 1e-5 for row in rows)


def test_a_finished_fold_is_skipped(trained, project):
    folder, _ = trained
    fold = folder / "out" / "synthetic" / "1"
    before = (fold / "metadata.json").stat().st_mtime_ns
    done = run(project, "--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    assert done.returncode == 0
    assert "fold 1 is finished: skipped" in done.stdout
    assert (fold / "metadata.json").stat().st_mtime_ns == before
    other = run(
        project,
        "--from_fold",
        1,
        "--to_fold",
        1,
        "--data",
        folder / "nights",
        "--out",
        folder / "out",
        "--set",
        "l2=0.5",
    )
    # The settings of the test come after and do not name l2.
    assert other.returncode == 2
    assert "trained with l2 0.001, not 0.5" in other.stderr


def test_killed_at_any_moment_ends_with_the_same_weights(trained, project, tmp_path):
    folder, _ = trained
    fold = tmp_path / "synthetic" / "1"
    arguments = ("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", tmp_path)
    rng = np.random.default_rng()
    kills = 0
    # What a kill in the middle of a write leaves.
    (fold / "predictions").mkdir(parents=True)
    (fold / ".unfinished-log-x.csv").touch()
    # Killed while starting, then after passes 1, 2 (the end of the first phase) and 5, each a little later.
    for wanted in (None, 1, 2, 5):
        process = subprocess.Popen(
            command(*arguments),
            cwd=project,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            passes = [int(path.name) for path in fold.glob("progress/*") if path.name.isdigit()]
            if wanted is None or (passes and max(passes) >= wanted):
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15) if wanted else rng.uniform(1, 4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if wanted and kills == 2:
            # An unfinished fold is not mistaken for a model.
            assert predict.main(["--db", "synthetic", "--dir", str(tmp_path), "--data", str(folder / "nights")]) == 2
    assert kills >= 3
    done = run(project, *arguments)
    assert done.returncode == 0, done.stderr
    assert "continues after pass" in done.stdout or "finished" in done.stdout
    ours, undisturbed = weights(fold), weights(folder / "out" / "synthetic" / "1")
    assert ours.keys() == undisturbed.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], undisturbed[name], err_msg=name)
    assert not (fold / "progress").exists()
    assert not list(fold.rglob(".*"))
    with (fold / "log.csv").open() as file:
        assert [row["pass"] for row in csv.DictReader(file)] == [str(number) for number in range(1, 8)]


@pytest.mark.parametrize("transductive", [False, True])
def test_validation_and_test_signals_train_only_when_asked(tmp_path, transductive):
    """And then in the first phase alone, which uses no labels."""
    from data.nights.folds import Split
    from data.nights.index import NightFile
    from recsleep.fold import FoldTask, FoldTrainer

    config = configure(
        "ucddb", [f"transductive={transductive}", "reconstruction_passes=1", "filters=4", "lstm_units=4"]
    )
    nights = {subject: [NightFile(Path(f"ucddb{subject:03d}.npz"), 20, 1.0, 0.0, 0)] for subject in (2, 3, 5, 6)}
    trainer = FoldTrainer(FoldTask(config, Split(0, (3, 5), (6,), (2,)), nights, tmp_path))
    first, second = ({night.path.stem for night in trainer.order(number)} for number in (0, 1))
    assert first == {"ucddb003", "ucddb005"} | ({"ucddb002", "ucddb006"} if transductive else set())
    assert second == {"ucddb003", "ucddb005"}


def truncate(name):
    def spoil(kept):
        path = kept / name
        path.write_bytes(path.read_bytes()[:500])

    return spoil


def forget(key):
    def spoil(kept):
        state = json.loads((kept / "state.json").read_text())
        del state[key]
        (kept / "state.json").write_text(json.dumps(state))

    return spoil


def exchange(key, value):
    def spoil(kept):
        state = json.loads((kept / "state.json").read_text())
        (kept / "state.json").write_text(json.dumps(state | {key: value}))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        *(truncate(name) for name in ("state.json", "network.weights.h5", "training.weights.h5", "best.npz")),
        *(forget(key) for key in ("run", "history", "best")),
        exchange("best", {}),
        exchange("best", None),
        exchange("run", None),
    ],
)
def test_damaged_progress_is_told(tmp_path, ucddb, spoil):
    from data.nights.folds import Split
    from data.nights.index import check_nights
    from recsleep.fold import FoldTask, FoldTrainer

    config = configure("ucddb", ["reconstruction_passes=1", "passes=2", "filters=4", "lstm_units=4", "window_epochs=5"])
    nights = check_nights({subject: [ucddb / f"ucddb{subject:03d}.npz"] for subject in (2, 3, 5)}, ("C3A2",))
    task = FoldTask(config, Split(0, (3,), (5,), (2,)), nights, tmp_path / "0")
    stopped = FoldTrainer(task)
    with tqdm(disable=True) as bar:
        stopped.one_pass(0, bar)
        stopped.one_pass(1, bar)
    assert len(FoldTrainer(task).history) == 2
    spoil(tmp_path / "0" / "progress" / "2")
    with pytest.raises(InputError) as error:
        FoldTrainer(task)
    assert "progress" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def ucddb(tmp_path, make_night):
    """A folder of small UCDDB nights of all 25 subjects."""
    for subject in (2, 3, *range(5, 16), *range(17, 29)):
        make_night(tmp_path / "ucddb" / f"ucddb{subject:03d}.npz", 5, seed=subject)
    return tmp_path / "ucddb"


X = np.random.default_rng(0).normal(0, 20, (5, 3000)).astype("float32")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"x": np.full((5, 3000), np.nan)}, "NaN"),
        ({"y": np.array([0, 1, 2, 3, 5])}, "labelled 5"),
        ({"y": np.array([0, 1, 2, 3, -1])}, "labelled -1"),
        ({"x": X[:, :2900]}, "2900 samples"),
        ({"y": None}, "no 'y'"),
        ({"x": X.astype(object)}, "pickled"),
        ("truncate", "truncated or damaged"),
        ("remove", "subject 2"),
        ("empty", "holds no night file of ucddb"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_nights_stop_before_anything_is_written(tmp_path, ucddb, make_night, capsys, changes, told):
    bad = ucddb / "ucddb002.npz"
    if changes == "truncate":
        bad.write_bytes(bad.read_bytes()[:-5000])
    elif changes == "remove":
        bad.unlink()
    elif changes == "empty":
        shutil.rmtree(ucddb)
        ucddb.mkdir()
    else:
        make_night(bad, 5, **changes)
    out = tmp_path / "out"
    assert trainer.main(["--db", "ucddb", "--to_fold", "0", "--data", str(ucddb), "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error
    assert error.startswith("trainer.py: error: ")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--db", "isruk"], "did you mean isruc"),
        (["--db", "isurc", "--data", "absent"], "folder of night files absent does not exist"),
        (["--db", "ucddb", "--from_fold", "25"], "folds 0 to 24"),
        (["--db", "ucddb", "--to_fold", "99"], "folds 0 to 24"),
        (["--db", "ucddb", "--from_fold", "-1"], "folds 0 to 24"),
        (["--db", "ucddb", "--from_fold", "3", "--to_fold", "2"], "--from_fold 3 is above --to_fold 2"),
        (["--db", "ucddb", "--set", "pases=2"], "did you mean passes"),
        (["--db", "ucddb", "--suffix", "../x"], "path separator"),
        (["--db", "ucddb", "--gpu", "-2"], "--gpu -2"),
        (["--db", "custom"], "name the channel that is to be staged, with --set channel=NAME"),
        *(
            (["--db", "ucddb", option, value], f"only SynthSleepNet has {option}: add --model synthsleepnet")
            for option, value in (
                *(("--tcm", "mamba2"), ("--task", "sleep_stage"), ("--label_fraction", "1"), ("--preset", "paper")),
                *(("--step", "unimodal"), ("--modality", "eeg"), ("--strategy", "mirrored")),
            )
        ),
        (["--db", "shhs", "--model", "synthsleepnet", "--label_fraction", "0"], "above 0 and at most 1"),
    ],
)
def test_wrong_arguments(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trainer.main(arguments) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_synthsleepnet_needs_no_channel_to_stage(tmp_path, capsys):
    """It takes its channels by modality: what a custom database lacks here is nights alone."""
    modalities = ["--modality", "eeg", "--set", "modalities=(('eeg', 'C3-A2'),)"]
    folders = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert trainer.main(["--db", "custom", "--model", "synthsleepnet", *modalities, *folders]) == 2
    assert "holds no night file of custom" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written(tmp_path, ucddb, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    assert trainer.main(["--db", "ucddb", "--to_fold", "0", "--data", str(ucddb), "--out", str(out)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["trainer.py", "predict.py", "data/prepare/__main__.py"])
def test_help_starts_no_framework(project, script):
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, script], cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--db" in done.stdout


def test_unknown_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        trainer.main(["--db", "isruc", "--folds", "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
