"""The steps of SynthSleepNet that learn from labels, as users run them: to test figures, and to staged recordings."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trained_fold import MODALITIES, assert_same_weights, command, fold_of, labels_of, prepared, without

import predict
import trainer
from data.nights.night import read_night
from data.terms import STAGES, TASKS
from runs.networks import load_model
from synth.models.classifier import FineTuning, Head
from synth.models.fusion import SynthSleepNetEncoder
from synth.predictor import FineTunedPredictor
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.probing import LinearProbingStep

# One process for all that take the fixture ``trained``: the other would train the same again.
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("pretraining"),
    pytest.mark.usefixtures("small_backbone"),
]

# Every task with all labels and with few; few do not change what fine-tuning does with a task.
SHARES = [(task, fraction) for task, few in zip(TASKS, (0.05, 0.01, 0.05), strict=True) for fraction in (few, 1)]
CASES = [("linear_probing", "", task, fraction) for task, fraction in SHARES]
CASES += [("fine_tuning", "mamba2", task, fraction) for task, fraction in [("sleep_stage", 0.05), *SHARES[1::2]]]


@pytest.mark.parametrize(("step", "tcm", "task", "fraction"), CASES)
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
    saved = folder / "out/shhs/pooled/fold_1" / results.relative_to(fold) / "figures.json"
    pooled = json.loads(saved.read_text())
    for figure, value in metadata["test"].items():
        if isinstance(value, float):
            assert pooled[figure] == pytest.approx(value, abs=1e-3), figure
    assert pooled["subjects"] == len(subjects) and len(pooled["intervals_95"]["macro_f1"]) == 2
    assert load_model(results, [Head, FineTuning]) is not None
    chosen_by = "macro_f1" if task == "sleep_stage" else "average_precision"
    with (results / "log.csv").open() as file:
        scores = [float(row[f"val_{chosen_by}"]) for row in csv.DictReader(file)]
    assert metadata["best"] == {"pass": 1 + int(np.argmax(scores)), chosen_by: max(scores)}


def test_of_several_workers_the_chief_alone_pools(trained, monkeypatch, capsys):
    folder, _ = trained
    finished = command(folder, *MODALITIES, "--step", "fine_tuning")
    assert trainer.main(finished) == 0 and "pooled: accuracy" in capsys.readouterr().out
    worker = replicas(None)
    monkeypatch.setattr(worker, "chief", False)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out/shhs/pooled").rglob("*.json")}
    assert trainer.main(finished) == 0 and "pooled: accuracy" not in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "out/shhs/pooled").rglob("*.json")} != {}


@pytest.fixture(scope="module")
def without_events(trained, tmp_path_factory):
    """A fine-tuning for apnea in bfloat16, of stretches drawn by a sampler, whose validation night holds none: its
    folder, and what was printed."""
    folder, fold = tmp_path_factory.mktemp("without_events"), fold_of(trained[0])
    shutil.copytree(trained[0] / "nights", folder / "nights")
    shutil.copytree(fold / "multimodal", fold_of(folder) / "multimodal")
    split = json.loads((fold / "multimodal/eeg-airflow/metadata.json").read_text())["split"]
    without(folder / "nights" / f"shhs1-{split['validation'][0]}.npz")
    arguments = ["--step", "fine_tuning", "--task", "apnea", "--tcm", "lstm", "--set", "precision=mixed_bfloat16"]
    arguments += ["--set", "event_balance=sampler"]
    with redirect_stdout(io.StringIO()) as printed:
        assert trainer.main(command(folder, *MODALITIES, *arguments)) == 0
    return fold_of(folder) / "fine_tuning/apnea_1/eeg-airflow/lstm", printed.getvalue()


def test_validation_nights_without_an_event_choose_no_pass(without_events):
    """Whoever never finds an event would have a macro-F1 of 1 on them."""
    folder, printed = without_events
    assert json.loads((folder / "metadata.json").read_text())["best"] == {"pass": 2, "average_precision": None}
    assert "hold apnea in none of their epochs, or in all of them, so they cannot tell which pass is best" in printed
    assert FineTunedPredictor(folder).rank == (1, -1)


def test_what_was_trained_in_bfloat16_is_tested_in_float32(without_events):
    folder, _ = without_events
    model = FineTunedPredictor(folder)
    for subject in model.metadata["split"]["test"]:
        night = read_night(folder.parents[6] / "nights" / f"shhs1-{subject}.npz", model.recipe.names)
        found = pd.read_csv(folder / "predictions" / f"shhs1-{subject}.csv")["apnea"]
        assert np.allclose(model.probabilities(night.inputs(model.recipe))[:, 1], found, atol=1e-6)


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


def test_fine_tuning_changes_lora_and_the_classifier_alone(trained):
    """One stretch at a time, of which each is longer than a night."""
    folder, _ = trained
    fold = fold_of(folder)
    options = [*MODALITIES, "--step", "fine_tuning", "--label_fraction", 0.05, "--tcm", "lstm_mha"]
    short = ["--set", "stretch_epochs=150", "--set", "fine_tuning_batch=1", "--set", "fine_tuning_passes=1"]
    assert trainer.main(command(folder, *options, *short)) == 0
    results = fold / "fine_tuning" / "sleep_stage_0.05" / "eeg-airflow" / "lstm_mha"
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
    assert "are not kept, being above frozen_gib=0" in capsys.readouterr().out
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
    assert "estimated from epochs, compared with the scored one" in printed
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
