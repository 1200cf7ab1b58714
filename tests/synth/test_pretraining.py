"""SynthSleepNet's pretraining as users run it: killed and continued, shared by two workers, given wrong input."""

import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from nearest import macro_f1, nearest_stages
from trained_fold import MODALITIES, SUBJECTS, assert_same_weights, command, fold_of, prepared

import trainer
from data.nights.files import write_arrays
from data.nights.folds import Split
from data.nights.index import NightFile
from data.nights.night import read_night
from data.prepare.synthetic import CHANNELS
from data.recipe import Recipe
from data.terms import InputError
from runs.networks import load_model
from runs.saved import read_metadata
from runs.settings import configure
from synth.learner import Learner
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetEncoder
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.pretraining import PretrainingStep
from synth.steps.probing import LinearProbingStep
from synth.steps.step import Fold

# One process for all that take the fixture ``trained``: the other would train the same again.
pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("pretraining"),
    pytest.mark.usefixtures("small_backbone"),
]

PROJECT = Path(__file__).resolve().parent.parent.parent
TRAINER = [sys.executable, str(PROJECT / "tests" / "small_backbone.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROJECT)}


def test_every_step_leaves_an_encoder_and_its_log(trained):
    folder, printed = trained
    assert "5 subjects train, 5 of them with labels; 1 validate, 3 test" in printed
    where = shlex.join(["--dir", str(folder / "out" / "shhs"), "--data", str(folder / "nights")])
    assert f"To evaluate again: python predict.py --model synthsleepnet --db shhs {where} --fold 1\n" in printed
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


def test_another_runs_fusion_serves_a_laboratory(trained, synthetic, tmp_path, capsys):
    """Its channels are called otherwise; nothing is pretrained again, nor tested on what the fusion learnt from."""
    for subject, night in enumerate([*synthetic.values()][:4]):
        x = night["x"][:, [CHANNELS.index(name) for name in ("EEG C4-M1", "Airflow")]]
        arrays = {"x": x, "y": night["y"], "fs": 100.0, "ch_names": np.array(["C4", "Flow"])}
        write_arrays(tmp_path / f"nights/subject{subject}_x.npz", arrays)
    init = fold_of(trained[0])
    values = ["modalities=(('eeg','C4'),('airflow','Flow'))", "probing_passes=2", "labelled_subjects=2"]
    places = ["--data", str(tmp_path / "nights"), "--out", str(tmp_path), "--to_fold", "0", "--init", str(init)]
    common = ["--model", "synthsleepnet", "--preset", "tiny", *MODALITIES, *places]
    given = ["--db", "custom", *common, *(part for value in values for part in ("--set", value))]
    for step in ("unimodal", "multimodal", "linear_probing"):
        assert trainer.main([*given, "--step", step]) == 0
    assert f"fold 0 uses multimodal/eeg-airflow from {init}." in capsys.readouterr().out
    fold = tmp_path / "custom/0"
    # One model: of its own there are the probe, and the embeddings of its nights.
    (found,) = fold.rglob("metadata.json")
    metadata = read_metadata(found.parent)
    assert metadata["encoder"] == read_metadata(init / "multimodal/eeg-airflow")["sha256"]["model.weights.h5"]
    channels = metadata["recipe"]["channels"]
    assert {name: channel["name"] for name, channel in channels.items()} == {"eeg": "C4", "airflow": "Flow"}
    # Fold 0 tests subjects whom fold 1 trained on.
    again = command(trained[0], *MODALITIES, "--step", "linear_probing", "--init", str(init), "--out", str(tmp_path))
    assert trainer.main([*again, "--from_fold", "0", "--to_fold", "0"]) == 2
    assert "a test night of fold 0: begin with a model that saw none" in capsys.readouterr().err


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
    with pytest.raises(InputError, match="a round of training has only 1 epochs, too few to learn from"):
        step_of(tmp_path, 1, round_nights=1).prepare()


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


def test_a_fusion_is_not_continued_on_other_encoders(trained, tmp_path, capsys):
    folder, _ = trained
    prepared(folder, tmp_path)
    for name in ("eeg", "airflow"):
        shutil.copytree(fold_of(folder) / "unimodal/airflow", fold_of(tmp_path) / "unimodal" / name)
    assert trainer.main(command(tmp_path, *MODALITIES, "--step", "multimodal")) == 2
    assert "was trained with encoders eeg " in capsys.readouterr().err
    for name in ("eeg", "airflow"):
        shutil.rmtree(fold_of(tmp_path) / "unimodal" / name)
        shutil.copytree(fold_of(folder) / "unimodal" / name, fold_of(tmp_path) / "unimodal" / name)
    assert trainer.main(command(tmp_path, *MODALITIES, "--step", "multimodal")) == 0
    assert "multimodal/eeg-airflow is finished: skipped" in capsys.readouterr().out


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
    assert "1 of 9 nights lack a channel and are left out: Airflow in 1." in told.out
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def two_workers(folder):
    """Two processes that train together."""
    arguments = command(folder, "--modality", "eeg", "--step", "unimodal", "--strategy", "multiworker")
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}
    for index in (0, 1):
        told = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        yield subprocess.Popen(
            [*TRAINER, *arguments],
            env=ENVIRONMENT | {"TF_CONFIG": told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_two_workers_train_as_one_also_after_one_was_killed(trained, tmp_path):
    """For a pass: rounding errors grow from update to update."""
    (tmp_path / "nights").symlink_to(trained[0] / "nights")
    results = fold_of(tmp_path) / "unimodal/eeg"
    one, other = two_workers(tmp_path)
    while not (results / "progress" / "1").exists() and one.poll() is other.poll() is None:
        time.sleep(0.01)
    other.kill()
    told = one.communicate(timeout=60)[0]
    assert one.returncode == 2 and "a process of this training on another machine has ended" in told
    workers = [*two_workers(tmp_path)]
    printed = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    assert "continues after" in printed[0]
    shared, alone = (pd.read_csv(folder / "log.csv") for folder in (results, fold_of(trained[0]) / "unimodal/eeg"))
    assert len(shared) == len(alone) == 4
    assert np.allclose(shared["loss"][:2], alone["loss"][:2], rtol=1e-3), (shared["loss"], alone["loss"])
    assert shared["loss"][0] == pytest.approx(alone["loss"][0], rel=1e-5)


def test_a_strategy_without_its_cluster_is_told(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    (tmp_path / "nights").symlink_to(folder / "nights")
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    assert trainer.main(command(tmp_path, *MODALITIES, "--strategy", "multiworker")) == 2
    assert "--strategy multiworker needs the environment variable TF_CONFIG" in capsys.readouterr().err
