"""SynthSleepNet's training as users run it: from night files to encoders, killed and continued, given wrong input."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import predict
import trainer
from config import STAGES, TASKS, TCMS
from model_folder import load_model
from synth.downstream import FineTuning, Head
from synth.neuronet import NeuroNetEncoder
from synth.replicas import replicas
from synth.synthsleepnet import SynthSleepNetEncoder
from synth.training import Learner

# One process for all: the other would train the same again.
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("pretraining")]

# With this seed nearly every subject has events of both kinds.
SETTINGS = (
    *("subjects=(0,1,2,3,4,5)", "folds=3", "hours=0.2", "synthetic_seed=42"),
    *("round_nights=2", "labelled_subjects=2"),
)


def command(*arguments: str | Path) -> list[str]:
    settings = [part for value in SETTINGS for part in ("--set", value)]
    return ["--model", "synthsleepnet", "--db", "synthetic", "--preset", "tiny", *settings, *map(str, arguments)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(project: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    whole = [sys.executable, "trainer.py", *arguments]
    return subprocess.run(whole, cwd=project, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Fold 1, two modalities, undisturbed: the folder of nights and results, and what was printed."""
    project = Path(__file__).resolve().parent.parent.parent
    folder = tmp_path_factory.mktemp("pretrained")
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    arguments += ["--modality", "emg", "--modality", "eeg", "--set", "probing_passes=20"]
    done = subprocess.run(
        [sys.executable, "trainer.py", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_every_step_leaves_an_encoder_and_its_log(trained):
    folder, printed = trained
    assert "3 subjects train, 2 of them with labels; 1 validate, 2 test" in printed
    fold = folder / "out" / "synthetic" / "1"
    for step in ("unimodal/eeg", "unimodal/emg", "multimodal/eeg-emg"):
        names = {"config.json", "model.weights.h5", "metadata.json", "log.csv", "tensorboard"}
        assert {path.name for path in (fold / step).iterdir()} - {"embeddings"} == names
        with (fold / step / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["pass"] for row in rows] == ["1", "1", "2", "2"]
        assert [bool(row["val_macro_f1"]) for row in rows] == [False, True, False, True]
        best = max(float(row["val_macro_f1"]) for row in rows if row["val_macro_f1"])
        assert json.loads((fold / step / "metadata.json").read_text())["best"]["macro_f1"] == best


@pytest.mark.parametrize("fraction", [0.5, 1])
@pytest.mark.parametrize("task", TASKS)
def test_probing_every_task(trained, capsys, task, fraction):
    """On the embeddings that the first run stored."""
    folder, _ = trained
    fold = folder / "out" / "synthetic" / "1"
    stored = {path: path.stat().st_mtime_ns for path in (fold / "multimodal" / "eeg-emg" / "embeddings").iterdir()}
    assert len(stored) == 5
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    arguments += ["--modality", "eeg", "--modality", "emg", "--step", "linear_probing", "--task", task]
    assert trainer.main([*arguments, "--label_fraction", str(fraction), "--set", "probing_passes=20"]) == 0
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    results = fold / "linear_probing" / f"{task}_{fraction:g}" / "eeg-emg"
    metadata = json.loads((results / "metadata.json").read_text())
    table = pd.concat([pd.read_csv(results / "predictions" / f"synthetic{n:02d}.csv") for n in (2, 3)])
    assert metadata["test"]["epochs"] == len(table)
    assert metadata["test"]["accuracy"] == pytest.approx((table["scored"] == table["predicted"]).mean())
    nights = [np.load(folder / "nights" / f"synthetic{n:02d}.npz") for n in (2, 3)]
    names = nights[0]["event_names"].tolist()
    if task == "sleep_stage":
        expected = np.array(STAGES)[np.concatenate([night["y"] for night in nights])]
    else:
        columns = [names.index(name) for name in TASKS[task]]
        there = np.concatenate([night["events"][:, columns].any(axis=1) for night in nights])
        expected = np.where(there, task, f"no {task}")
    assert np.array_equal(table["scored"], expected)
    printed = capsys.readouterr().out
    # What the first run did already.
    done = (task, fraction) == ("sleep_stage", 1)
    assert (f"linear probing of {task} is finished: skipped" in printed) == done
    assert (f"accuracy {metadata['test']['accuracy']:.3f}" in printed) != done
    head = load_model(results, [Head])
    assert head.classes == (5 if task == "sleep_stage" else 2)


def test_labels_that_are_all_the_same_are_told(trained, tmp_path, capsys):
    folder, _ = trained
    nights, out = (shutil.copytree(folder / name, tmp_path / name) for name in ("nights", "out"))
    shutil.rmtree(out / "synthetic" / "1" / "multimodal" / "eeg-emg" / "embeddings")
    for path in nights.glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        arrays["events"] = np.zeros_like(arrays["events"])
        np.savez(path, **arrays)
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", nights, "--out", out, "--modality", "eeg")
    arguments += ["--modality", "emg", "--step", "linear_probing", "--task", "hypopnea", "--label_fraction", "0.9"]
    assert trainer.main(arguments) == 2
    assert "hold hypopnea in none of them" in capsys.readouterr().err


def test_subjects_are_apart(trained):
    folder, _ = trained
    metadata = json.loads((folder / "out" / "synthetic" / "1" / "multimodal" / "eeg-emg" / "metadata.json").read_text())
    split = metadata["split"]
    assert split["test"] == [2, 3]
    assert set(split["labelled"]) < set(split["train"]) and len(split["labelled"]) == 2
    assert sorted(split["train"] + split["validation"] + split["test"]) == list(range(6))
    assert metadata["nights"] == [f"synthetic{subject:02d}.npz" for subject in split["train"]]


def test_the_fusion_keeps_its_pretrained_backbones(trained):
    folder, _ = trained
    fold = folder / "out" / "synthetic" / "1"
    fusion = load_model(fold / "multimodal" / "eeg-emg", [SynthSleepNetEncoder])
    assert fusion.modalities == ("eeg", "emg")
    for modality, backbone in fusion.backbones.items():
        alone = load_model(fold / "unimodal" / modality, [NeuroNetEncoder])
        expected = {variable.path.partition("/")[2]: variable for variable in alone.weights}
        found = {v.path.rpartition(f"backbone_{modality}/")[2]: v for v in backbone.weights if "lora" not in v.name}
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)
        learnt = [v for v in backbone.weights if v.name == "lora_b"]
        assert learnt and all(np.any(v) for v in learnt)


def test_killed_and_continued_ends_with_the_same_weights(trained, project, tmp_path):
    folder, _ = trained
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", tmp_path)
    arguments += ["--modality", "eeg", "--step", "unimodal"]
    step = tmp_path / "synthetic" / "1" / "unimodal" / "eeg"
    process = subprocess.Popen([sys.executable, "trainer.py", *arguments], cwd=project, start_new_session=True)
    while process.poll() is None and not (step / "progress" / "1").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (step / "progress").is_dir() and not (step / "metadata.json").exists()
    done = subprocess.run(
        [sys.executable, "trainer.py", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unimodal/eeg continues after round" in done.stdout
    assert not (step / "progress").exists()
    ours, undisturbed = (
        load_model(out / "synthetic" / "1" / "unimodal" / "eeg", [NeuroNetEncoder]).get_weights()
        for out in (tmp_path, folder / "out")
    )
    assert all(np.array_equal(a, b) for a, b in zip(ours, undisturbed, strict=True))


def test_what_is_finished_is_skipped(trained, capsys):
    folder, _ = trained
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    assert trainer.main([*arguments, "--modality", "eeg", "--step", "unimodal"]) == 0
    assert "unimodal/eeg is finished: skipped" in capsys.readouterr().out
    other = [*arguments, "--modality", "eeg", "--step", "unimodal", "--set", "unimodal_passes=9"]
    assert trainer.main(other) == 2
    assert "trained with unimodal_passes 2, not 9" in capsys.readouterr().err


def test_a_night_without_a_modality_is_left_out_and_said(trained, tmp_path, capsys):
    folder, _ = trained
    nights = shutil.copytree(folder / "nights", tmp_path / "nights")
    with np.load(nights / "synthetic05.npz") as file:
        arrays = dict(file)
    kept = arrays["ch_names"] != "EMG"
    arrays["x"], arrays["ch_names"] = arrays["x"][:, kept], arrays["ch_names"][kept]
    np.savez(nights / "synthetic05.npz", **arrays)
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", nights, "--out", tmp_path / "out")
    assert trainer.main([*arguments, "--modality", "emg", "--step", "multimodal"]) == 2
    told = capsys.readouterr()
    assert "left out: " in told.out + told.err and "synthetic05.npz has no channel 'EMG'" in told.out + told.err
    assert "2 subjects train" in told.out
    assert "holds no pretrained emg encoder: run --step unimodal --modality emg first" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--db", "isruc", "--step", "unimodal"], "add --model synthsleepnet"),
        (["--db", "isruc", "--model", "synthsleepnet"], "names no channel for eeg, eog, emg"),
        (["--db", "shhs", "--model", "synthsleepnet", "--set", "modalities=(('eeg',),)"], "pairs such as"),
        (["--db", "shhs", "--model", "synthsleepnet", "--set", "frame_step_seconds=9"], "of the 3 frames of an epoch"),
    ],
)
def test_bad_commands_are_told(arguments, told, tmp_path, capsys):
    assert trainer.main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def learner_of(values, accumulation):
    """A learner of one weight, whose loss is that weight times the batch's mean."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])

    def losses(inputs):
        return {"loss": keras.ops.mean(network(inputs))}

    about = {"rate": 0.1, "updates": 10**9, "weight_decay": 0.01, "clip_norm": 100.0}
    learner = Learner(network, losses, **about, accumulation=accumulation, replicas=replicas(None))
    found = learner.step(np.array(values, "float32")[:, None])
    return float(found["loss"]), network.get_weights()[0].item()


def test_gradients_are_accumulated():
    """Two batches make the update that one of them all makes."""
    assert learner_of([1, -2, 5, 8], 2) == pytest.approx(learner_of([1, -2, 5, 8], 1), rel=1e-6)
    assert learner_of([1, -2, 5, 8], 1)[1] != 1


@pytest.mark.parametrize("tcm", TCMS)
def test_fine_tuning(trained, capsys, tcm):
    folder, _ = trained
    fold = folder / "out" / "synthetic" / "1"
    task, fraction = {"mamba2": ("sleep_stage", 1), "mamba": ("apnea", 0.5)}.get(tcm, ("hypopnea", 1))
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    arguments += ["--modality", "eeg", "--modality", "emg", "--step", "fine_tuning", "--set", "probing_passes=20"]
    assert trainer.main([*arguments, "--tcm", tcm, "--task", task, "--label_fraction", str(fraction)]) == 0
    assert ("is finished: skipped" in capsys.readouterr().out) == (tcm == "mamba2")
    results = fold / "fine_tuning" / f"{task}_{fraction:g}" / "eeg-emg" / tcm
    metadata = json.loads((results / "metadata.json").read_text())
    table = pd.concat([pd.read_csv(results / "predictions" / f"synthetic{n:02d}.csv") for n in (2, 3)])
    nights = [np.load(folder / "nights" / f"synthetic{n:02d}.npz") for n in (2, 3)]
    assert len(table) == metadata["test"]["epochs"] == sum((night["y"] >= 0).sum() for night in nights)
    assert metadata["test"]["accuracy"] == pytest.approx((table["scored"] == table["predicted"]).mean())
    with (results / "log.csv").open() as file:
        scores = [float(row["val_macro_f1"]) for row in csv.DictReader(file)]
    assert metadata["best"] == {"pass": 1 + int(np.argmax(scores)), "macro_f1": max(scores)}
    # Nothing but LoRA and the classifier has learnt.
    network = load_model(results, [FineTuning])
    fusion = load_model(fold / "multimodal" / "eeg-emg", [SynthSleepNetEncoder])
    for name, backbone in network.encoder.backbones.items():
        tuned = [v for v in backbone.weights if not v.name.startswith("lora")]
        before = [v for v in fusion.backbones[name].weights if not v.name.startswith("lora")]
        assert all(np.array_equal(a, b) for a, b in zip(tuned, before, strict=True))
        assert any(np.any(v) for v in backbone.weights if v.name == "lora_b" and "linear" in v.path)


def test_evaluation_equals_what_training_found(trained, tmp_path, capsys):
    folder, _ = trained
    fold = folder / "out" / "synthetic" / "1"
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", folder / "out")
    arguments += ["--modality", "eeg", "--modality", "emg", "--step", "fine_tuning", "--set", "probing_passes=20"]
    for task in TASKS:
        assert trainer.main([*arguments, "--task", task]) == 0
    evaluated = ["--model", "synthsleepnet", "--db", "synthetic", "--data", str(folder / "nights")]
    evaluated += ["--dir", str(folder / "out"), "--save", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    capsys.readouterr()
    assert predict.main(evaluated) == 0
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "figures.json").read_text())
    found = {(model["task"], model["variant"]): model for model in told["models"]}
    for task in TASKS:
        metadata = json.loads((fold / "fine_tuning" / f"{task}_1" / "eeg-emg" / "mamba2" / "metadata.json").read_text())
        ours = found[task, "eeg-emg mamba2, 1 of the labels"]
        figures = ("accuracy", "macro_f1", "kappa", "epochs")
        assert [ours[name] for name in figures] == pytest.approx([metadata["test"][name] for name in figures])
    (index,) = (part for part in told["indices"] if "mamba2, 1" in part["variant"])
    assert [night["night"] for night in index["nights"]] == ["synthetic02", "synthetic03"]
    # Counted here from the night file: runs of epochs with an event, over hours of scored sleep.
    with np.load(folder / "nights" / "synthetic02.npz") as file:
        y, names = file["y"], file["event_names"].tolist()
        there = file["events"][:, [names.index(name) for name in (*TASKS["apnea"], *TASKS["hypopnea"])]].any(axis=1)
    runs = len([run for run in "".join(map(str, there.astype(int))).split("0") if run])
    assert index["nights"][0]["scored"] == pytest.approx(runs / ((y > 0).sum() / 120))
    assert "estimated from epochs, against the scored one" in printed
    assert (tmp_path / "synthetic" / f"bland-altman {index['variant']}.png").stat().st_size > 5000


def test_two_workers_train_as_one(trained, project, tmp_path):
    folder, _ = trained
    arguments = command("--from_fold", 1, "--to_fold", 1, "--data", folder / "nights", "--out", tmp_path)
    arguments += ["--modality", "eeg", "--step", "unimodal", "--strategy", "multiworker"]
    ports = [free_port() for _ in range(2)]
    workers = []
    for index in (0, 1):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        told = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        workers.append(
            subprocess.Popen(
                [sys.executable, "trainer.py", *arguments],
                cwd=project,
                env=os.environ | {"TF_CONFIG": told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    step = Path("synthetic") / "1" / "unimodal" / "eeg"
    shared, alone = (pd.read_csv(out / step / "log.csv") for out in (tmp_path, folder / "out"))
    assert len(shared) == 4
    assert np.allclose(shared["loss"], alone["loss"], rtol=1e-3), (shared["loss"], alone["loss"])
    assert shared["loss"][0] == pytest.approx(alone["loss"][0], rel=1e-5)


def test_a_strategy_without_its_cluster_is_told(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    arguments = command("--data", folder / "nights", "--out", tmp_path, "--strategy", "multiworker", "--to_fold", 0)
    assert trainer.main(arguments) == 2
    assert "--strategy multiworker needs the environment variable TF_CONFIG" in capsys.readouterr().err
