"""NeuroNet alone, by its own protocol: its rules, what learns of it, its ONNX file, and a whole training."""

import json
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from fine_tuned import randomise

import predict
import trainer
from config import SyntheticConfig
from data.nights.folds import labelled_subjects, split, subjects_tested
from data.prepare.synthetic import write_recording
from runs.networks import load_model
from runs.settings import configure
from synth.layers.frames import frame_starts
from synth.learner import Learner, scheduled
from synth.models.classifier import NeuroNetFineTuning
from synth.models.neuronet import NeuroNetEncoder
from synth.replicas import replicas
from synth.steps import step

pytestmark = [pytest.mark.xdist_group("fine-tuned folds"), pytest.mark.usefixtures("small_backbone")]

MINI = configure("sleepedfx", preset="mini", model="neuronet")


def test_folds_follow_the_databases_order_and_the_last_subjects_are_labelled():
    spec, training = MINI.database, MINI.training
    subjects = [number for number in range(83) if number not in (39, 68, 69, 78, 79)]
    folds = [subjects_tested(spec, fold) for fold in range(spec.folds)]
    assert [len(fold) for fold in folds] == [16, 16, 16, 15, 15]
    assert [subject for fold in folds for subject in fold] == subjects
    part = split(spec, 1, spec.subjects, training.seed, training.validation_fraction)
    # Of 62 others 6 validate, and 15 % of the 56 that are left are 8.
    known = [subject for subject in subjects if subject not in (*folds[1], *part.validation)]
    labelled = labelled_subjects(part, training.labelled_subjects, training.seed, training.labelled_last)
    assert len(known) == 56 and labelled == tuple(known[-8:])


def test_an_epoch_has_the_73_frames_of_the_published_code():
    starts = frame_starts(MINI.model.frame_seconds, MINI.model.frame_step_seconds)
    assert [*starts] == [37 * number for number in range(73)]
    assert len(frame_starts(3.0, 0.29)) == 1 + 2700 // 29


def test_the_published_rates():
    """Of a whole batch in each step; they fall with every pass along a cosine."""
    training = MINI.training
    for name, size, published, passes in (
        ("pretraining", training.unimodal_batch, 1e-5, training.unimodal_passes),
        ("probing", training.probing_batch, 5e-5, training.probing_passes),
        ("fine_tuning", training.fine_tuning_batch * training.fine_tuning_accumulation, 5e-4, 150),
    ):
        rate = getattr(training, f"{name}_rate") * size / 256
        found = scheduled(getattr(training, f"{name}_schedule"), rate, [2] * passes)
        expected = published * (1 + np.cos(np.pi * np.repeat(np.arange(passes), 2) / passes)) / 2
        np.testing.assert_allclose([float(found(number)) for number in range(6)], expected[:6], rtol=1e-6)
    assert (training.unimodal_passes, training.probing_passes, training.fine_tuning_passes) == (30, 300, 150)


BACKBONE = {"window": 3.0, "step": 9.0, "dim": 16, "heads": 2, "depth": 2}


def noise(epochs: int) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 2, (epochs, 3000)).astype("float32")


def fine_tuning(tcm="mamba") -> NeuroNetFineTuning:
    keras.utils.set_random_seed(0)
    return NeuroNetFineTuning({"modalities": ("eeg",), "backbone": BACKBONE, "dim": 32}, 5, tcm)


def test_the_last_perceptron_the_last_norm_and_what_is_new_learn():
    network = randomise(fine_tuning())
    last = f"backbone_eeg/block{BACKBONE['depth'] - 1}"
    layers = (f"{last}/fc1", f"{last}/fc2", "projector/linear1", "projector/linear2", "classifier/head/logits")
    learning = {f"{layer}/{weight}" for layer in layers for weight in ("kernel", "bias")}
    norms = (f"{last}/norm2", "backbone_eeg/norm", "projector/bn")
    learning |= {f"{norm}/{weight}" for norm in norms for weight in ("gamma", "beta")}
    found = {variable.path for variable in network.trainable_variables}
    assert {path for path in found if not path.startswith("classifier/context/")} == learning
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in network.weights}
    inputs = {"signals": {"eeg": noise(8).reshape(2, 4, 3000)}}

    def losses(batch):
        return {"loss": keras.ops.mean(keras.ops.square(network(batch, training=True)))}

    about = {"weight_decay": 0.01, "clip_norm": 1e9, "accumulation": 1, "replicas": replicas(None)}
    Learner(network, losses, rate=1e-2, **about).step(inputs)
    after = {weight.path: keras.ops.convert_to_numpy(weight) for weight in network.weights}
    moved = {path for path, values in before.items() if not np.array_equal(values, after[path])}
    assert moved == found | {"projector/bn/moving_mean", "projector/bn/moving_variance"}


@pytest.mark.model
def test_logits_are_one_linear_layer_of_the_module():
    """Against plain NumPy, without a module: of the cls token two layers, and the classes."""
    network = randomise(fine_tuning("none"))
    night = noise(3)
    encoder, head = network.encoder, network.classifier.head.logits
    tokens = keras.ops.convert_to_numpy(encoder.backbones["eeg"](night)).astype("float64")
    own = {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight).astype("float64")
        for layer in (encoder.projector.linear1, encoder.projector.bn, encoder.projector.linear2, head)
        for weight in layer.weights
    }
    x = tokens[:, 0] @ own["linear1/kernel"] + own["linear1/bias"]
    x = (x - own["bn/moving_mean"]) / np.sqrt(own["bn/moving_variance"] + 1e-5) * own["bn/gamma"] + own["bn/beta"]
    x = np.where(x > 0, x, np.expm1(np.minimum(x, 0))) @ own["linear2/kernel"] + own["linear2/bias"]
    expected = x @ own["logits/kernel"] + own["logits/bias"]
    found = keras.ops.convert_to_numpy(network({"signals": {"eeg": night[None]}}))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_from_nights_to_a_staged_recording(tmp_path, monkeypatch, capsys):
    """A tiny training in all its steps, its evaluation, which says the same, and the staging of a recording."""
    asked = []

    def spied(kind, rate, updates):
        asked.append(SimpleNamespace(kind=kind, rate=rate, passes=len(updates)))
        return scheduled(kind, rate, updates)

    monkeypatch.setattr(step, "scheduled", spied)
    where = ["--db", "synthetic", "--data", str(tmp_path / "nights")]
    made = [*where, "--model", "neuronet", "--preset", "tiny", "--to_fold", "0", "--out", str(tmp_path / "out")]
    made += ["--set", "hours=0.2", "--set", "knn_nights=1"]
    assert trainer.main([*made, "--step", "fine_tuning"]) == 2
    assert "holds no pretrained encoder: run --step unimodal first." in capsys.readouterr().err
    assert trainer.main(made) == 0
    assert [(each.kind, each.passes) for each in asked] == [("cosine_per_pass", passes) for passes in (2, 8, 2)]
    printed, fold = capsys.readouterr().out, tmp_path / "out/synthetic/0"
    assert sorted(path.name for path in fold.iterdir()) == ["fine_tuning", "linear_probing", "unimodal"]
    paths = [
        fold / "unimodal/eeg",
        fold / "linear_probing/sleep_stage_1/eeg",
        fold / "fine_tuning/sleep_stage_1/eeg/mamba",
    ]
    pretrained, probed, tuned = (json.loads((path / "metadata.json").read_text()) for path in paths)
    assert [subject for subject in pretrained["split"]["train"] if subject in pretrained["split"]["labelled"]][-1] == (
        pretrained["split"]["train"][-1]
    )
    nights = {f"synthetic{subject:02d}.npz" for subject in pretrained["split"]["train"][:-1]}
    assert set(pretrained["nights"]) == nights
    assert all(each["recipe"]["scaling"] is None for each in (pretrained, probed, tuned))
    assert probed["encoder"] == tuned["encoder"] == pretrained["sha256"]["model.weights.h5"]
    encoder = load_model(fold / paths[0], [NeuroNetEncoder])
    adopted = load_model(fold / paths[2], [NeuroNetFineTuning]).encoder.backbones["eeg"]
    same = [np.array_equal(*pair) for pair in zip(encoder.get_weights(), adopted.get_weights(), strict=True)]
    assert same == [not weight.trainable for weight in adopted.weights]
    assert f"accuracy {tuned['test']['accuracy']:.3f}" in printed
    figures = tmp_path / "figures.json"
    read = ["--model", "neuronet", "--dir", str(tmp_path / "out")]
    assert predict.main([*where, *read, "--json", str(figures)]) == 0
    assert f"accuracy {tuned['test']['accuracy']:.3f}" in capsys.readouterr().out
    recording = tmp_path / "sleeper.edf"
    write_recording(recording, 9, SyntheticConfig(hours=0.2))
    assert predict.main([*read, "--recording", str(recording), "--out", str(tmp_path / "staged")]) == 0
    assert "sleeper: " in capsys.readouterr().out
    shutil.rmtree(fold / "fine_tuning")
    assert predict.main([*where, *read]) == 2
    assert "fine-tune models with `python trainer.py --model neuronet`" in capsys.readouterr().err
