"""The training command as users run it: from night files to scores, killed and continued, given wrong input."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

import predict
import recsleep
import trainer
from data.writing import alone_in
from runs.settings import configure

TINY = [
    *("filters=6", "first_kernel=20", "lstm_units=8", "block_kernel=3"),
    *("reconstruction_passes=1", "passes=4", "learning_rate=0.003", "batch_nights=2", "window_epochs=8"),
    *("subjects=(0,1,2,3,4,5)", "folds=3", "hours=0.3"),
]


def options(*arguments: str | Path, settings: list[str] = TINY) -> list[str]:
    return ["--db", "synthetic", *(part for value in settings for part in ("--set", value)), *map(str, arguments)]


def of_fold_1(folder: Path, out: Path | None = None) -> list[str | Path]:
    return ["--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", out or folder / "out"]


def start(project: Path, *arguments: str | Path, **about) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "trainer.py", *options(*arguments)], cwd=project, **about)


def weights(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of an undisturbed run of fold 1: its nights and its results."""
    folder = tmp_path_factory.mktemp("trained")
    assert trainer.main(options(*of_fold_1(folder))) == 0
    return folder


@pytest.mark.long
@pytest.mark.parametrize("first", [0, 1])
def test_folds_elsewhere_give_the_same_weights(trained, tmp_path, first, request, capsys):
    """Two folds in two processes of this machine; one on a worker of a Dask cluster started in another folder."""
    option = ("--jobs", 2) if first == 0 else ("--cluster", request.getfixturevalue("dask_cluster"))
    assert trainer.main(options(*of_fold_1(trained, tmp_path), "--from_fold", first, *option)) == 0
    assert "pooled: accuracy" in capsys.readouterr().out
    assert_same_weights(trained / "out/synthetic/1", tmp_path / "synthetic/1")


@pytest.mark.long
def test_what_a_worker_refuses_is_told(trained, capsys):
    assert trainer.main(options("--jobs", 2, *of_fold_1(trained), "--set", "passes=6")) == 2
    refused = capsys.readouterr().err
    assert refused.count("error:") == 1 and "was trained with passes 4, not 6" in refused
    assert "Traceback" not in refused


def test_one_trainer_works_in_a_fold(trained, tmp_path, capsys):
    with alone_in(tmp_path / "synthetic/1"):
        assert trainer.main(options(*of_fold_1(trained, tmp_path))) == 2
    assert f"process {os.getpid()} of" in capsys.readouterr().err


@pytest.mark.long
def test_folds_end_when_their_trainer_is_killed(trained, project, tmp_path):
    places = ("--data", trained / "nights", "--out", tmp_path, "--to_fold", 1)
    process = start(project, *places, "--jobs", 2, "--set", "passes=100000", stdout=subprocess.PIPE, text=True)
    assert any("reconstruction" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    # The folds' processes hold the other ends of this pipe: it ends when they have ended.
    process.stdout.read()
    process.wait()


def test_a_fold_leaves_model_logs_predictions_and_split(trained, capsys):
    fold = trained / "out/synthetic/1"
    names = {"config.json", "model.weights.h5", "model.onnx", "metadata.json", "split.json", "log.csv"}
    names |= {"tensorboard", "predictions", "MODEL_CARD.md"}
    assert {path.name for path in fold.iterdir()} == names
    before = (fold / "metadata.json").stat().st_mtime_ns
    # What is finished is skipped, and told again.
    assert trainer.main(options(*of_fold_1(trained))) == 0
    printed = capsys.readouterr().out
    assert (fold / "metadata.json").stat().st_mtime_ns == before
    for word in ("fold 1 is finished: skipped", "accuracy", "macro-F1", "kappa", "precision", "as REM", "log.csv"):
        assert word in printed
    assert trainer.main(options(*of_fold_1(trained), "--set", "l2=0.5")) == 2
    # The settings of the test do not name l2.
    assert "trained with l2 0.001, not 0.5" in capsys.readouterr().err
    metadata = json.loads((fold / "metadata.json").read_text())
    assert metadata["split"]["test"] == [2, 3]
    parts = [set(metadata["split"][part]) for part in ("train", "validation", "test")]
    assert set.union(*parts) == {0, 1, 2, 3, 4, 5}
    assert sum(map(len, parts)) == 6
    assert json.loads((fold / "split.json").read_text())["split"] == metadata["split"]
    assert 3 < metadata["recipe"]["level"]["amplitude"] < 30
    assert sorted(path.name for path in (fold / "predictions").iterdir()) == ["synthetic02.csv", "synthetic03.csv"]
    with (fold / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["reconstruction"] + ["joint"] * 4
    # The kept network is the last one whose validation accuracy and macro-F1 both rose above the best before.
    best = None
    for row in rows[1:]:
        figures = float(row["val_accuracy"]), float(row["val_macro_f1"])
        if best is None or (figures[0] > best[0][0] and figures[1] > best[0][1]):
            best = figures, int(row["pass"])
    assert metadata["best"]["pass"] == best[1]


def test_the_figures_of_all_folds_are_saved_with_intervals(trained, capsys):
    """Those of one fold are the fold's own; they are read from the tables of predictions."""
    assert trainer.main(options(*of_fold_1(trained))) == 0
    printed = capsys.readouterr().out
    saved = trained / "out/synthetic/pooled/fold_1/figures.json"
    told = json.loads(saved.read_text())
    tested = json.loads((trained / "out/synthetic/1/metadata.json").read_text())["test"]
    assert {name: told[name] for name in tested} == tested
    assert (told["folds"], told["subjects"], told["task"]) == ([1], 2, "sleep_stage")
    # Of two subjects, half of the draws hold one of them alone.
    tables = [pd.read_csv(path) for path in sorted((trained / "out/synthetic/1/predictions").iterdir())]
    alone = sorted((table["scored"] == table["predicted"]).mean() for table in tables)
    assert told["intervals_95"]["accuracy"] == pytest.approx(alone)
    assert f"95 % intervals over 2 subjects: accuracy {alone[0]:.3f} to {alone[1]:.3f}   macro-F1" in printed
    assert f"These figures, with their confidence intervals, are in {saved}." in printed


def test_a_lost_table_of_predictions_is_told(trained, tmp_path, capsys):
    shutil.copytree(trained / "out", tmp_path / "out")
    lost = tmp_path / "out/synthetic/1/predictions/synthetic03.csv"
    whole = lost.read_text()
    for damaged in ("epoch,scored\n0,W\n", "", whole[:-40], whole.replace("N2", "Apnea"), whole.replace("0.", "?")):
        lost.write_text(damaged)
        assert trainer.main(options(*of_fold_1(trained, tmp_path / "out"))) == 2
        assert f"{lost} holds no predictions of sleep_stage: evaluate the fold again" in capsys.readouterr().err
    lost.unlink()
    assert trainer.main(options(*of_fold_1(trained, tmp_path / "out"))) == 2
    told = capsys.readouterr()
    assert f"{lost} does not exist, or no longer exists" in told.err
    # All else that is told at the end is.
    assert "predictions on the test nights (predictions/)." in told.out and "To evaluate again: python" in told.out


def test_a_list_of_subjects_is_the_set_of_them(trained, tmp_path, capsys):
    path = tmp_path / "list.txt"
    settings = [value for value in TINY if not value.startswith("subjects")]
    path.write_text("synthetic05\n0\n1\n2\nsynthetic03.npz\n4")
    command = options(*of_fold_1(trained), "--subjects", path, settings=settings)
    assert trainer.main(command) == 0
    assert "fold 1 is finished: skipped" in capsys.readouterr().out
    path.write_text("0\n1\n2\n3\n4\n")
    assert trainer.main(command) == 2
    assert "trained with subjects [0, 1, 2, 3, 4, 5], not [0, 1, 2, 3, 4]" in capsys.readouterr().err


def assert_evaluated_again(
    out: Path, nights: Path, folder: Path, folds: tuple[int, ...] = (1,), of_version_1: tuple[int, ...] = ()
) -> None:
    """Evaluation gives the figures, and the predictions, of the trainer."""
    (results,) = out.iterdir()
    report, saved = folder / "report.json", folder / "saved"
    arguments = ["--db", results.name, "--dir", out, "--data", nights, "--json", report, "--save", saved]
    assert predict.main([str(argument) for argument in arguments]) == 0
    figures = json.loads(report.read_text())["folds"]
    assert [found["fold"] for found in figures] == list(folds)
    for found in figures:
        fold = results / str(found["fold"])
        tested = json.loads((fold / "metadata.json").read_text())["test"]
        for key in ("accuracy", "macro_f1", "kappa", "confusion_matrix"):
            assert found[key] == tested[key]
        for path in (fold / "predictions").iterdir():
            (again,) = saved.rglob(path.name)
            if found["fold"] in of_version_1:
                # Another TensorFlow may have written them: the last decimal may differ.
                pd.testing.assert_frame_equal(pd.read_csv(again), pd.read_csv(path), rtol=0, atol=2e-6)
            else:
                assert again.read_text() == path.read_text()


def test_evaluating_again_gives_the_trainers_scores(trained, tmp_path):
    assert_evaluated_again(trained / "out", trained / "nights", tmp_path)
    with (trained / "out/synthetic/1/predictions/synthetic02.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(abs(sum(float(row[stage]) for stage in ("W", "N1", "N2", "N3", "REM")) - 1) < 1e-5 for row in rows)


def test_a_fold_trained_in_bfloat16_is_tested_in_float32(trained, tmp_path):
    """As it is evaluated again: the figures and the probabilities are the same."""
    short = ("--set", "passes=1", "--set", "precision=mixed_bfloat16")
    assert trainer.main(options(*of_fold_1(trained, tmp_path / "out"), *short)) == 0
    assert_evaluated_again(tmp_path / "out", trained / "nights", tmp_path)


@pytest.fixture(scope="module")
def laboratory(trained, tmp_path_factory):
    """The nights of a laboratory with another amplifier, three sleepers', and how to adapt the trained fold to them."""
    folder = tmp_path_factory.mktemp("laboratory")
    for subject, name in enumerate(("a", "b", "c")):
        with np.load(trained / f"nights/synthetic0{subject}.npz") as night:
            x = 1e-3 * night["x"][:, 0] + 0.2
            np.savez(folder / f"subject{subject}_{name}.npz", x=x.astype("float32"), y=night["y"], fs=100.0)
    spec = 'recordings = "*.edf"\nscoring = "{name}.txt"\nform = "lines"\nchannels = {EEG = "C4"}\nlabels = {W = "W"}\n'
    (folder / "lab.toml").write_text(spec)
    given = ["--db", "custom", "--spec", folder / "lab.toml", "--data", folder, "--to_fold", 0]
    return folder, [*map(str, [*given, "--init", trained / "out/synthetic/1"])]


def test_a_network_is_adapted_to_a_laboratory(laboratory, trained, tmp_path, capsys):
    """It has the trained one's size and level, and is compared with what that makes of the same recordings."""
    nights, command = laboratory
    few = [part for value in ("passes=2", "learning_rate=1e-3", "batch_nights=2") for part in ("--set", value)]
    assert trainer.main([*command, "--out", str(tmp_path / "out"), *few]) == 0
    printed = capsys.readouterr().out
    assert "Only 3 subjects have night files, so each one is the test subject of one fold" in printed
    assert f"fold 0 begins with {trained / 'out/synthetic/1'}: validation accuracy 0." in printed
    assert "It is not certain that adapting helped: on 1 test subject (too few to tell)" in printed
    fold, began = tmp_path / "out/custom/0", trained / "out/synthetic/1"
    ours, theirs = (json.loads((folder / "metadata.json").read_text()) for folder in (fold, began))
    assert ours["init"] == theirs["sha256"]["model.weights.h5"]
    assert ours["config"]["model"] == theirs["config"]["model"]
    assert ours["recipe"]["level"] == theirs["recipe"]["level"]
    assert ours["split"]["test"] == [0] and len((fold / "log.csv").read_text().splitlines()) == 3
    # The network as it was stages the night as predict.py does with its recording.
    staged = recsleep.stage(nights / "subject0_a.npz", began, smooth=False)
    before = pd.read_csv(fold / "predictions_before/subject0_a.csv")
    np.testing.assert_allclose(before[["W", "N1", "N2", "N3", "REM"]], staged.probabilities, atol=2e-6)
    told = json.loads((tmp_path / "out/custom/pooled/fold_0/figures.json").read_text())
    assert told["adaptation"]["before"]["accuracy"] == np.mean(before["scored"] == before["predicted"])
    assert_evaluated_again(tmp_path / "out", nights, tmp_path, (0,))


def test_adapting_that_does_not_help_ends_early_and_changes_nothing(laboratory, trained, tmp_path, capsys, monkeypatch):
    """Also if it was killed when all passes were done. Of several networks, each fold begins with the next one."""
    for number in (0, 1):
        shutil.copytree(trained / "out/synthetic/1", tmp_path / f"several/{number}")
    folds = ["--from_fold", "1", "--to_fold", "1", "--init", str(tmp_path / "several")]
    command = [*laboratory[1], *folds, "--out", str(tmp_path), "--set", "learning_rate=1e-9", "--set", "patience=2"]
    with monkeypatch.context() as patch:
        patch.setattr("recsleep.fold.FoldTrainer.finish", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert trainer.main(command) == 130
    assert trainer.main(command) == 0
    printed = capsys.readouterr().out
    assert f"fold 1 begins with {tmp_path}/several/1: validation" in printed
    assert "fold 1 continues after pass 2 of 30" in printed and "the weights stay as before" in printed
    assert_same_weights(tmp_path / "custom/1", trained / "out/synthetic/1")
    metadata = json.loads((tmp_path / "custom/1/metadata.json").read_text())
    assert metadata["best"]["pass"] == 0 and metadata["before"] == metadata["test"]


@pytest.mark.parametrize(
    ("best", "done", "ended"),
    [(None, 9, False), (0, 4, False), (0, 5, True), (4, 6, False), (4, 7, True)],
)
def test_passes_that_are_not_judged_try_no_patience(best, done, ended):
    """Two passes of reconstruction, and a patience of three."""
    from recsleep.fold import FoldTrainer

    training = configure("ucddb", ["patience=3", "reconstruction_passes=2"]).training
    run = SimpleNamespace(config=SimpleNamespace(training=training), history=[{}] * done)
    run.best = None if best is None else {"pass": best}
    assert FoldTrainer.ended.fget(run) is ended


def test_a_network_is_not_tested_on_what_it_learnt_from(trained, tmp_path, capsys):
    """Fold 1 tests subjects 2 and 3; others would begin with what was trained on the nights that they test.

    That is told before any fold is trained.
    """
    places = ["--data", trained / "nights", "--out", tmp_path, "--init", trained / "out/synthetic/1"]
    assert trainer.main(options("--from_fold", 1, "--to_fold", 2, *places)) == 2
    assert re.search(r"was trained on synthetic\d+\.npz, a test night of fold 2: begin", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_killed_at_any_moment_ends_with_the_same_weights(trained, project, tmp_path, capsys):
    fold = tmp_path / "synthetic/1"
    rng = np.random.default_rng()
    kills = 0
    # What a kill in the middle of a write leaves.
    (fold / "predictions").mkdir(parents=True)
    (fold / ".unfinished-log-x.csv").touch()
    # Killed after passes 1 (the end of the first phase) and 3, each a little later.
    for wanted in (1, 3):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        process = start(project, *of_fold_1(trained, tmp_path), **quiet)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            passes = [int(path.name) for path in fold.glob("progress/*") if path.name.isdigit()]
            if passes and max(passes) >= wanted:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    if not (fold / "metadata.json").exists():
        # An unfinished fold is not mistaken for a model.
        assert predict.main(["--db", "synthetic", "--dir", str(tmp_path), "--data", str(trained / "nights")]) == 2
    assert trainer.main(options(*of_fold_1(trained, tmp_path))) == 0
    printed = capsys.readouterr().out
    assert "continues after pass" in printed or "finished" in printed
    assert_same_weights(fold, trained / "out/synthetic/1")
    assert not (fold / "progress").exists()
    assert not list(fold.rglob(".*"))
    with (fold / "log.csv").open() as file:
        assert [row["pass"] for row in csv.DictReader(file)] == [str(number) for number in range(1, 6)]


@pytest.mark.parametrize("transductive", [False, True])
def test_validation_and_test_signals_train_only_when_asked(tmp_path, transductive):
    """And then in the first phase alone, which uses no labels."""
    from data.nights.folds import Split
    from data.nights.index import NightFile
    from recsleep.fold import FoldTask, FoldTrainer

    config = configure("ucddb", [f"transductive={transductive}", "reconstruction_passes=1"])
    nights = {subject: [NightFile(Path(f"ucddb{subject:03d}.npz"), 20, 1.0, 0.0, 0)] for subject in (2, 3, 5, 6)}
    trainer = FoldTrainer(FoldTask(config, Split(0, (3, 5), (6,), (2,)), nights, tmp_path))
    first, second = ({night.path.stem for night in trainer.order(number)} for number in (0, 1))
    assert first == {"ucddb003", "ucddb005"} | ({"ucddb002", "ucddb006"} if transductive else set())
    assert second == {"ucddb003", "ucddb005"}


OF_VERSION_1 = [
    *("filters=4", "lstm_units=4", "block_kernel=3", "first_kernel=20", "reconstruction_passes=1", "passes=3"),
    *("subjects=(2,3,5,6)", "folds=4", "batch_nights=2", "window_epochs=10"),
]


@pytest.fixture
def saved_by_version_1(tmp_path, make_night, project):
    """The trainer's arguments for fold 0, finished by the first version, and fold 1, stopped after pass 2 of 4."""
    with zipfile.ZipFile(project / "tests/fixtures/folds_saved_by_version_1.zip") as file:
        file.extractall(tmp_path / "out")
    for subject in (2, 3, 5, 6):
        make_night(tmp_path / f"nights/ucddb{subject:03d}.npz", 30, seed=subject)
    settings = [part for value in OF_VERSION_1 for part in ("--set", value)]
    where = ["--data", tmp_path / "nights", "--out", tmp_path / "out", "--to_fold", 1]
    return ["--db", "ucddb", *settings, *map(str, where)]


def test_folds_of_the_first_version_are_skipped_and_continued(saved_by_version_1, tmp_path, capsys):
    out = tmp_path / "out/ucddb"
    finished = (out / "0/metadata.json").read_bytes()
    started = (out / "1/log.csv").read_text().splitlines()
    assert trainer.main([*saved_by_version_1, "--set", "night_patterns=('ucddb{subject:03d}.*',)"]) == 0
    printed = capsys.readouterr().out
    assert "fold 0 is finished: skipped" in printed and "fold 1 continues after pass 2 of 4" in printed
    assert (out / "0/metadata.json").read_bytes() == finished
    log = (out / "1/log.csv").read_text().splitlines()
    assert log[:3] == started and len(log) == 5
    assert_evaluated_again(tmp_path / "out", tmp_path / "nights", tmp_path, (0, 1), of_version_1=(0,))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("learning_rate=0.1", "learning_rate 0.0001, not 0.1"),
        ("seed=7", "seed 42, not 7"),
        ("folds=2", "folds 4, not 2"),
    ],
)
def test_another_run_is_refused(saved_by_version_1, setting, told, capsys):
    for first in ("0", "1"):
        assert trainer.main([*saved_by_version_1, "--from_fold", first, "--set", setting]) == 2
        assert f"was trained with {told}: use --suffix or --out" in capsys.readouterr().err


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
def test_damaged_progress_is_told(saved_by_version_1, tmp_path, spoil, capsys):
    spoil(tmp_path / "out/ucddb/1/progress/2")
    assert trainer.main([*saved_by_version_1, "--from_fold", "1"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("trainer.py: error: ") and "progress" in error


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
        ({"y": None}, "no array 'y'"),
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
    ("lines", "told"),
    [
        ("2\nucddb003\n18\n", "1 of 3 subjects in --subjects have no night file in"),
        ("2\nucddb004\n", "line 2 of list.txt, 'ucddb004', names no subject of ucddb"),
        ("2\n3\n", "--set folds=3: with 2 subjects"),
    ],
)
def test_wrong_lists_of_subjects(tmp_path, ucddb, monkeypatch, capsys, lines, told):
    monkeypatch.chdir(tmp_path)
    (ucddb / "ucddb018.npz").unlink()
    Path("list.txt").write_text(lines)
    arguments = ["--db", "ucddb", "--data", str(ucddb), "--subjects", "list.txt", "--set", "folds=3"]
    assert trainer.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("trainer.py: error: ") and told in error
    assert not (tmp_path / "output").exists()


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
        (["--db", "ucddb", "--suffix", "../x"], "leave out / and"),
        (["--db", "ucddb", "--gpu", "-2"], "--gpu -2"),
        (["--db", "ucddb", "--init", "absent"], "--init absent does not exist"),
        (["--db", "ucddb", "--spec", "lab.toml"], "give --db custom with it, not --db ucddb"),
        (["--db", "shhs", "--model", "synthsleepnet", "--init", "absent"], "--init absent does not exist"),
        (["--db", "custom"], "name the channel to stage with --set channel=NAME"),
        *(
            (
                ["--db", "ucddb", option, value],
                f"RecSleepNet has no {option}: leave that out, or add --model synthsleepnet",
            )
            for option, value in (
                *(("--tcm", "mamba2"), ("--task", "sleep_stage"), ("--label_fraction", "1"), ("--preset", "paper")),
                *(("--step", "unimodal"), ("--modality", "eeg"), ("--strategy", "mirrored")),
            )
        ),
        (["--db", "shhs", "--model", "synthsleepnet", "--label_fraction", "0"], "above 0 and at most 1"),
        *(
            (["--db", "shhs", "--model", "neuronet", option, value], told)
            for option, value, told in (
                (
                    "--step",
                    "multimodal",
                    "because it uses one modality: choose one of unimodal, linear_probing, fine_tuning",
                ),
                ("--modality", "eeg", "it takes one EEG channel, which --set channel=NAME names"),
                ("--task", "apnea", "NeuroNet learns only sleep stages"),
                ("--protocol", "corrected", "always trained by its own protocol"),
                ("--preset", "paper", "choose one of mini, base, tiny"),
            )
        ),
        (
            ["--db", "ucddb", "--without", "average", "--without", "maximum"],
            "another --without means global_pooling=maximum: give only one",
        ),
        (
            ["--db", "ucddb", "--without", "contrast"],
            "recsleepnet has no such part to leave out: choose crb, average, maximum",
        ),
        (
            ["--db", "shhs", "--model", "synthsleepnet", "--without", "contrast", "--without", "masked_prediction"],
            "so pretraining could learn nothing",
        ),
    ],
)
def test_wrong_arguments(arguments, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trainer.main(arguments) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["KERAS_BACKEND", "keras.json"])
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflwo"])
def test_another_backend_of_keras_is_refused_before_any_work(tmp_path, monkeypatch, capsys, where, backend):
    settings = tmp_path / ".keras" / "keras.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"backend": backend if where == "keras.json" else "tensorflow"}))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "" if where == "keras.json" else backend)
    assert trainer.main(options("--data", tmp_path / "nights", "--out", tmp_path / "out", "--dry-run")) == 2
    named = settings if where == "keras.json" else where
    assert capsys.readouterr().err == (
        f"trainer.py: error: training needs TensorFlow, but {named} names {backend} as the backend of Keras: set the "
        "environment variable KERAS_BACKEND to tensorflow.\n"
    )
    assert list(tmp_path.iterdir()) == [settings.parent]


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


def test_unknown_option_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        trainer.main(["--db", "isruc", "--folds", "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
