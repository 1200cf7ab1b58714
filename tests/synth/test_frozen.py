"""Frozen convolutions kept on disk give what the network computes from signals."""

import keras
import numpy as np

from synth.embeddings import EPOCHS_AT_ONCE
from synth.models.classifier import FineTuning
from synth.steps.frozen import FrozenConvolutions

BACKBONE = {"window": 3, "step": 9, "dim": 16, "heads": 2, "depth": 1}


def test_from_disk_as_from_signals(tmp_path):
    keras.utils.set_random_seed(0)
    encoder = {"modalities": ("eeg", "emg"), "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}
    network = FineTuning(encoder, tcm="lstm")
    epochs = EPOCHS_AT_ONCE + 6
    signals = {name: np.random.default_rng(0).normal(size=(epochs, 3000)).astype("float32") for name in ("eeg", "emg")}
    frozen = FrozenConvolutions(network.encoder, tmp_path, "encoder")
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
