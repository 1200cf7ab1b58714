"""RecSleepNet as an ONNX file: what it computes, when it is written, and that staging needs no Keras."""

import json
import subprocess
import sys

import numpy as np
import plain_numpy
import pytest
from recordings import write_edf

import recsleep
from data.terms import InputError
from recsleep.inference import InferenceNetwork
from recsleep.model import RecSleepNet
from recsleep.onnx import to_onnx
from recsleep.onnx.__main__ import main
from runs.networks import save_model
from runs.saved import sha256

SMALL = {"filters": 6, "first_kernel": 20, "block_kernel": 4, "lstm_units": 5}
RNG = np.random.default_rng(0)


def networks(count: int, **changes) -> list[RecSleepNet]:
    made = [RecSleepNet(**{**SMALL, **changes}) for _ in range(count)]
    for network in made:
        network.head.kernel.assign(RNG.normal(0, 3, network.head.kernel.shape))
        network.lstm.bias.assign(RNG.normal(0, 1, network.lstm.bias.shape))
    return made


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"samples": 300, "first_stride": 3, "first_pool": 4, "second_pool": 3},
        {"global_pooling": "average"},
        {"global_pooling": "maximum"},
    ],
)
def test_the_mean_of_the_members_is_that_of_plain_numpy(changes, threads):
    members = networks(3, **changes)
    signals = RNG.normal(0, 20, (41, members[0].samples)).astype("float32")
    expected = np.mean([softmax(plain_numpy.recsleepnet(member, signals)[0]) for member in members], axis=0)
    network = InferenceNetwork(to_onnx(members), threads)
    np.testing.assert_allclose(network.probabilities(signals[None])[0], expected, atol=1e-5)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize(
    ("channels", "shares"), [(2, [(0, 2), (1,)]), (3, [(0,), (1,), (2,)]), (5, [(0,), (1,), (2,), (0,), (1,)])]
)
def test_the_members_are_shared_out_among_channels(channels, shares):
    """The members of each share are those that see the channel."""
    members = networks(3)
    signals = RNG.normal(0, 20, (channels, 35, 3000)).astype("float32")
    found = InferenceNetwork(to_onnx(members)).probabilities(signals)
    for ours, channel, share in zip(found, signals, shares, strict=True):
        expected = np.mean([softmax(plain_numpy.recsleepnet(members[k], channel)[0]) for k in share], axis=0)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize("chunk", [1, 7, 41])
def test_any_number_of_epochs_at_a_time_gives_the_same(chunk):
    network = InferenceNetwork(to_onnx(networks(2)))
    signals = RNG.normal(0, 20, (2, 41, 3000)).astype("float32")
    whole, last = network.step(signals, network.initial_state())
    state, found = network.initial_state(), []
    for first in range(0, 41, chunk):
        probabilities, state = network.step(signals[:, first : first + chunk], state)
        found.append(probabilities)
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=1e-6)
    np.testing.assert_allclose(state, last, atol=1e-6)


@pytest.mark.model
@pytest.mark.whole_model
@pytest.mark.parametrize(
    "changes", [{"first_pool": 4}, {"second_pool": 2}, {"filters": 4}, {"global_pooling": "average"}]
)
def test_members_of_different_architecture_are_refused(changes):
    with pytest.raises(InputError, match="differ in architecture"):
        to_onnx([*networks(1), *networks(1, **changes)])


@pytest.fixture
def folds(tmp_path):
    """Two folds, saved as training leaves them."""
    for fold, network in enumerate(networks(2)):
        metadata = {"db": "isruc", "channel": "C3-A2", "split": {"test": [fold]}, "amplitude": 12.0}
        save_model(tmp_path / "isruc" / str(fold), network, metadata)
    return tmp_path / "isruc"


def test_the_file_is_made_at_first_use_and_again_of_other_weights(folds, capsys):
    path = folds / "model.onnx"
    recsleep.load_stager(folds)
    assert "being made from the weights" in capsys.readouterr().err
    made = path.read_bytes()
    recsleep.load_stager(folds)
    assert not capsys.readouterr().err
    for damage in (made[:-100], b"", b"no graph", to_onnx(networks(2))):
        path.write_bytes(damage)
        recsleep.load_stager(folds)
        assert path.read_bytes() == made
    save_model(folds / "1", networks(1)[0], json.loads((folds / "1/metadata.json").read_text()))
    recsleep.load_stager(folds)
    assert path.read_bytes() != made


def test_the_file_of_a_fold_is_hashed_in_its_metadata(folds, capsys):
    fold = folds / "0"
    assert main([str(fold)]) == 0
    path = fold / "model.onnx"
    assert json.loads((fold / "metadata.json").read_text())["sha256"]["model.onnx"] == sha256(path)
    made = path.read_bytes()
    # One bit of a weight, which ONNX Runtime takes for another weight.
    path.write_bytes(made[:5000] + bytes([made[5000] ^ 1]) + made[5001:])
    capsys.readouterr()
    recsleep.load_stager(fold)
    assert "being made from the weights" in capsys.readouterr().err
    assert path.read_bytes() == made


def test_a_folder_that_cannot_be_written_is_used_all_the_same(folds, capsys):
    (folds / "model.onnx").mkdir()
    (predictor,) = recsleep.load_stager(folds).predictors
    assert predictor.probabilities({"eeg": np.zeros((3, 3000), "float32")}).shape == (3, 5)
    assert "So every run will make this file again" in capsys.readouterr().err


def test_the_metadata_say_what_the_graph_takes(folds):
    (predictor,) = recsleep.load_stager(folds).predictors
    about = InferenceNetwork(folds / "model.onnx").about
    assert about["db"] == "isruc" and about["stages"] == ["W", "N1", "N2", "N3", "REM"]
    assert about["recipe"] == predictor.recipe.to_json()
    assert [model["model.weights.h5"] for model in about["models"]] == [model["sha256"] for model in predictor.models]


def test_the_example_stages_as_we_do(folds, make_night, project):
    night = make_night(folds.parent / "n.npz", 20)
    stager = recsleep.load_stager(folds)
    command = [sys.executable, "examples/stage_with_onnx.py", str(folds / "model.onnx"), str(night)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=True)
    expected = recsleep.stage(night, stager, smooth=False)
    assert [line.split()[1] for line in done.stdout.splitlines()] == list(expected.to_frame()["stage"])


def test_staging_imports_no_other_framework(folds, make_night, project):
    """Keras and TensorFlow train, scikit-learn compares with a scorer, MNE reads what is no EDF."""
    night = make_night(folds.parent / "n.npz", 20)
    edf = write_edf(folds.parent / "n.edf", {"C3-A2": (RNG.normal(0, 20, 60000), 100, "uV")})
    recsleep.load_stager(folds)
    command = ["--recording", str(edf), "--dir", str(folds), "--out", str(folds.parent / "results")]
    absent = ("keras", "tensorflow", "onnx", "mne", "sklearn", "scipy", "matplotlib.pyplot")
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        f"import predict\nassert predict.main({command}) == 0\n"
        f"import numpy, recsleep\nnight = recsleep.stage({str(night)!r}, {str(folds)!r})\n"
        f"live = recsleep.LiveStager({str(folds)!r})\n"
        "assert len(night.stages) == 20 and len(live.push(numpy.ones(6001))) == 2"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
