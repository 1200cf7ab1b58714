"""SynthSleepNet's fine-tuned models as ONNX files: what they compute, when they are written, and staging without Keras.

The goldens of the published model are met in ``test_goldens.py``.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from fine_tuned import randomise, write_model
from keras import ops

from data.recipe import Recipe
from data.terms import InputError
from runs.saved import sha256
from staging import graph
from synth.inference import PART_EPOCHS, InferenceNetwork
from synth.layers import frames
from synth.models.classifier import FineTuned, FineTuning, NeuroNetFineTuning
from synth.onnx import to_onnx
from synth.onnx.__main__ import main
from synth.predictor import FineTunedPredictor, of_network
from synth.terms import TCMS

# One process makes the folds.
pytestmark = [pytest.mark.xdist_group("fine-tuned folds"), pytest.mark.usefixtures("small_backbone")]

BACKBONE = {"window": 3.0, "step": 9.0, "dim": 16, "heads": 2, "depth": 2}
LENGTH = PART_EPOCHS + 2


def fine_tuned(modalities, tcm, classes=5, **changes) -> FineTuned:
    """A network none of whose weights is as it begins, and whose outputs differ between epochs.

    The same on every backend, in whatever order the tests run.
    """
    encoder = {"modalities": modalities, "backbone": {**BACKBONE, **changes}, "dim": 32, "heads": 2, "depth": 2}
    return spread_out(randomise(FineTuning(encoder, classes, tcm)))


def neuronet(tcm: str) -> FineTuned:
    """NeuroNet alone, likewise."""
    return spread_out(randomise(NeuroNetFineTuning({"modalities": ("eeg",), "backbone": BACKBONE, "dim": 32}, 5, tcm)))


def spread_out(network: FineTuned) -> FineTuned:
    # Centred on a night and spread out: else one class may have all the probability.
    night = {name: x[None] for name, x in signals(network.encoder.modalities, LENGTH).items()}
    found, last = ops.convert_to_numpy(network({"signals": night}))[0], network.classifier.head.logits
    spread = np.sqrt(found.var(axis=0).mean())
    last.bias.assign((ops.convert_to_numpy(last.bias) - found.mean(axis=0)) / spread)
    last.kernel.assign(ops.convert_to_numpy(last.kernel) / spread)
    return network


def signals(modalities, epochs: int) -> dict[str, np.ndarray]:
    """Noise of another level in each epoch."""
    rng = np.random.default_rng(2)
    levels = rng.uniform(0, 3, (epochs, 1))
    return {name: (levels * rng.normal(size=(epochs, 3000))).astype("float32") for name in modalities}


def by_keras(network: FineTuned, night: dict[str, np.ndarray], length: int) -> np.ndarray:
    """The probabilities, each stretch by itself, so that none is padded."""
    starts = range(0, len(next(iter(night.values()))), length)
    stretches = ({name: x[None, first : first + length] for name, x in night.items()} for first in starts)
    found = [ops.softmax(network({"signals": stretch}))[0] for stretch in stretches]
    return np.concatenate([ops.convert_to_numpy(each) for each in found])


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize(
    ("tcm", "modalities"),
    [*((tcm, ("emg", "eeg")) for tcm in TCMS), (("mha",), ("eeg",)), ("mamba2", ("eeg", "emg", "airflow"))]
    # NeuroNet alone.
    + [(tcm, ()) for tcm in ("mamba", "none")],
)
def test_probabilities_are_those_of_keras(tcm, modalities):
    """Whether a night is a part of a stretch, whole stretches, or more; in whatever parts it is computed."""
    network = fine_tuned(modalities, tcm) if modalities else neuronet(tcm)
    night = signals(network.encoder.modalities, 2 * LENGTH + 1)
    content, expected = to_onnx(network), by_keras(network, night, LENGTH)
    assert expected.std(axis=0).min() > 1e-2
    for threads in (1, 2):
        found = InferenceNetwork(content, threads).probabilities(night, LENGTH)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for epochs in (1, LENGTH - 1, 2 * LENGTH):
        part = {name: x[:epochs] for name, x in night.items()}
        found = InferenceNetwork(content).probabilities(part, LENGTH)
        np.testing.assert_allclose(found, by_keras(network, part, LENGTH), atol=1e-5)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize("tcm", TCMS)
def test_long_stretches_are_those_of_keras(tcm):
    """Of more steps than the state spaces compute as one chunk."""
    network, night = fine_tuned(("eeg",), tcm, 2), signals(("eeg",), 150)
    predictor = of_network(network, Recipe({}), "apnea", 150)
    np.testing.assert_allclose(predictor.probabilities(night), by_keras(network, night, 150), atol=1e-5)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize("changes", [{"window": 4.0}, {"window": 5.0, "step": 25.0}, {"lora": {"fc1": {"rank": 2}}}])
def test_whole_backbones_with_other_frames_and_adaptations(monkeypatch, changes):
    for name, value in (("WIDTHS", (16, 16, 32, 32)), ("STRIDES", (1, 1, 2, 2)), ("POOLING", {3: 16, 5: 11, 7: 6})):
        monkeypatch.setattr(frames, name, value)
    network, night = fine_tuned(("eeg",), "lstm", **changes), signals(("eeg",), 3)
    found = InferenceNetwork(to_onnx(network)).probabilities(night, 3)
    np.testing.assert_allclose(found, by_keras(network, night, 3), atol=1e-5)


def test_a_network_too_large_for_a_file_is_told(monkeypatch):
    monkeypatch.setattr(graph, "LARGEST", 10_000)
    with pytest.raises(InputError, match="SynthSleepNet is too large for an ONNX file, which holds at most 2 GiB"):
        to_onnx(fine_tuned(("eeg",), "lstm"))


@pytest.fixture
def model(tmp_path):
    """A fine-tuned model, as training saves it before its ONNX file is written."""
    return write_model(tmp_path / "synthetic" / "0", ("eeg", "emg"), "sleep_stage")


def test_the_file_is_made_at_first_use_and_again_of_other_weights(model, capsys):
    night, path = signals(("eeg", "emg"), 9), model / "model.onnx"
    first = FineTunedPredictor(model)
    assert not path.exists()
    expected = first.probabilities(night)
    assert "being made from the weights" in capsys.readouterr().err
    made = path.read_bytes()
    assert json.loads((model / "metadata.json").read_text())["sha256"]["model.onnx"] == sha256(path)
    np.testing.assert_array_equal(FineTunedPredictor(model).probabilities(night), expected)
    assert not capsys.readouterr().err
    # The last: one bit of a weight, which ONNX Runtime takes for another weight.
    for damage in (made[:-100], b"", b"no graph", made[:5000] + bytes([made[5000] ^ 1]) + made[5001:]):
        path.write_bytes(damage)
        np.testing.assert_array_equal(FineTunedPredictor(model).probabilities(night), expected)
        assert "being made from the weights" in capsys.readouterr().err
        assert path.read_bytes() == made
    write_model(model.parents[3], ("eeg", "emg"), "sleep_stage")
    assert not np.array_equal(FineTunedPredictor(model).probabilities(night), expected)
    assert path.read_bytes() != made


def test_a_folder_that_cannot_be_written_is_used_all_the_same(model, capsys):
    (model / "model.onnx").mkdir()
    assert FineTunedPredictor(model).probabilities(signals(("eeg", "emg"), 3)).shape == (3, 5)
    assert "So every run will make this file again" in capsys.readouterr().err


def test_metadata_of_other_modalities_are_told(model):
    metadata = json.loads((model / "metadata.json").read_text())
    del metadata["channels"]["emg"]
    (model / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="the recipe there does not fit the network's streams"):
        FineTunedPredictor(model).probabilities(signals(("eeg",), 3))


def test_the_command_writes_every_model_and_says_what_it_is(model, capsys):
    apnea = write_model(model.parents[3], ("eeg",), "apnea")
    assert main([str(model.parents[4])]) == 0
    assert capsys.readouterr().out.count("model.onnx: ") == 2
    about = InferenceNetwork(apnea / "model.onnx").about
    assert (about["db"], about["task"], about["stretch_epochs"]) == ("synthetic", "apnea", 6)
    assert about["classes"] == ["no apnea", "apnea"]
    assert about["recipe"] == FineTunedPredictor(apnea).recipe.to_json()
    assert about["models"][0]["model.weights.h5"] == sha256(apnea / "model.weights.h5")
    assert main([str(model)]) == 2
    assert "holds no trained model: fine-tune models with `python trainer.py --model synth" in capsys.readouterr().err


def test_staging_imports_neither_keras_nor_tensorflow(model, make_night, project, tmp_path):
    night = make_night(tmp_path / "nights" / "synthetic00.npz", 20)
    with np.load(night) as arrays:
        channels = np.stack([arrays["x"]] * 2, axis=1)
        np.savez(night, x=channels, y=arrays["y"], fs=100.0, ch_names=["EEG C4-M1", "EMG"])
    assert main([str(model.parents[4])]) == 0
    models = str(model.parents[4])
    code = (
        "import sys\nfor name in ('keras', 'tensorflow', 'onnx'): sys.modules[name] = None\n"
        f"import predict\ncommon = ['--model', 'synthsleepnet', '--dir', {models!r}]\n"
        f"staged = predict.main([*common, '--recording', {str(night)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        f"evaluated = predict.main([*common, '--data', {str(night.parent)!r}, '--fold', '0'])\n"
        "assert (staged, evaluated) == (0, 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "synthetic00.hypnogram.csv").is_file() and "being made" not in done.stderr
