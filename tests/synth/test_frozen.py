"""What is computed of whole nights is what the network computes: its frozen convolutions, and its probabilities."""

import keras
import numpy as np
import pytest

from data.recipe import Recipe
from synth.in_training import EPOCHS_AT_ONCE, TrainingPredictor
from synth.models.classifier import FineTuning
from synth.steps.frozen import FrozenConvolutions

pytestmark = pytest.mark.usefixtures("small_backbone")

BACKBONE = {"window": 3, "step": 9, "dim": 16, "heads": 2, "depth": 1}


def test_from_disk_as_from_signals(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = {"modalities": ("eeg", "emg"), "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}
    network = FineTuning(encoder, tcm="lstm")
    epochs = EPOCHS_AT_ONCE + 6
    signals = {name: np.random.default_rng(0).normal(size=(epochs, 3000)).astype("float32") for name in ("eeg", "emg")}
    predictor = TrainingPredictor(network, Recipe({}), "sleep_stage", 20)
    frozen = FrozenConvolutions(network.encoder, predictor.convolve, tmp_path, "encoder")
    kept = frozen.of("night", signals)
    files = sorted(frozen.folder.iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    assert [file.name for file in files] == ["night-eeg.npy", "night-emg.npy"]
    assert sum(values.nbytes for values in kept.values()) == epochs * frozen.bytes_per_epoch
    ours, expected = (
        keras.ops.convert_to_numpy(network({"signals": {name: values[None] for name, values in each.items()}}))
        for each in (frozen.of("night", {name: 0 * values for name, values in signals.items()}), signals)
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert [file.stat().st_mtime_ns for file in files] == written


def test_whole_nights_are_embedded_few_epochs_at_a_time():
    """However many stretches training takes at once; the probabilities are those of the network on whole stretches."""
    keras.utils.set_random_seed(0)
    network = FineTuning({"modalities": ("eeg",), "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}, tcm="mha")
    length, epochs = 20, 2 * EPOCHS_AT_ONCE + 5
    signals = np.random.default_rng(0).normal(size=(epochs, 3000)).astype("float32")
    predictor, sizes = TrainingPredictor(network, Recipe({}), "sleep_stage", length), set()
    convolve = predictor.convolve["eeg"]

    def observed(batch):
        sizes.add(len(batch))
        return convolve(batch)

    predictor.convolve["eeg"] = observed
    found = predictor.probabilities({"eeg": signals})
    padded = np.zeros((7 * length, 3000), "float32")
    padded[:epochs] = signals
    mask = np.arange(7 * length) < epochs
    inputs = {"signals": {"eeg": padded.reshape(7, length, 3000)}, "mask": mask.reshape(7, length)}
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(network(inputs))).reshape(-1, 5)[:epochs]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sizes == {EPOCHS_AT_ONCE}


def test_networks_of_one_kind_are_compiled_without_a_warning(caplog):
    """TensorFlow took them for one function that is compiled again and again."""
    network = FineTuning({"modalities": ("eeg",), "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}, tcm="none")
    for _ in range(6):
        predictor = TrainingPredictor(network, Recipe({}), "sleep_stage", 20)
        predictor.convolve["eeg"](np.zeros((1, 3000), "float32"))
    assert "retracing" not in caplog.text
