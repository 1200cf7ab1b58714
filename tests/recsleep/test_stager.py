"""Staging any recording with one network or several, at once or while it is recorded."""

import json
import shutil
from dataclasses import replace

import keras
import mne
import numpy as np
import pytest
from recordings import write_edf

import recsleep
from data.databases import ChannelSpec
from data.nights.files import write_arrays
from data.recipe import Level, Recipe
from data.terms import STAGES, InputError
from recsleep.inference import InferenceNetwork
from recsleep.model import RecSleepNet
from recsleep.onnx import to_onnx
from recsleep.predictor import RecSleepNetPredictor, of_network
from runs.networks import load_model, save_model
from runs.saved import sha256
from staging.stager import Stager

TINY = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}
RNG = np.random.default_rng(0)


def stager_of(network, level: Level) -> Stager:
    return Stager((RecSleepNetPredictor(network, Recipe({"eeg": ChannelSpec("EEG C4-M1")}, level=level)),))


def networks(count: int, **changes) -> list[RecSleepNet]:
    """The same ones whichever tests ran before: how much a small difference tells depends on the weights."""
    keras.utils.set_random_seed(0)
    rng, made = np.random.default_rng(0), [RecSleepNet(**TINY, **changes) for _ in range(count)]
    for network in made:
        network.head.kernel.assign(rng.normal(0, 3, (4, 5)))
    return made


@pytest.mark.model
@pytest.mark.parametrize("amplitude", [None, 3.0])
@pytest.mark.parametrize("chunk", [1, 777, 3000, 100_000])
def test_live_stages_are_the_whole_nights(amplitude, chunk):
    """One sample at a time over an epoch; else over twelve."""
    signals = RNG.normal(2, 4, (1 if chunk == 1 else 12, 3000)).astype("float32")
    if len(signals) > 1:
        signals[5] = 7
    network, level = InferenceNetwork(to_onnx(networks(2))), Level(12.5, 0.5)
    if amplitude:
        from data.recordings.quality import Quality, calibrated, flat

        quality = Quality(amplitude, flat(signals, amplitude), np.zeros(len(signals), bool), 0, np.zeros(len(signals)))
        expected = network.probabilities(calibrated(signals, quality, level)[None])[0]
        expected[quality.silent] = 0.2
    else:
        expected = network.probabilities(signals[None])[0]
    live = recsleep.LiveStager(stager_of(network, level), amplitude)
    for _ in range(2):
        samples = signals.ravel()
        staged = [
            epoch for first in range(0, len(samples), chunk) for epoch in live.push(samples[first : first + chunk])
        ]
        np.testing.assert_allclose([epoch.probabilities for epoch in staged], expected, atol=1e-5)
        assert [epoch.stage for epoch in staged] == [STAGES[epoch.smoothed.argmax()] for epoch in staged]
        live.reset()


@pytest.mark.parametrize("samples", [np.zeros((2, 3)), np.array([np.nan]), np.array(["a"])])
def test_live_takes_numbers_alone(samples):
    with pytest.raises(InputError, match="one-dimensional array of finite numbers"):
        recsleep.LiveStager(networks(1)[0]).push(samples)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two folds of a tiny network, trained at a level of 12 and 14 µV."""
    folder = tmp_path_factory.mktemp("models")
    for fold, network in enumerate(networks(2)):
        metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [fold]}, "amplitude": 12.0 + 2 * fold}
        save_model(folder / "synthetic" / str(fold), network, metadata)
    return folder


@pytest.fixture(scope="module")
def edf(tmp_path_factory):
    """Ten minutes of 128 Hz in µV."""
    noise = np.random.default_rng(1).normal(0, 30, (3, 128 * 600)).cumsum(axis=1)
    noise -= np.linspace(noise[:, 0], noise[:, -1], noise.shape[1]).T
    signals = {
        name: (x / np.abs(x).max() * 150, 128, "uV") for name, x in zip(("C4", "M1", "O2-M1"), noise, strict=True)
    }
    return write_edf(tmp_path_factory.mktemp("edf") / "night.edf", signals)


def test_a_raw_object_and_its_file_are_staged_alike(models, edf):
    stager = recsleep.load_stager(models)
    assert stager.predictors[0].recipe.level == Level(13.0)
    raw = mne.io.read_raw_edf(edf, verbose="error")
    ours, theirs = recsleep.stage(raw, stager), recsleep.stage(str(edf), models / "synthetic")
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    assert ours.name == "night" and len(ours.stages) == 20
    assert ours.about["channels"][0]["from"] == ["C4", "M1"]
    assert "C4-M1 (C4 less M1), 128 Hz to 100 Hz, in µV, times" in theirs.about["assumptions"][0]
    raw.set_annotations(ours.to_annotations())
    events, _ = mne.events_from_annotations(raw, chunk_duration=30.0, verbose="error")
    assert len(events) == 20


def test_the_folds_are_shared_out_among_several_channels(models, edf):
    both = recsleep.stage(edf, models, ["C4-M1", "O2-M1"])
    (together,) = recsleep.load_stager(models).predictors
    folds = [recsleep.load_stager(models / "synthetic" / fold).predictors[0] for fold in "01"]
    # Each fold knows a level of its own; both together take the median.
    stagers = [Stager((replace(fold, recipe=together.recipe),)) for fold in folds]
    single = [recsleep.stage(edf, s, channel) for s, channel in zip(stagers, ("C4-M1", "O2-M1"), strict=True)]
    # Both are as good, for neither has power above 20 Hz.
    assert [channel["weight"] for channel in both.about["channels"]] == pytest.approx([0.5, 0.5], abs=0.01)
    expected = np.mean([night.probabilities for night in single], axis=0)
    np.testing.assert_allclose(both.probabilities, expected, atol=0.005)
    with pytest.raises(InputError, match="twice"):
        recsleep.stage(edf, models, ["O2-M1", "o2-a1"])


@pytest.mark.parametrize("factor", [1e-6, 0.3, 3, 1e3])
def test_a_nights_factor_changes_no_stage(models, tmp_path, factor):
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (40, 1, 3000)).cumsum(axis=2).astype("float32")
    stager, staged = recsleep.load_stager(models), []
    for name, scale in (("a", 1), ("b", factor)):
        arrays = {"x": x * np.float32(scale), "y": np.zeros(40, int), "ch_names": np.array(["EEG C4-M1"])}
        write_arrays(tmp_path / f"{name}.npz", arrays)
        staged.append(recsleep.stage(tmp_path / f"{name}.npz", stager))
    np.testing.assert_allclose(staged[0].probabilities, staged[1].probabilities, atol=1e-4)


def test_an_hour_without_a_signal_is_unscored(models, tmp_path):
    x = np.random.default_rng(2).normal(0, 1, (100, 3000)).cumsum(axis=1).astype("float32")
    x[10:15], x[40:90] = 3, 5
    np.savez(tmp_path / "n.npz", x=x)
    night = recsleep.stage(tmp_path / "n.npz", models)
    np.testing.assert_array_equal(np.flatnonzero(night.stages == -1), np.arange(40, 90))
    np.testing.assert_allclose(night.probabilities[[10, 50]], 0.2)
    assert (night.stages[10:15] == 0).all()
    told = "55 of 100 epochs hold no signal (not recorded, flat, or at an end of the range): 10-14, 40-89."
    assert told in night.about["warnings"][len(night.doubts)]


def test_the_level_is_that_of_the_nights_around_sleep(tmp_path):
    """A network that finds sleep in slow waves; a day four times as large as the night."""
    rng = np.random.default_rng(3)
    x = 40 * rng.normal(0, 1, (900, 3000))
    x[300:400] = 10 * rng.normal(0, 1, (100, 300)).repeat(10, axis=1)
    np.savez(tmp_path / "n.npz", x=x.astype("float32"))

    class Slow:
        def probabilities(self, signals):
            smooth = signals[0].reshape(-1, 300, 10).mean(axis=2).std(axis=1)
            return np.eye(5, dtype="float32")[np.where(smooth > 0.9 * signals[0].std(axis=1), 2, 0)][None]

    night = recsleep.stage(tmp_path / "n.npz", stager_of(Slow(), Level(12.5)))
    # Of the epochs within half an hour of sleep, 100 are sleep and 120 wake.
    near = x[240:460].astype("float32")
    expected = np.median(np.median(np.abs(near - np.median(near, axis=1, keepdims=True)), axis=1))
    assert night.about["channels"][0]["amplitude"] == pytest.approx(expected, rel=1e-5)
    assert night.periods() == [(300, 400)]


def test_live_refuses_a_filter_that_needs_the_whole_night():
    recipe = Recipe({"eeg": ChannelSpec("EEG", band=(0.5, 40.0))})
    with pytest.raises(InputError, match="the filter needs the whole night"):
        recsleep.LiveStager(Stager((of_network(networks(1)[0], recipe),)))


def test_a_model_that_does_not_say_how_it_is_built(models, tmp_path):
    """As the first models of version 1 were saved: a network that is whole once it is made needs no more."""
    shutil.copytree(models / "synthetic/0", tmp_path / "0")
    config = json.loads((tmp_path / "0/config.json").read_text())
    del config["build"]
    (tmp_path / "0/config.json").write_text(json.dumps(config))
    metadata = json.loads((tmp_path / "0/metadata.json").read_text())
    metadata["sha256"]["config.json"] = sha256(tmp_path / "0/config.json")
    (tmp_path / "0/metadata.json").write_text(json.dumps(metadata))
    found, known = (
        load_model(folder / "0", [RecSleepNet]).get_weights() for folder in (tmp_path, models / "synthetic")
    )
    assert all(np.array_equal(a, b) for a, b in zip(found, known, strict=True))


def test_what_is_no_model(models, tmp_path):
    for folder, told in ((tmp_path / "absent", "does not exist"), (tmp_path, "holds no trained model")):
        with pytest.raises(InputError, match=told):
            recsleep.load_stager(folder)
    with pytest.raises(InputError, match="was trained on synthetic, not on isruc"):
        recsleep.load_stager(models / "synthetic", "isruc")


def test_a_network_alone_is_not_calibrated(edf):
    night = recsleep.stage(edf, networks(1)[0])
    assert "does not say its training level" in night.about["warnings"][-1]
    with pytest.raises(InputError, match="does not say its training level"):
        recsleep.LiveStager(networks(1)[0], amplitude=3)
    with pytest.raises(InputError, match="no channel C3"):
        recsleep.stage(edf, networks(1)[0], "C3")


@pytest.fixture(scope="module")
def sleeper():
    """An hour of EEG-like noise of three electrodes against the mastoids, float (3, 360000), in µV at 100 Hz."""
    rng = np.random.default_rng(4)
    common = rng.normal(0, 1, 360_000)
    walks = [(0.8 * common + 0.6 * rng.normal(0, 1, 360_000)).cumsum() for _ in range(3)]
    eeg = np.stack([walk - np.convolve(walk, np.ones(200) / 200, "same") for walk in walks])
    return 25 * eeg / eeg.std(axis=1, keepdims=True)


def staged_together(folder, models, derivations: dict) -> tuple:
    """The hypnogram of a recording of these derivations in µV, and the weight of each channel that voted."""
    span = 1 + max(np.abs(signal).max() for signal in derivations.values())
    path = write_edf(folder / "n.edf", {name: (x, 100, "uV") for name, x in derivations.items()}, span=span)
    night = recsleep.stage(path, models)
    return night, {channel["name"]: channel["weight"] for channel in night.about["channels"]}


def test_frontal_and_central_channels_vote_by_default(models, sleeper, tmp_path):
    names = ("O2-M1", "C3-M2", "F4-M1")
    night, weights = staged_together(tmp_path, models, dict(zip(names, sleeper, strict=True)))
    assert list(weights) == ["C3-M2", "F4-M1"]
    assert weights == pytest.approx({"C3-M2": 0.5, "F4-M1": 0.5}, abs=0.03)
    assert [sentence.split(" ")[1] for sentence in night.about["assumptions"]] == ["C3-M2,", "F4-M1,"]
    assert night.about["warnings"] == night.doubts


@pytest.mark.parametrize("bad", ["noisy", "flat", "fallen off at once"])
def test_a_bad_channel_has_no_vote(models, sleeper, tmp_path, bad):
    noise = np.random.default_rng(5).normal(0, 25, sleeper.shape[1])
    after = np.arange(sleeper.shape[1]) > 30_000
    second = {"noisy": noise, "flat": 0 * noise, "fallen off at once": np.where(after, 0, sleeper[1])}[bad]
    alone, _ = staged_together(tmp_path, models, {"C4-M1": sleeper[0]})
    night, weights = staged_together(tmp_path, models, {"C4-M1": sleeper[0], "C3-M2": second})
    assert weights == {"C4-M1": 1.0}
    np.testing.assert_allclose(night.probabilities, alone.probabilities, atol=0.002)
    assert "C3-M2" in night.about["warnings"][len(night.doubts)]


def test_a_lead_that_falls_off_has_no_vote_from_there_on(models, sleeper, tmp_path):
    """Each fold sees one channel, so that the last third is what the first fold says of the first channel."""
    second = sleeper[1].copy()
    second[240_000:] = np.random.default_rng(5).normal(0, 25, 120_000)
    night, weights = staged_together(tmp_path, models, {"C4-M1": sleeper[0], "C3-M2": second})
    assert weights == pytest.approx({"C4-M1": 0.67, "C3-M2": 0.33}, abs=0.03)
    (together,) = recsleep.load_stager(models).predictors
    first = replace(recsleep.load_stager(models / "synthetic/0").predictors[0], recipe=together.recipe)
    alone, _ = staged_together(tmp_path, Stager((first,)), {"C4-M1": sleeper[0]})
    np.testing.assert_allclose(night.probabilities[80:], alone.probabilities[80:], atol=0.01)
    assert np.abs(night.probabilities[:80] - alone.probabilities[:80]).max() > 0.05


def test_a_swapped_unit_changes_no_vote(models, sleeper, tmp_path):
    """Each channel is brought to the level of training, whatever its unit."""
    right, weights = staged_together(tmp_path, models, {"C4-M1": sleeper[0], "C3-M2": sleeper[1]})
    swapped, others = staged_together(tmp_path, models, {"C4-M1": sleeper[0], "C3-M2": 10 * sleeper[1]})
    assert others == pytest.approx(weights, abs=0.01)
    np.testing.assert_allclose(swapped.probabilities, right.probabilities, atol=0.01)
    assert "C3-M2: its unit is probably wrong" in swapped.about["warnings"][len(swapped.doubts)]
