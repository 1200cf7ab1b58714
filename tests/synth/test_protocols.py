"""The rules of SynthSleepNet's training, against plain float64 NumPy, and what the protocols change of them."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import predict
import trainer
from config import PROTOCOLS, SyntheticConfig, SynthSleepNetTraining
from data.nights.folds import Split
from data.nights.index import NightFile
from data.prepare.synthetic import write_recording
from data.terms import TASKS, InputError
from runs.networks import load_model
from runs.settings import configure
from synth.initialisation import draw_as_pytorch
from synth.learner import Learner, scheduled
from synth.models.fusion import SynthSleepNet, SynthSleepNetEncoder
from synth.models.neuronet import NeuroNet
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep, LabelledNight
from synth.steps.labelled import LabelledStep, require_scored
from synth.steps.pretraining import PretrainingStep
from synth.steps.step import Fold

PROJECT = Path(__file__).resolve().parent.parent.parent
PASSES = [3, 2, 4]


def cosine(numbers, count):
    return (1 + np.cos(np.pi * np.array(numbers) / count)) / 2


RATES = {
    "constant": np.ones(9),
    "cosine": cosine(range(9), 9),
    "cosine_per_pass": np.repeat(cosine(range(3), 3), PASSES),
}


def adamw(weight, gradients, rates, clip_norm):
    """The weights (updates, features) that AdamW makes of ``weight``, one after another.

    The epsilon is added where Kingma & Ba, arXiv:1412.6980 (2014), have it at the end of section 2, and Keras too.
    """
    first = second = np.zeros_like(weight)
    weights = []
    for number, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        norm = math.sqrt(np.sum(gradient**2))
        clipped = gradient * min(1, clip_norm / norm) if clip_norm else gradient
        first = 0.9 * first + 0.1 * clipped
        second = 0.999 * second + 0.001 * clipped**2
        step = math.sqrt(1 - 0.999**number) / (1 - 0.9**number) * first / (np.sqrt(second) + 1e-8)
        weight = weight - rate * 0.01 * weight - rate * step
        weights.append(weight)
    return np.array(weights)


@pytest.mark.parametrize("clip_norm", [0.5, None])
@pytest.mark.parametrize("schedule", RATES)
def test_updates_are_those_of_plain_adamw(schedule, clip_norm):
    """Gradients as small as 1e-8 tell the epsilon; the loss is linear, so that they are the inputs' means."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** np.array([-8, -7, -1, 1])
    inputs = rng.normal(1, 0.3, (9, 6, 4)) * sizes
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])

    def losses(batch):
        return {"loss": keras.ops.mean(network(batch))}

    rate = scheduled(schedule, 0.1, PASSES)
    about = {"weight_decay": 0.01, "clip_norm": clip_norm, "accumulation": 1}
    learner = Learner(network, losses, rate=rate, **about, replicas=replicas(None))
    first = network.get_weights()[0][:, 0].astype("float64")
    found = []
    for batch in inputs.astype("float32"):
        learner.step(batch)
        found.append(network.get_weights()[0][:, 0])
    expected = adamw(first, inputs.mean(axis=1), 0.1 * RATES[schedule], clip_norm)
    assert np.allclose(found, expected, atol=2e-5)


def test_one_pass_has_one_rate():
    assert scheduled("cosine_per_pass", 0.1, [5]) == 0.1


SMALL = {"window": 3, "step": 9, "dim": 32, "heads": 4, "depth": 1}


@pytest.mark.parametrize("cls_normalised", [False, True])
def test_the_cls_token_counts_to_the_fusions_statistics_if_it_is_to(cls_normalised):
    network = SynthSleepNet(["eeg"], SMALL, 32, 4, 1, 32, 4, 1, (32, 16), cls_normalised=cls_normalised)
    signals = {"eeg": np.random.default_rng(0).normal(size=(4, 3000)).astype("float32")}
    encoder = network.encoder
    tokens = keras.ops.convert_to_numpy(encoder.describe(signals)["eeg"]).astype("float64")
    layer = encoder.embeddings["eeg"]
    kernel, bias = (keras.ops.convert_to_numpy(w).astype("float64") for w in (layer.linear1.kernel, layer.linear1.bias))
    counted = tokens if cls_normalised else tokens[:, 1:]
    mean = (counted @ kernel + bias).mean(axis=(0, 1))
    assert encoder.fuse(encoder.describe(signals), training=True)[0].shape == (4, encoder.frames, 32)
    moved = keras.ops.convert_to_numpy(layer.bn.moving_mean)
    assert np.allclose(moved, 0.1 * mean, atol=1e-6)


def test_first_weights_are_drawn_as_pytorch_draws_them():
    def drawn():
        keras.utils.set_random_seed(1)
        network = NeuroNet(**SMALL, decoder_dim=32, decoder_heads=4, decoder_depth=1, projection=(32, 16))
        draw_as_pytorch(network)
        return network

    network = drawn()
    block, stem = network.encoder.blocks[0], network.encoder.backbone.stem
    for weight, inputs in ((block.qkv.kernel, 32), (block.qkv.bias, 32), (block.fc2.kernel, 128), (stem.kernel, 7)):
        values = keras.ops.convert_to_numpy(weight) * math.sqrt(inputs)
        assert np.abs(values).max() <= 1
        # A uniform draw of n values deviates by 1 / sqrt(3), to some 1 / sqrt(n).
        assert values.std() == pytest.approx(1 / math.sqrt(3), abs=2 / math.sqrt(values.size))
    assert all(np.array_equal(*pair) for pair in zip(network.get_weights(), drawn().get_weights(), strict=True))


def fold(protocol, tmp_path, labelled=(1, 2)):
    config = configure("synthetic", [], "tiny", protocol)
    split = Split(0, train=(1, 2, 3, 4), validation=(5,), test=(0,))
    nights = {n: [NightFile(Path(f"{n}.npz"), 10, 1.0, 0.0, 0)] for n in range(6)}
    return Fold(config, split, labelled, nights, tmp_path, replicas(None))


@pytest.mark.parametrize(("protocol", "subjects"), [("corrected", "1234"), ("published", "34")])
def test_labelled_subjects_are_pretrained_on_unless_they_are_held_out(protocol, subjects, tmp_path):
    step = PretrainingStep(fold(protocol, tmp_path), "unimodal", {"eeg": "EEG C4-M1"})
    assert [night.path.stem for night in step.nights] == list(subjects)


def test_someone_must_be_left_to_pretrain_on(tmp_path):
    with pytest.raises(InputError, match="all 4 training subjects are labelled, so none is left"):
        PretrainingStep(fold("published", tmp_path, (1, 2, 3, 4)), "unimodal", {"eeg": "EEG C4-M1"})


class Drawing(LabelledStep):
    """A step that only draws."""

    def __init__(self, folder, task="sleep_stage", balance="none"):
        self.fold, self.training = fold("published", folder), SynthSleepNetTraining()
        self.label_fraction, self.task, self.balance = 1.0, task, balance

    recipe = losses = prepare = predicted = steps = train_unit = head = None


def test_labels_are_drawn_with_replacement_if_they_are_to(tmp_path):
    labels, step = np.arange(1000) % 5, Drawing(tmp_path)
    drawn = step.drawn(labels, with_replacement=True)
    assert len(drawn) == 1000 and 600 < len(set(drawn)) < 665
    assert sorted(step.drawn(labels)) == list(range(1000))


@pytest.mark.parametrize(
    ("balance", "share", "weight"), [("none", 0.1, 0.1), ("class_weights", 0.1, 0.5), ("sampler", 0.5, 0.5)]
)
def test_rare_events_count_as_much_as_all_other_epochs_if_they_are_to(balance, share, weight, tmp_path):
    """A tenth of the epochs holds an event: their share of what is drawn, and of all losses."""
    step, labels = Drawing(tmp_path, "apnea", balance), np.r_[np.ones(100, int), np.zeros(900, int)]
    importance = step.importance(labels)
    assert importance.mean() == pytest.approx(1)
    order, weights = step.order(np.random.default_rng(0), importance), step.weights(importance, importance)
    assert len(order) == 1000 and labels[order].mean() == pytest.approx(share, abs=0.05)
    assert weights[order] @ labels[order] / weights[order].sum() == pytest.approx(weight, abs=0.05)


class DrawingStretches(FineTuningStep):
    """A fine-tuning for apnea that only draws: two nights, with events beside others, alone, and at a night's end."""

    recipe = steps = None

    def __init__(self, folder, balance):
        self.fold, self.training = fold("published", folder), SynthSleepNetTraining(stretch_epochs=8, stretch_step=4)
        self.task, self.balance = "apnea", balance
        labels = np.zeros((2, 40), int)
        labels[0, [3, 4, 5, 6, 20]], labels[1, 39] = 1, 1
        used = np.random.default_rng(1).random(labels.shape) < 0.8
        used[labels == 1] = True
        importance = np.zeros(labels.shape)
        importance[used] = self.importance(labels[used])
        signals = {"eeg": np.zeros((40, 1), "float32")}
        self.nights = [LabelledNight(signals, *own) for own in zip(labels, used, importance, strict=True)]
        self.cut()


@pytest.mark.parametrize(("balance", "share"), [("none", 0.08), ("class_weights", 0.5), ("sampler", 0.5)])
def test_drawn_stretches_do_not_make_their_other_epochs_count_for_more(balance, share, tmp_path):
    """Whatever lies beside an event, in the stretches in which it is drawn, both classes count alike."""
    step = DrawingStretches(tmp_path, balance)
    assert len(step.stretches) == 18
    rng, events, others, used = np.random.default_rng(0), 0.0, 0.0, 0
    for _ in range(2000 if balance == "sampler" else 1):
        batch = step._inputs([step.stretches[i] for i in step.order(rng, step.counted)])
        events += batch["weights"][batch["labels"] == 1].sum()
        others += batch["weights"][batch["labels"] == 0].sum()
        used += np.count_nonzero(batch["weights"])
    # Without a sampler, a night's edges lie in one stretch, other epochs in two.
    assert events / (events + others) == pytest.approx(share, abs=0.01 if balance == "sampler" else 0.05)
    assert (events + others) / used == pytest.approx(1, abs=0.01 if balance == "sampler" else 0.15)


def test_the_weight_of_a_label_does_not_depend_on_what_else_is_in_its_batch(tmp_path):
    """The loss, in plain float64 NumPy, is a mean over the labels that are used."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 4, 2)), rng.integers(0, 2, (3, 4))
    weights = rng.uniform(0.1, 9, (3, 4)) * (rng.random((3, 4)) < 0.6)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    entropy = -np.log(np.take_along_axis(shares, labels[..., None], axis=-1)[..., 0])
    expected = (entropy * weights).sum() / np.count_nonzero(weights)
    inputs = {"labels": labels.astype("int32"), "weights": weights.astype("float32")}
    found = Drawing(tmp_path).weighted(logits.astype("float32"), inputs)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)
    nothing = {**inputs, "weights": np.zeros((3, 4), "float32")}
    assert float(Drawing(tmp_path).weighted(logits.astype("float32"), nothing)["loss"]) == 0


def scored(where, make_night, subject, events):
    """The fold ``where``, its nights written with apnea in one of ten epochs, but for those of ``subject``."""
    nights = {}
    for n, (night,) in where.nights.items():
        found = events if n == subject else np.arange(10) == 4
        told = {} if found is None else {"events": np.tile(found, (3, 1)).T, "event_names": np.array(TASKS["apnea"])}
        nights[n] = [replace(night, path=make_night(where.folder / night.path.name, 10, **told))]
    return replace(where, nights=nights)


@pytest.mark.parametrize(("part", "subject"), [("labelled", 1), ("validation", 5)])
@pytest.mark.parametrize("events", [np.zeros(10, bool), np.ones(10, bool), None])
def test_networks_are_not_chosen_by_events_that_do_not_tell_them_apart(part, subject, events, tmp_path, make_night):
    """It is said before the first pass, and by a dry run, which prepares the step too."""
    where = scored(fold("published", tmp_path, labelled=(1,)), make_night, subject, events)
    step = PretrainingStep(where, "unimodal", {"ecg": "ECG"})
    told = f"cannot be chosen by apnea, because the {part} nights .* --set unimodal_ecg_chosen_by=sleep_stage"
    with pytest.raises(InputError, match=told):
        step.prepare()


@pytest.mark.parametrize("subject", [1, 5, 0])
def test_nights_that_were_not_scored_for_a_task_are_told_first(subject, tmp_path, make_night):
    where = scored(fold("corrected", tmp_path), make_night, subject, None)
    require_scored(where, "sleep_stage")
    with pytest.raises(InputError, match=f"apnea cannot be learnt from night {subject}, which holds no"):
        require_scored(where, "apnea")


def test_each_rule_of_a_protocol_is_on_the_page():
    page = (PROJECT / "docs" / "protocols.md").read_text()
    values = {field.name: field.default for field in dataclasses.fields(SynthSleepNetTraining)}
    for name, value in PROTOCOLS["published"].items():
        assert values[name] != value and f"`{name}` |" in page
    assert PROTOCOLS["corrected"] == {}


@pytest.mark.long
@pytest.mark.usefixtures("small_backbone")
def test_the_published_protocol_trains_every_step_and_stages(tmp_path, capsys):
    """Both channels of the EOG pretrain one network, and are streams of their own afterwards."""
    settings = [
        "hours=0.3",
        # Its validation night holds apneas.
        "synthetic_seed=2026",
        "folds=3",
        "labelled_subjects=3",
        "knn_nights=2",
        "probing_passes=4",
        "multimodal_passes=1",
    ]
    chosen = [part for value in settings for part in ("--set", value)]
    which = ["--modality", "eog", "--modality", "ecg", "--from_fold", "0", "--to_fold", "0"]
    common = ["--model", "synthsleepnet", "--preset", "tiny", "--db", "synthetic", "--protocol", "published"]
    where = ["--data", str(tmp_path / "nights"), "--out", str(tmp_path / "out")]
    assert trainer.main([*common, *which, *where, *chosen]) == 0, capsys.readouterr()
    done = tmp_path / "out/synthetic/0"
    records = {path.parent.relative_to(done): json.loads(path.read_text()) for path in done.rglob("metadata.json")}
    assert len(records) == 5
    for record in records.values():
        held = record["config"]["training"]
        assert {name: held[name] for name in PROTOCOLS["published"]} == json.loads(json.dumps(PROTOCOLS["published"]))
    of_eog, of_ecg = (records[Path("unimodal") / name] for name in ("eog", "ecg"))
    assert of_eog["channels"] == {"eog": "EOG L", "eog2": "EOG R"} and [*of_eog["recipe"]["channels"]] == ["eog"]
    labelled = of_eog["split"]["labelled"]
    assert len(labelled) == 3 and not {f"synthetic{n:02d}.npz" for n in labelled} & {*of_eog["nights"]}
    logs = [pd.read_csv(done / "unimodal" / name / "log.csv") for name in ("eog", "ecg")]
    assert of_eog["nights"] == of_ecg["nights"] and len(logs[0]) == len(logs[1]) == 2
    fusion = load_model(done / "multimodal/eog-eog2-ecg", [SynthSleepNetEncoder])
    own = [[w for w in fusion.backbones[n].weights if "lora" not in w.name] for n in ("eog", "eog2", "ecg")]
    same = [[np.array_equal(*pair) for pair in zip(own[0], other, strict=True)] for other in own[1:]]
    assert all(same[0]) and not all(same[1])

    recording = tmp_path / "sleeper.edf"
    write_recording(recording, 9, SyntheticConfig(hours=0.3))
    staged = ["--model", "synthsleepnet", "--dir", str(tmp_path / "out"), "--recording", str(recording)]
    assert predict.main([*staged, "--out", str(tmp_path / "staged")]) == 0, capsys.readouterr()
    channels = json.loads((tmp_path / "staged/sleeper.json").read_text())["channels"]
    assert {c["modality"]: c["name"] for c in channels} == {"eog": "EOG L", "eog2": "EOG R", "ecg": "ECG"}
