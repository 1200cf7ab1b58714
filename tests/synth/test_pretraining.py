"""SynthSleepNet's training as users run it: recordings to test figures, killed and continued, given wrong input."""

import csv
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from nearest import macro_f1, nearest_stages
from recordings import as_shhs

import predict
import trainer
from data.nights.folds import Split
from data.nights.index import NightFile
from data.nights.night import read_night
from data.prepare.__main__ import main as prepare
from data.prepare.synthetic import make_night
from data.recipe import Recipe
from data.terms import STAGES, TASKS, InputError
from runs.networks import load_model
from runs.settings import configure
from synth.learner import Learner
from synth.models.classifier import FineTuning, Head
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetEncoder
from synth.predictor import FineTunedPredictor
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.pretraining import PretrainingStep
from synth.steps.probing import LinearProbingStep
from synth.steps.step import Fold
from synth.terms import TCMS

# One process for all: the other would train the same again.
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("pretraining"),
    pytest.mark.usefixtures("small_backbone"),
]

PROJECT = Path(__file__).resolve().parent.parent.parent
TRAINER = [sys.executable, str(PROJECT / "tests" / "small_backbone.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROJECT)}

# With this seed the few labels of the smallest fraction are of several kinds for every task.
SETTINGS = (
    *("folds=3", "round_nights=3", "labelled_subjects=5", "seed=270", "knn_nights=1", "probing_passes=8"),
    "multimodal_passes=1",
)
# Every task with all labels and with few.
SHARES = [(task, fraction) for task, few in zip(TASKS, (0.05, 0.01, 0.05), strict=True) for fraction in (few, 1)]
SUBJECTS = range(200001, 200010)
MODALITIES = ("--modality", "airflow", "--modality", "eeg")


def command(folder: Path, *arguments: str | Path) -> list[str]:
    """The trainer's arguments for fold 1 of the nights in ``folder``, whose results go there too."""
    settings = [part for value in SETTINGS for part in ("--set", value)]
    where = ["--data", folder / "nights", "--out", folder / "out", "--from_fold", 1, "--to_fold", 1]
    whole = ["--model", "synthsleepnet", "--db", "shhs", "--preset", "tiny", *settings, *where, *arguments]
    return [str(argument) for argument in whole]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def synthetic():
    """Nine synthetic nights of some 18 minutes, by subject."""
    config = configure("synthetic", ["hours=0.3", "synthetic_seed=2"]).synthetic
    return {subject: make_night(number, config) for number, subject in enumerate(SUBJECTS)}


@pytest.fixture(scope="module")
def trained(synthetic, small_backbone, tmp_path_factory):  # noqa: ARG001
    """From EDF and XML to fold 1's test figures, undisturbed: the folder of it all, and what was printed."""
    folder = tmp_path_factory.mktemp("pretrained")
    for subject, night in synthetic.items():
        as_shhs(folder / "raw", subject, night)
    channels = ["--select_ch", "EEG_C4", "Airflow"]
    where = ["--data", str(folder / "raw"), "--out", str(folder / "nights")]
    assert prepare(["--db", "shhs", *where, *channels]) == 0
    with redirect_stdout(io.StringIO()) as printed:
        assert trainer.main(command(folder, *MODALITIES)) == 0
    return folder, printed.getvalue()


def fold_of(folder: Path) -> Path:
    return folder / "out" / "shhs" / "1"


def labels_of(synthetic: dict, task: str, subjects: list[int]) -> np.ndarray:
    """What the synthetic nights hold, by name."""
    nights = [synthetic[subject] for subject in subjects]
    if task == "sleep_stage":
        return np.array(STAGES)[np.concatenate([night["y"] for night in nights])]
    columns = [nights[0]["event_names"].tolist().index(name) for name in TASKS[task]]
    there = np.concatenate([night["events"][:, columns].any(axis=1) for night in nights])
    return np.where(there, task, f"no {task}")


def test_every_step_leaves_an_encoder_and_its_log(trained):
    folder, printed = trained
    assert "5 subjects train, 5 of them with labels; 1 validate, 3 test" in printed
    where = shlex.join(["--dir", str(folder / "out" / "shhs"), "--data", str(folder / "nights")])
    assert f"Evaluate again: python predict.py --model synthsleepnet --db shhs {where} --fold 1\n" in printed
    for step in ("unimodal/eeg", "unimodal/airflow", "multimodal/eeg-airflow"):
        names = {"config.json", "model.weights.h5", "metadata.json", "MODEL_CARD.md", "log.csv", "tensorboard"}
        names.add("embedding.png")
        assert {path.name for path in (fold_of(folder) / step).iterdir()} - {"embeddings"} == names
        with (fold_of(folder) / step / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        passes = 1 if step.startswith("multimodal") else 2
        assert [row["pass"] for row in rows] == ["1", "1", "2", "2"][: 2 * passes]
        assert [bool(row["val_macro_f1"]) for row in rows] == [False, True] * passes
        best = max(float(row["val_macro_f1"]) for row in rows if row["val_macro_f1"])
        assert json.loads((fold_of(folder) / step / "metadata.json").read_text())["best"]["macro_f1"] == best


@pytest.mark.parametrize(
    ("step", "kind"), [("unimodal/eeg", NeuroNetEncoder), ("multimodal/eeg-airflow", SynthSleepNetEncoder)]
)
def test_pretrained_networks_are_tested_by_nearest_neighbours(trained, step, kind):
    """Each on the best network, and as NumPy finds it with the night of a labelled and of a test subject."""
    folder, printed = trained
    metadata = json.loads((fold_of(folder) / step / "metadata.json").read_text())
    split, recipe, encoder = metadata["split"], Recipe.of_metadata(metadata), load_model(fold_of(folder) / step, [kind])

    def embedded(subjects):
        # One of them is drawn, the same in every run; see knn_nights.
        subject = subjects[np.random.default_rng((270, 1)).permutation(len(subjects))[0]]
        night = read_night(folder / "nights" / f"shhs1-{subject}.npz", recipe.names)
        inputs = night.inputs(recipe)
        found = encoder(inputs["eeg"])[:, 0] if kind is NeuroNetEncoder else encoder(inputs)
        return keras.ops.convert_to_numpy(found), night.stages

    known, (asked, expected) = embedded(split["labelled"]), embedded(split["test"])
    found = nearest_stages(*known, asked, components=50, neighbours=5)
    assert metadata["test"]["epochs"] == len(expected)
    assert metadata["test"]["macro_f1"] == pytest.approx(macro_f1(expected, found))
    line = f"fold 1 {step}, test by nearest neighbours: accuracy {metadata['test']['accuracy']:.3f}"
    assert f"{line}   macro-F1 {metadata['test']['macro_f1']:.3f}" in printed
    assert (fold_of(folder) / step / "embedding.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("task", "fraction"), SHARES)
@pytest.mark.parametrize(("step", "tcm"), [("linear_probing", ""), ("fine_tuning", "mamba2")])
def test_every_task_by_either_step_with_any_share_of_the_labels(trained, synthetic, capsys, step, tcm, task, fraction):
    """From recordings to test figures, which are those of what the nights were made with."""
    folder, _ = trained
    fold = fold_of(folder)
    stored = {path: path.stat().st_mtime_ns for path in (fold / "multimodal/eeg-airflow/embeddings").iterdir()}
    assert len(stored) == 9
    results = fold / step / f"{task}_{fraction:g}" / "eeg-airflow" / tcm
    done = (results / "metadata.json").exists()
    assert trainer.main(command(folder, *MODALITIES, "--step", step, "--task", task, "--label_fraction", fraction)) == 0
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    metadata = json.loads((results / "metadata.json").read_text())
    subjects = metadata["split"]["test"]
    tables = [pd.read_csv(results / "predictions" / f"shhs1-{subject}.csv") for subject in subjects]
    table = pd.concat(tables)
    assert np.array_equal(table["scored"], labels_of(synthetic, task, subjects))
    assert metadata["test"]["epochs"] == len(table)
    assert ("threshold" in metadata) == (task != "sleep_stage") and 0 < metadata.get("threshold", 0.5) < 1
    assert metadata["test"]["accuracy"] == pytest.approx((table["scored"] == table["predicted"]).mean())
    printed = capsys.readouterr().out
    # Another test may have done that already.
    assert ("is finished: skipped" in printed) == done
    # As the fold's own figure, and as that of all folds together, which are one.
    assert printed.count(f"accuracy {metadata['test']['accuracy']:.3f}   ") == (1 if done else 2)
    name = f"Fine-tuning for {task} ({tcm})" if tcm else f"Linear probing of {task}"
    assert f"{name}, test subjects of fold 1, pooled: accuracy" in printed
    assert f"published on Sleep Heart Health Study{'' if task == 'sleep_stage' else f', {task}'}, SynthSle" in printed
    pooled = json.loads((folder / "out/shhs/pooled" / results.relative_to(fold) / "figures.json").read_text())
    for figure, value in metadata["test"].items():
        if isinstance(value, float):
            assert pooled[figure] == pytest.approx(value, abs=1e-3), figure
    assert pooled["subjects"] == len(subjects) and len(pooled["intervals_95"]["macro_f1"]) == 2
    assert load_model(results, [Head, FineTuning]) is not None
    chosen_by = "macro_f1" if task == "sleep_stage" else "average_precision"
    with (results / "log.csv").open() as file:
        scores = [float(row[f"val_{chosen_by}"]) for row in csv.DictReader(file)]
    assert metadata["best"] == {"pass": 1 + int(np.argmax(scores)), chosen_by: max(scores)}


@pytest.fixture(scope="module")
def without_events(trained, tmp_path_factory):
    """A fine-tuning for apnea in bfloat16, whose validation night holds none: its folder, and what was printed."""
    folder, fold = tmp_path_factory.mktemp("without_events"), fold_of(trained[0])
    shutil.copytree(trained[0] / "nights", folder / "nights")
    shutil.copytree(fold / "multimodal", fold_of(folder) / "multimodal")
    split = json.loads((fold / "multimodal/eeg-airflow/metadata.json").read_text())["split"]
    without(folder / "nights" / f"shhs1-{split['validation'][0]}.npz")
    arguments = ["--step", "fine_tuning", "--task", "apnea", "--tcm", "lstm", "--set", "precision=mixed_bfloat16"]
    with redirect_stdout(io.StringIO()) as printed:
        assert trainer.main(command(folder, *MODALITIES, *arguments)) == 0
    return fold_of(folder) / "fine_tuning/apnea_1/eeg-airflow/lstm", printed.getvalue()


def without(night: Path) -> None:
    """Remove the breathing events of a night."""
    with np.load(night) as file:
        arrays = dict(file)
    arrays["events"] = np.zeros_like(arrays["events"])
    np.savez(night, **arrays)


def test_validation_nights_without_an_event_choose_no_pass(without_events):
    """Whoever never finds an event would have a macro-F1 of 1 on them."""
    folder, printed = without_events
    assert json.loads((folder / "metadata.json").read_text())["best"] == {"pass": 2, "average_precision": None}
    assert "hold apnea in none of their epochs, or in all of them, so that no pass can be chosen" in printed
    assert FineTunedPredictor(folder).rank == (1, -1)


def test_what_was_trained_in_bfloat16_is_tested_in_float32(without_events):
    folder, _ = without_events
    model = FineTunedPredictor(folder)
    for subject in model.metadata["split"]["test"]:
        night = read_night(folder.parents[6] / "nights" / f"shhs1-{subject}.npz", model.recipe.names)
        found = pd.read_csv(folder / "predictions" / f"shhs1-{subject}.csv")["apnea"]
        assert np.allclose(model.probabilities(night.inputs(model.recipe))[:, 1], found, atol=1e-6)


@pytest.mark.parametrize(("reconstruction", "contrastive"), [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0)])
def test_the_parts_of_the_loss_have_their_weights(tmp_path, reconstruction, contrastive):
    step = step_of(tmp_path, 10, reconstruction_weight=reconstruction, contrastive_weight=contrastive)
    step.prepare()
    rng = np.random.default_rng(0)
    noise = rng.random((4, 2, step.network.encoder.frames), "float32")
    found = step.losses({"signals": rng.normal(size=(4, 3000)).astype("float32"), "noise": noise})
    parts = {name: float(value) for name, value in found.items()}
    assert min(parts["reconstruction"], parts["contrastive"]) > 0.1
    expected = reconstruction * parts["reconstruction"] + contrastive * parts["contrastive"]
    assert parts["loss"] == pytest.approx(expected, rel=1e-6)


def test_without_lora_the_fusion_changes_nothing_of_the_encoders(trained, tmp_path, capsys):
    """From its pretraining to a fine-tuned model; and no fold is mixed of both."""
    folder, _ = trained
    ablation = ["--without", "fusion_lora"]
    assert trainer.main(command(folder, *MODALITIES, "--step", "multimodal", *ablation)) == 2
    assert "was trained with fusion_adaptation_rank 4, not 0: use --suffix or --out" in capsys.readouterr().err
    prepared(folder, tmp_path)
    shutil.rmtree(fold_of(tmp_path) / "multimodal")
    shutil.copytree(fold_of(folder) / "unimodal", fold_of(tmp_path) / "unimodal")
    for step in ("multimodal", "fine_tuning"):
        once = ["--set", "fine_tuning_passes=1", "--tcm", "none"]
        assert trainer.main(command(tmp_path, *MODALITIES, "--step", step, *ablation, *once)) == 0
    fusion = load_model(fold_of(tmp_path) / "multimodal/eeg-airflow", [SynthSleepNetEncoder])
    for name, backbone in fusion.backbones.items():
        alone = load_model(fold_of(tmp_path) / "unimodal" / name, [NeuroNetEncoder])
        assert all(np.array_equal(a, b) for a, b in zip(backbone.get_weights(), alone.get_weights(), strict=True))
    tuned = load_model(fold_of(tmp_path) / "fine_tuning/sleep_stage_1/eeg-airflow/none", [FineTuning])
    assert {v.path.split("/")[-2] for v in tuned.encoder.weights if v.name == "lora_a"} == {
        "linear1",
        "linear2",
        "fc1",
        "fc2",
    }
    assert tuned.classifier.context is None


def step_of(folder: Path, epochs: int, **training) -> PretrainingStep:
    """The pretraining of one modality on nine nights of ``epochs`` each, which are not there."""
    config = configure("shhs", [f"{name}={value}" for name, value in training.items()], "tiny")
    nights = {subject: [NightFile(folder / f"shhs1-{subject}.npz", epochs, 1.0, 0.0, 0)] for subject in SUBJECTS}
    split = Split(0, tuple(SUBJECTS[2:]), (SUBJECTS[1],), (SUBJECTS[0],))
    return PretrainingStep(
        Fold(config, split, split.train, nights, folder, replicas(None)), "unimodal", {"eeg": "EEG_C4"}
    )


def test_every_round_makes_an_update(tmp_path):
    """However large the batch, and however few nights are left for the last round."""
    step = step_of(tmp_path, 10, round_nights=3, unimodal_batch=256, accumulation=2)
    step.prepare()
    assert [len(nights) for _, nights in step.rounds] == [3, 2, 2] * 2
    assert step.batch == 20 and step.steps == [1] * 6


def test_each_step_has_its_own_draws(trained, tmp_path):
    """They come from the step's name, which no message changes."""
    fold = replace(step_of(tmp_path, 10).fold, folder=fold_of(trained[0]))
    steps = {
        "unimodal/eeg": PretrainingStep(fold, "unimodal", {"eeg": "EEG_C4"}),
        "multimodal/eeg-airflow": PretrainingStep(fold, "multimodal", {"eeg": "EEG_C4", "airflow": "Airflow"}),
        "linear_probing/apnea": LinearProbingStep(fold, ("eeg", "airflow"), "apnea", 1),
        "fine_tuning/apnea/lstm": FineTuningStep(fold, ("eeg", "airflow"), "apnea", 1, "lstm"),
    }
    assert {name: step.seed for name, step in steps.items()} == {name: (42, 0, *name.encode()) for name in steps}


def test_rounds_that_are_too_small_to_learn_from_are_told(tmp_path):
    with pytest.raises(InputError, match="a round of training has 1 epochs, which are too few to learn from"):
        step_of(tmp_path, 1, round_nights=1).prepare()


@pytest.mark.parametrize("step", ["linear_probing", "fine_tuning"])
def test_labels_that_are_all_the_same_are_told(trained, tmp_path, capsys, step):
    fold = fold_of(trained[0])
    shutil.copytree(trained[0] / "nights", tmp_path / "nights")
    shutil.copytree(fold / "multimodal", fold_of(tmp_path) / "multimodal", ignore=shutil.ignore_patterns("embeddings"))
    for path in (tmp_path / "nights").glob("*.npz"):
        without(path)
    arguments = command(tmp_path, *MODALITIES, "--step", step, "--task", "apnea", "--set", "frozen_gib=0")
    assert trainer.main(arguments) == 2
    assert "hold apnea in none of them" in capsys.readouterr().err


def test_subjects_are_apart(trained):
    folder, _ = trained
    metadata = json.loads((fold_of(folder) / "multimodal/eeg-airflow/metadata.json").read_text())
    split = metadata["split"]
    assert len(split["test"]) == 3 and len(split["validation"]) == 1
    assert sorted(split["train"] + split["validation"] + split["test"]) == list(SUBJECTS)
    assert metadata["nights"] == [f"shhs1-{subject}.npz" for subject in split["train"]]


def test_the_fusion_keeps_its_pretrained_backbones(trained):
    folder, _ = trained
    fold = fold_of(folder)
    fusion = load_model(fold / "multimodal" / "eeg-airflow", [SynthSleepNetEncoder])
    assert fusion.modalities == ("eeg", "airflow")
    for modality, backbone in fusion.backbones.items():
        alone = load_model(fold / "unimodal" / modality, [NeuroNetEncoder])
        expected = {variable.path.partition("/")[2]: variable for variable in alone.weights}
        found = {v.path.rpartition(f"backbone_{modality}/")[2]: v for v in backbone.weights if "lora" not in v.name}
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in found)
        learnt = [v for v in backbone.weights if v.name == "lora_b"]
        assert learnt and all(np.any(v) for v in learnt)


def prepared(trained, folder: Path) -> Path:
    """A folder with the nights and the encoders of ``trained``."""
    (folder / "nights").symlink_to(trained / "nights")
    shutil.copytree(fold_of(trained) / "multimodal", fold_of(folder) / "multimodal")
    return folder


def assert_same_weights(one: Path, other: Path) -> None:
    kinds = [NeuroNetEncoder, Head, FineTuning]
    ours, theirs = (load_model(folder, kinds).get_weights() for folder in (one, other))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_killed_and_continued_ends_with_the_same_weights(trained, tmp_path, capsys):
    folder, _ = trained
    arguments = command(prepared(folder, tmp_path), "--modality", "eeg", "--step", "unimodal")
    results = fold_of(tmp_path) / "unimodal/eeg"
    process = subprocess.Popen([*TRAINER, *arguments], env=ENVIRONMENT, start_new_session=True)
    while process.poll() is None and not (results / "progress" / "1").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (results / "progress").is_dir() and not (results / "metadata.json").exists()
    assert trainer.main(arguments) == 0
    assert "continues after" in capsys.readouterr().out
    assert not (results / "progress").exists()
    assert_same_weights(results, fold_of(folder) / "unimodal/eeg")


@pytest.mark.parametrize(
    ("kind", "step", "results"),
    [
        (LinearProbingStep, "linear_probing", "linear_probing/sleep_stage_1/eeg-airflow"),
        (FineTuningStep, "fine_tuning", "fine_tuning/sleep_stage_1/eeg-airflow/mamba2"),
    ],
)
def test_interrupted_and_continued_ends_with_the_same_weights(
    trained, tmp_path, monkeypatch, capsys, kind, step, results
):
    folder, _ = trained
    arguments = command(prepared(folder, tmp_path), *MODALITIES, "--step", step)
    train = kind.train_unit

    def interrupted(self, number, advance):
        if number:
            raise KeyboardInterrupt
        return train(self, number, advance)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "train_unit", interrupted)
        assert trainer.main(arguments) != 0
    assert trainer.main(arguments) == 0
    assert "continues after pass 1 of" in capsys.readouterr().out
    assert_same_weights(fold_of(tmp_path) / results, fold_of(folder) / results)


def test_what_is_finished_is_skipped(trained, capsys):
    folder, _ = trained
    arguments = command(folder, "--modality", "eeg", "--step", "unimodal")
    assert trainer.main(arguments) == 0
    assert "unimodal/eeg is finished: skipped" in capsys.readouterr().out
    assert trainer.main([*arguments, "--set", "unimodal_passes=9"]) == 2
    assert "trained with unimodal_passes 2, not 9" in capsys.readouterr().err


def test_a_night_without_a_modality_is_left_out_and_said(trained, tmp_path, capsys):
    folder, _ = trained
    nights = shutil.copytree(folder / "nights", tmp_path / "nights")
    split = json.loads((fold_of(folder) / "multimodal/eeg-airflow/metadata.json").read_text())["split"]
    spoilt = nights / f"shhs1-{split['train'][0]}.npz"
    with np.load(spoilt) as file:
        arrays = dict(file)
    kept = arrays["ch_names"] != "Airflow"
    arrays["x"], arrays["ch_names"] = arrays["x"][:, kept], arrays["ch_names"][kept]
    np.savez(spoilt, **arrays)
    assert trainer.main(command(tmp_path, "--modality", "airflow", "--step", "multimodal")) == 2
    told = capsys.readouterr()
    assert f"left out: {spoilt} has no channel 'Airflow'" in told.out + told.err
    assert "4 subjects train" in told.out
    assert "holds no pretrained airflow encoder: run --step unimodal --modality airflow first" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--db", "isruc", "--step", "unimodal"], "add --model synthsleepnet"),
        (["--db", "isruc", "--model", "synthsleepnet"], "names no channel for eeg, eog, emg"),
        (["--db", "shhs", "--model", "synthsleepnet", "--set", "modalities=(('eeg',),)"], "names and channels such as"),
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

    about = {"rate": 0.1, "weight_decay": 0.01, "clip_norm": 100.0}
    learner = Learner(network, losses, **about, accumulation=accumulation, replicas=replicas(None))
    found = learner.step(np.array(values, "float32")[:, None])
    return float(found["loss"]), network.get_weights()[0].item()


def test_gradients_are_accumulated():
    """Two batches make the update that one of them all makes."""
    assert learner_of([1, -2, 5, 8], 2) == pytest.approx(learner_of([1, -2, 5, 8], 1), rel=1e-6)
    assert learner_of([1, -2, 5, 8], 1)[1] != 1


@pytest.mark.parametrize("tcm", TCMS)
def test_fine_tuning_changes_lora_and_the_classifier_alone(trained, tcm):
    """With each module, one stretch at a time, of which each is longer than a night."""
    folder, _ = trained
    fold = fold_of(folder)
    options = [*MODALITIES, "--step", "fine_tuning", "--label_fraction", 0.05, "--tcm", tcm]
    short = ["--set", "stretch_epochs=150", "--set", "fine_tuning_batch=1", "--set", "fine_tuning_passes=1"]
    assert trainer.main(command(folder, *options, *(() if tcm == "mamba2" else short))) == 0
    results = fold / "fine_tuning" / "sleep_stage_0.05" / "eeg-airflow" / tcm
    network = load_model(results, [FineTuning])
    fusion = load_model(fold / "multimodal" / "eeg-airflow", [SynthSleepNetEncoder])
    for name, backbone in network.encoder.backbones.items():
        tuned = [v for v in backbone.weights if not v.name.startswith("lora")]
        before = [v for v in fusion.backbones[name].weights if not v.name.startswith("lora")]
        assert all(np.array_equal(a, b) for a, b in zip(tuned, before, strict=True))
        assert any(np.any(v) for v in backbone.weights if v.name == "lora_b" and "linear" in v.path)


def test_convolutions_that_are_too_large_to_keep_change_nothing(trained, tmp_path, capsys):
    folder, _ = trained
    prepared(folder, tmp_path)
    options = [*MODALITIES, "--step", "fine_tuning", "--label_fraction", 0.05]
    assert trainer.main(command(folder, *options)) == 0
    assert trainer.main(command(tmp_path, *options, "--set", "frozen_gib=0")) == 0
    assert "would take more than frozen_gib=0: not kept" in capsys.readouterr().out
    results = [fold_of(out) / "fine_tuning/sleep_stage_0.05/eeg-airflow/mamba2" for out in (folder, tmp_path)]
    losses = [pd.read_csv(path / "log.csv")["loss"] for path in results]
    assert np.allclose(*losses, rtol=1e-4)
    assert not any((path / "convolutions").exists() for path in results)


def test_evaluation_equals_what_training_found(trained, synthetic, tmp_path, capsys):
    folder, _ = trained
    for task in TASKS:
        assert trainer.main(command(folder, *MODALITIES, "--step", "fine_tuning", "--task", task)) == 0
        model = Path("fine_tuning", f"{task}_1", "eeg-airflow", "mamba2")
        shutil.copytree(fold_of(folder) / model, fold_of(tmp_path) / model)
    evaluated = ["--model", "synthsleepnet", "--db", "shhs", "--data", str(folder / "nights")]
    evaluated += ["--dir", str(tmp_path / "out"), "--save", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    capsys.readouterr()
    assert predict.main(evaluated) == 0
    printed, errors = capsys.readouterr()
    # Training has left the ONNX files.
    assert "being made from the weights" not in errors
    told = json.loads((tmp_path / "figures.json").read_text())
    found = {(model["task"], model["variant"]): model for model in told["models"]}
    for task in TASKS:
        results = fold_of(folder) / "fine_tuning" / f"{task}_1" / "eeg-airflow" / "mamba2"
        metadata = json.loads((results / "metadata.json").read_text())
        ours = found[task, "eeg-airflow mamba2, 1 of the labels"]
        figures = ("accuracy", "macro_f1", "kappa", "epochs")
        assert [ours[name] for name in figures] == pytest.approx([metadata["test"][name] for name in figures])
    (index,) = (part for part in told["indices"] if "mamba2, 1 of" in part["variant"])
    subjects = metadata["split"]["test"]
    assert [night["subject"] for night in index["nights"]] == subjects
    low, high = index["intervals_95"]["bias"]
    assert low <= index["bias"] <= high and f"over 3 subjects: bias {low:.3f} to {high:.3f}" in printed
    assert [night["night"] for night in index["nights"]] == [f"shhs1-{subject}" for subject in subjects]
    # The recording was written with an event for each epoch and kind.
    night = synthetic[subjects[0]]
    kinds = [night["event_names"].tolist().index(name) for name in (*TASKS["apnea"], *TASKS["hypopnea"])]
    assert index["nights"][0]["scored"] == pytest.approx(
        night["events"][:, kinds].sum() / ((night["y"] > 0).sum() / 120)
    )
    assert "estimated from epochs, against the scored one" in printed
    assert (tmp_path / "shhs" / f"bland-altman {index['variant']}.png").stat().st_size > 5000


def test_the_fold_stages_the_recording_that_a_night_was_made_of(trained, tmp_path):
    folder, _ = trained
    subject = json.loads((fold_of(folder) / "multimodal/eeg-airflow/metadata.json").read_text())["split"]["test"][0]
    staged = ["--model", "synthsleepnet", "--dir", str(folder / "out"), "--out", str(tmp_path)]
    assert predict.main([*staged, "--recording", str(folder / "raw" / "edfs" / f"shhs1-{subject}.edf")]) == 0
    ours = pd.read_csv(tmp_path / f"shhs1-{subject}.hypnogram.csv")
    results = fold_of(folder) / "fine_tuning" / "sleep_stage_1" / "eeg-airflow" / "mamba2"
    theirs = pd.read_csv(results / "predictions" / f"shhs1-{subject}.csv")
    assert np.allclose(ours[list(STAGES)], theirs[list(STAGES)], atol=1e-3)


def test_two_workers_train_as_one(trained, tmp_path):
    step = ["--modality", "eeg", "--step", "unimodal", "--set", "unimodal_passes=1"]
    for name in ("shared", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nights").symlink_to(trained[0] / "nights")
    assert trainer.main(command(tmp_path / "alone", *step)) == 0
    arguments = command(tmp_path / "shared", *step, "--strategy", "multiworker")
    ports = [free_port() for _ in range(2)]
    workers = []
    for index in (0, 1):
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        told = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        workers.append(
            subprocess.Popen(
                [*TRAINER, *arguments],
                env=ENVIRONMENT | {"TF_CONFIG": told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    shared, alone = (pd.read_csv(fold_of(tmp_path / name) / "unimodal/eeg/log.csv") for name in ("shared", "alone"))
    assert len(shared) == 2
    assert np.allclose(shared["loss"], alone["loss"], rtol=1e-3), (shared["loss"], alone["loss"])
    assert shared["loss"][0] == pytest.approx(alone["loss"][0], rel=1e-5)


def test_a_strategy_without_its_cluster_is_told(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    (tmp_path / "nights").symlink_to(folder / "nights")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    assert trainer.main(command(tmp_path, *MODALITIES, "--strategy", "multiworker")) == 2
    assert "--strategy multiworker needs the environment variable TF_CONFIG" in capsys.readouterr().err
