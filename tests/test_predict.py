"""The evaluation command given wrong folders, models and nights."""

import hashlib
import json
import shutil
import tempfile

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import predict
from recsleep.model import RecSleepNet
from recsleep.predictor import load_fold
from runs.networks import load_model, save_model

TINY = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}


@pytest.fixture
def models(tmp_path, make_night):
    """Folds 0 and 1 of UCDDB, testing subjects 2 and 3, with the nights of both."""
    folder = tmp_path / "models"
    for fold, subject in enumerate((2, 3)):
        save_model(
            folder / "ucddb" / str(fold),
            RecSleepNet(**TINY),
            {
                "db": "ucddb",
                "channel": "C3A2",
                "split": {"fold": fold, "train": [5], "validation": [6], "test": [subject]},
            },
        )
        make_night(tmp_path / "nights" / f"ucddb{subject:03d}.npz", 12, seed=subject)
    return folder


def evaluate(models, *arguments: str) -> int:
    nights = next(parent / "nights" for parent in models.parents if (parent / "nights").is_dir())
    return predict.main(["--dir", str(models), "--data", str(nights), *arguments])


def test_database_is_found_and_folds_are_pooled(models, capsys):
    assert evaluate(models, "--json", str(models / "r.json")) == 0
    figures = json.loads((models / "r.json").read_text())
    assert [fold["fold"] for fold in figures["folds"]] == [0, 1]
    total = np.sum([fold["confusion_matrix"] for fold in figures["folds"]], axis=0)
    assert figures["pooled"]["confusion_matrix"] == total.tolist()
    assert total.sum() == 24
    assert "2 folds pooled" in capsys.readouterr().out


def test_dir_may_hold_the_folds_themselves(models, capsys):
    assert evaluate(models / "ucddb", "--dataset", "ucddb", "--fold", "1") == 0
    assert "ucddb003: accuracy" in capsys.readouterr().out


def test_missing_folds_and_nights_are_said(models, capsys):
    (models.parent / "nights" / "ucddb002.npz").unlink()
    assert evaluate(models, "--fold", "0", "1", "7") == 0
    printed = capsys.readouterr().out
    assert f"fold 0: {models.parent}/nights holds no night file of subject 2." in printed
    assert "Not evaluated, because the model or the night files are missing: fold 0, 7." in printed
    assert "ucddb003" in printed


def test_the_models_own_channel_and_file_names_count(models, make_night, capsys):
    """Trained with ``--set channel=O1`` and other names of night files than the database has."""
    (fold,), network = load_fold(models / "ucddb" / "0"), load_model(models / "ucddb" / "0", [RecSleepNet])
    x = np.random.default_rng(0).normal(0, 20, (12, 2, 3000)).astype("float32")
    for channels, name in ((("C3A2", "O1"), "ucddb002"), (("O1", "C3A2"), "night-002")):
        make_night(models.parent / "nights" / f"{name}.npz", 12, x=x, ch_names=np.array(channels))
    config = {"database": {"night_patterns": ["night-{subject:03d}.npz"], "folds": 25}}
    save_model(models / "ucddb" / "0", network, {**fold.metadata, "channel": "O1", "config": config})
    saved = models / "saved"
    assert evaluate(models, "--fold", "0", "--save", str(saved)) == 0
    assert "night-002: accuracy" in capsys.readouterr().out
    expected = fold.probabilities({"eeg": x[:, 0]})
    found = pd.read_csv(saved / "ucddb" / "0" / "night-002.csv")
    np.testing.assert_allclose(found[["W", "N1", "N2", "N3", "REM"]], expected, atol=1e-5)


def test_every_database_whose_nights_are_at_hand_is_evaluated(models, tmp_path, monkeypatch, capsys):
    """The line that users type: ``python predict.py --dir ./pretrained_model``."""
    shutil.copytree(models / "ucddb", models / "isruc")
    for path in (models / "isruc").glob("*/metadata.json"):
        path.write_text(path.read_text().replace('"ucddb"', '"isruc"').replace("C3A2", "C3-A2"))
    monkeypatch.chdir(tmp_path)
    for link in (False, True):
        assert predict.main(["--dir", str(models)]) == (0 if link else 2)
        printed = capsys.readouterr()
        if not link:
            assert "night files data/isruc does not exist" in printed.err and "data/ucddb" in printed.err
            (tmp_path / "data").mkdir()
            # A folder with a database's name that holds no model keeps nobody from the others either.
            (models / "shhs").mkdir()
            (tmp_path / "data" / "ucddb").symlink_to(tmp_path / "nights")
    assert "2 folds pooled" in printed.out
    assert "Not evaluated:\n  the folder of night files data/isruc does not exist" in printed.out
    assert "shhs holds no trained model" in printed.out


def test_folds_that_were_not_trained_are_no_failure(models, capsys):
    assert evaluate(models, "--json", str(models / "r.json")) == 0
    printed = capsys.readouterr().out
    assert "Not evaluated" not in printed and "holds 2 of 25 folds" in printed
    assert json.loads((models / "r.json").read_text())["missing_folds"] == list(range(2, 25))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fold", "7"], "no trained model of fold 7"),
        (["--fold", "25"], "folds 0 to 24"),
        (["--db", "isruc"], "holds no trained model"),
        (["--db", "nope"], "unknown database"),
        (["--data", "absent"], "absent does not exist"),
        (["--dir", "absent"], "absent"),
        (["--json", tempfile.gettempdir()], "is a folder"),
    ],
)
def test_wrong_arguments(models, capsys, arguments, told):
    assert evaluate(models, *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("predict.py: error: ")
    assert told in error


def test_a_bad_night_is_told_and_nothing_is_written(models, make_night, capsys):
    make_night(models.parent / "nights" / "ucddb003.npz", 12, y=np.full(12, 9))
    report = models / "r.json"
    assert evaluate(models, "--json", str(report), "--save", str(models / "saved")) == 2
    assert "labelled 9" in capsys.readouterr().err
    assert not report.exists()
    assert not (models / "saved").exists()


def test_output_that_is_no_number_is_told(models, capsys):
    (model,), network = load_fold(models / "ucddb" / "1"), load_model(models / "ucddb" / "1", [RecSleepNet])
    network.head.bias.assign(np.full(5, np.nan))
    save_model(models / "ucddb" / "1", network, model.metadata)
    assert evaluate(models, "--fold", "1") == 2
    assert "not finite" in capsys.readouterr().err


def spoil_weights(fold):
    path = fold / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:-100])


def exchange(text):
    """Another config.json, with the metadata made to agree."""

    def spoil(fold):
        (fold / "config.json").write_text(text)
        metadata = json.loads((fold / "metadata.json").read_text())
        metadata["sha256"]["config.json"] = hashlib.sha256(text.encode()).hexdigest()
        (fold / "metadata.json").write_text(json.dumps(metadata))

    return spoil


def remove_weights(fold):
    (fold / "model.weights.h5").unlink()


def unfinish(fold):
    shutil.rmtree(fold)
    (fold / "progress" / "3").mkdir(parents=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_weights, "damaged or replaced"),
        (lambda fold: (fold / "config.json").write_text("{}"), "damaged or replaced"),
        (exchange('{"model": "RecSleepNet", "arguments": {"filters": 9}}'), "does not hold the weights"),
        (exchange('{"model": "RecSleepNet", "arguments": {"first_pool": "a"}}'), "does not hold the weights"),
        (exchange('{"model": "os.system"}'), "does not describe"),
        (remove_weights, "incomplete"),
        (lambda fold: (fold / "metadata.json").write_text("{"), "not valid JSON"),
        (lambda fold: (fold / "metadata.json").write_text("5"), "does not describe a trained model"),
        (lambda fold: (fold / "metadata.json").write_text('{"sha256": []}'), "does not describe a trained model"),
        (unfinish, "no trained model"),
    ],
)
def test_damaged_models_are_told(models, capsys, spoil, told):
    spoil(models / "ucddb" / "0")
    assert evaluate(models, "--fold", "0") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in error


def test_saved_model_reloads_without_loss(models):
    (loaded,) = load_fold(models / "ucddb" / "0")
    network = load_model(models / "ucddb" / "0", [RecSleepNet])
    save_model(models / "again", network, loaded.metadata)
    reloaded = load_model(models / "again", [RecSleepNet])
    for before, after in zip(network.get_weights(), reloaded.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    (again,) = load_fold(models / "again")
    assert again.metadata["split"] == loaded.metadata["split"]


def always(folder, stage: int) -> None:
    """A fold as a TensorFlow-1 checkpoint, which does not say whom it was trained on, and finds one stage alone."""
    convolutions = ("conv1d_2_1", "conv1d_2_2", "conv1d_2_3", "rec_2_1", "rec_2_2")
    lstm = "rnn/rnn/multi_rnn_cell/cell_0/lstm_cell"
    shapes = {
        "cnn/conv1d_1/conv2d/kernel": (50, 1, 1, 128),
        **{f"cnn/{name}/conv2d/kernel": (8, 1, 128, 128) for name in convolutions},
        **{f"{lstm}/w_{gate}_diag": (128,) for gate in "ifo"},
        f"{lstm}/kernel": (384, 512),
        f"{lstm}/bias": (512,),
        "softmax_linear/dense/kernel": (128, 5),
        "softmax_linear/dense/bias": (5,),
    }
    values = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    values["softmax_linear/dense/bias"][stage] = 10
    folder.mkdir(parents=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {name: tf.compat.v1.get_variable(name, initializer=value) for name, value in values.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(folder / "model.ckpt"), write_meta_graph=False)


@pytest.mark.parametrize("trained_on_own", [False, True])
def test_folds_that_seem_to_be_trained_on_whom_they_test_are_told(tmp_path, make_night, capsys, trained_on_own):
    """Subjects 0 and 1 of fold 0 sleep in N2, subjects 10 and 11 of fold 1 in N3."""
    for fold in (0, 1):
        always(tmp_path / "models" / "isruc" / str(fold), 2 + (fold if trained_on_own else 1 - fold))
        for subject in (10 * fold, 10 * fold + 1):
            stages = np.r_[np.full(9, 2 + fold), np.full(3, 0)]
            make_night(tmp_path / "nights" / f"subject{subject}.npz", 12, subject, y=stages)
    assert evaluate(tmp_path / "models", "--json", str(tmp_path / "r.json")) == 0
    printed = capsys.readouterr().out
    assert "each fold of ISRUC-Sleep was trained on: it is assumed that recording N is subject N - 1" in printed
    told = json.loads((tmp_path / "r.json").read_text())["other_folds"]
    assert told["ahead"] == pytest.approx(-0.75 if trained_on_own else 0.75)
    assert ("WARNING" in printed) == trained_on_own
    assert ("The other folds are not more accurate on subject 0, 1, 10, 11." in printed) == trained_on_own
    # One fold alone cannot be compared, but what is taken for granted is said.
    assert evaluate(tmp_path / "models", "--fold", "0") == 0
    printed = capsys.readouterr().out
    assert "Nobody has published" in printed and "the accuracy of the other folds minus" not in printed


def test_folds_that_say_whom_they_were_trained_on_raise_no_doubt(models, capsys):
    assert evaluate(models) == 0
    assert "Nobody has published" not in capsys.readouterr().out


def test_pooled_figures_come_with_intervals_over_subjects(models, capsys):
    assert evaluate(models, "--json", str(models / "r.json")) == 0
    pooled = json.loads((models / "r.json").read_text())["pooled"]
    assert pooled["subjects"] == 2
    low, high = pooled["intervals_95"]["accuracy"]
    assert 0 <= low <= pooled["accuracy"] <= high <= 1
    assert f"95 % intervals over 2 subjects: accuracy {low:.3f} to {high:.3f}" in capsys.readouterr().out
    assert evaluate(models, "--fold", "1") == 0
    assert "95 %" not in capsys.readouterr().out
