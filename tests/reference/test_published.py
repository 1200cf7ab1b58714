"""The published checkpoints: same logits as the reference graph, same figures, clear errors where they are damaged."""

import json
import shutil

import keras
import numpy as np
import pytest

import predict
import recsleep
from config import ADAPTATION
from data.nights.folds import Split
from data.nights.index import check_nights
from data.terms import InputError
from recsleep.beginning import folds_in
from recsleep.inference import InferenceNetwork
from recsleep.onnx import to_onnx
from recsleep.tensorflow1 import read_checkpoint
from runs.settings import configure
from staging.engine import open_session

tf = pytest.importorskip("tensorflow", reason="TensorFlow reads the TensorFlow-1 checkpoints")


@pytest.mark.model
@pytest.mark.parametrize("golden", ["isruc_fold0", "sleepedf_fold0", "sleepedfx_fold0", "ucddb_fold14"])
def test_logits_and_state_are_the_reference_graphs(reference, golden):
    db, fold = golden.split("_fold")
    network = read_checkpoint(reference / "pretrained_model" / db / fold)
    expected = np.load(reference / "goldens" / f"recsleepnet_{golden}.npz")
    source = expected if "x" in expected else np.load(reference / "nights" / "ucddb" / "ucddb018.npz")
    state = network.initial_state(1)
    logits, (hidden, cell) = network({"signals": source["x"][None], "state": state})
    # JAX's and PyTorch's sigmoids round otherwise than TensorFlow's, which the reference used: that moves one cell
    # of -237 by 1.4e-4 over 822 steps, nine float32 steps of that number.
    rtol = 0 if keras.backend.backend() == "tensorflow" else 1e-6
    for ours, name in ((logits, "logits"), (hidden, "final_h"), (cell, "final_c")):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(ours)[0], expected[name], rtol=rtol, atol=1e-4)


@pytest.mark.model
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("golden", ["isruc_fold0", "sleepedf_fold0", "sleepedfx_fold0", "ucddb_fold14"])
def test_onnx_runtime_computes_what_keras_does(reference, golden, threads):
    db, fold = golden.split("_fold")
    network = read_checkpoint(reference / "pretrained_model" / db / fold)
    source = np.load(reference / "goldens" / f"recsleepnet_{golden}.npz")
    signals = (source if "x" in source else np.load(reference / "nights" / "ucddb" / "ucddb018.npz"))["x"]
    logits, state = network({"signals": signals[None], "state": network.initial_state(1)})
    session = open_session(to_onnx([network]), threads)
    inputs = {"signals": signals[None], "hidden": np.zeros((1, 128), "float32"), "cell": np.zeros((1, 128), "float32")}
    found = session.run(["logits", "next_hidden", "next_cell"], inputs)
    # Cells count up to several hundred, of which float32 keeps seven digits.
    for ours, expected in zip(found, (logits, *state), strict=True):
        np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-5)


def test_staging_in_chunks_gives_the_softmax_of_the_golden(reference):
    network = read_checkpoint(reference / "pretrained_model" / "ucddb" / "14")
    logits = np.load(reference / "goldens" / "recsleepnet_ucddb_fold14.npz")["logits"].astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    signals = np.load(reference / "nights" / "ucddb" / "ucddb018.npz")["x"]
    ours = InferenceNetwork(to_onnx([network])).probabilities(signals[None])[0]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_published_figures_on_subject_18(reference, tmp_path, capsys):
    models, nights = reference / "pretrained_model", reference / "nights" / "ucddb"
    arguments = ["--db", "ucddb", "--fold", "14", "--dir", str(models), "--data", str(nights)]
    assert predict.main([*arguments, "--json", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    assert "accuracy 0.810   macro-F1 0.779   kappa 0.740   822 epochs" in printed
    pooled = json.loads((tmp_path / "r.json").read_text())["pooled"]
    assert pooled["accuracy"] == pytest.approx(0.8102, abs=5e-5)
    assert pooled["macro_f1"] == pytest.approx(0.7786, abs=5e-5)
    assert pooled["kappa"] == pytest.approx(0.7401, abs=5e-5)


def test_every_published_checkpoint_at_hand_is_read(reference):
    folders = [path.parent for path in sorted((reference / "pretrained_model").rglob("*.index"))]
    assert len(folders) >= 13
    sums = {float(np.abs(read_checkpoint(folder).get_weights()[0]).sum()) for folder in folders}
    assert len(sums) == len(folders)


@pytest.fixture
def checkpoint(reference, tmp_path):
    """The fold's variables, and a writer of a checkpoint that holds changed ones."""
    folder = reference / "pretrained_model" / "ucddb" / "14"
    reader = tf.train.load_checkpoint(str(next(folder.glob("*.index")).with_suffix("")))
    variables = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}

    def write(changes: dict):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            kept = {
                name: tf.compat.v1.get_variable(name, initializer=value)
                for name, value in (variables | changes).items()
                if value is not None
            }
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver(kept).save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
        return tmp_path

    return write


def test_a_missing_variable_is_named(checkpoint):
    folder = checkpoint({"rnn/rnn/multi_rnn_cell/cell_0/lstm_cell/w_f_diag": None})
    with pytest.raises(InputError, match=r"no variable rnn/rnn/multi_rnn_cell/cell_0/lstm_cell/w_f_diag"):
        read_checkpoint(folder)


def test_a_misshapen_variable_is_named(checkpoint):
    folder = checkpoint({"cnn/conv1d_2_2/conv2d/kernel": np.zeros((8, 1, 128, 64), "float32")})
    told = r"cnn/conv1d_2_2/conv2d/kernel has the shape \(8, 1, 128, 64\), not \(8, 1, 128, 128\)"
    with pytest.raises(InputError, match=told):
        read_checkpoint(folder)


def test_damaged_checkpoints_are_told(reference, tmp_path):
    folder = reference / "pretrained_model" / "ucddb" / "14"
    for pattern, size in (("*.index", 100), ("*.data-*", 1000)):
        copy = shutil.copytree(folder, tmp_path / pattern[2:5])
        for path in copy.iterdir():
            path.chmod(0o644)
        damaged = next(copy.glob(pattern))
        damaged.write_bytes(damaged.read_bytes()[:size])
        with pytest.raises(InputError, match=r"damaged|cannot be read"):
            read_checkpoint(copy)


def test_paths_in_the_checkpoint_file_are_not_followed(reference, tmp_path):
    copy = shutil.copytree(reference / "pretrained_model" / "ucddb" / "14", tmp_path / "14")
    (copy / "checkpoint").chmod(0o644)
    (copy / "checkpoint").write_text('model_checkpoint_path: "/etc/passwd"\n')
    assert read_checkpoint(copy).count_params() == 859_909


def test_adapting_begins_with_what_the_published_fold_makes_of_a_recording(reference, tmp_path, capsys):
    """Nights in another unit and with an offset: judged before the first pass, it is as good as in staging."""
    from recsleep.fold import FoldTask, FoldTrainer

    nights, folder = reference / "nights" / "ucddb", tmp_path / "sleepedfx" / "0"
    shutil.copytree(reference / "pretrained_model" / "sleepedfx" / "0", folder)
    files = check_nights({subject: [nights / f"ucddb{subject:03d}.npz"] for subject in (2, 3, 18)}, ["C3A2"])
    config = configure("custom", ["channel=C3A2", *(f"{name}={value}" for name, value in ADAPTATION.items())])
    (trained,) = folds_in(folder)
    fold = FoldTrainer(FoldTask(config, Split(0, (2,), (18,), (3,)), files, tmp_path / "out", False, trained))
    fold.prepare()
    assert (
        "WARNING: no training night holds N1, N2, REM, so the network will forget how to find it, which"
        in capsys.readouterr().out
    )
    staged = recsleep.stage(nights / "ucddb018.npz", folder, smooth=False).agreement
    assert staged.accuracy > 0.85
    assert fold.best == {"pass": 0, "accuracy": staged.accuracy, "macro_f1": staged.macro_f1}
    # Nobody knows which of the published folds saw whom of their own database, or of one whose nights it shares.
    with pytest.raises(InputError, match=r"was trained on sleepedfx, but does not say on which nights"):
        of_its_own = configure("sleepedf")
        FoldTrainer(FoldTask(of_its_own, Split(0, (2,), (18,), (3,)), files, tmp_path / "out", False, trained))
