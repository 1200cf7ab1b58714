"""SynthSleepNet's folds on recordings: which models and channels are taken, what is said, what the results hold."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import mne
import numpy as np
import pandas as pd
import pytest
from fine_tuned import CHANNELS, write_model
from recordings import write_edf, write_hypnogram

import predict
from data.databases import DATABASES, ChannelSpec
from data.prepare.synthetic import make_night
from data.recipe import Level, Recipe, band_pass, scale
from data.recordings.channels import choose, open_signals, read_channel
from data.recordings.modalities import assigned
from data.terms import STAGES, TASKS
from recsleep.model import RecSleepNet
from recsleep.predictor import of_network
from runs.settings import configure
from staging.stager import Stager
from synth.predictor import FineTunedPredictor, MeanPredictor, is_fold, load_stager

# One process makes the folds.
pytestmark = [pytest.mark.xdist_group("fine-tuned folds"), pytest.mark.usefixtures("small_backbone")]


@pytest.fixture(scope="module")
def folds(small_backbone, tmp_path_factory):  # noqa: ARG001
    """Two folds with a model of stages by all three modalities, one of them with models of events and by EEG alone."""
    folder = tmp_path_factory.mktemp("folds") / "synthetic"
    for task in TASKS:
        write_model(folder / "0", ("eeg", "emg", "airflow"), task)
    write_model(folder / "0", ("eeg",), "sleep_stage")
    write_model(folder / "1", ("eeg", "emg", "airflow"), "sleep_stage")
    return folder


@pytest.fixture(scope="module")
def arrays():
    night = make_night(1, configure("synthetic", ["hours=0.4"]).synthetic)
    # Some epochs are not scored.
    return night | {"y": np.where(np.arange(len(night["y"])) < 3, -1, night["y"])}


@pytest.fixture(scope="module")
def recording(arrays, tmp_path_factory):
    return write(tmp_path_factory.mktemp("recordings") / "night.edf", arrays)


def write(path, arrays, names=None, leave_out=(), notes=None):
    names = names or {}
    signals = {
        names.get(name, name): (x.ravel().astype(float), 100, "" if name in ("Airflow", "SpO2") else "uV")
        for name, x in zip(arrays["ch_names"].tolist(), np.moveaxis(arrays["x"], 1, 0), strict=True)
        if name not in leave_out
    }
    return write_edf(path, signals, span=1500, annotations=notes)


def test_several_channels_share_the_models(folds):
    """Each channel goes through the only one, or through one of two."""
    signals = np.random.default_rng(0).normal(0, 1, (3, 7, 3000)).astype("float32")
    model = FineTunedPredictor(folds / "0/fine_tuning/sleep_stage_1/eeg/lstm")
    expected = [model.probabilities({"eeg": channel}) for channel in signals]
    for members in ([model], [model, model]):
        np.testing.assert_allclose(MeanPredictor(members).probabilities({"eeg": signals}), expected, atol=1e-6)


@pytest.fixture(scope="module")
def stager(folds):
    return load_stager(folds)


def staged(stager, path, channels=()):
    with open_signals(path) as opened:
        return stager.stage(opened, channels)


def test_the_mean_of_the_folds_models(stager, folds, recording, arrays):
    night = staged(stager, recording)
    x = {name: scale(arrays["x"][:, arrays["ch_names"].tolist().index(own)]) for name, own in CHANNELS.items()}
    models = [FineTunedPredictor(folds / fold / "fine_tuning/sleep_stage_1/eeg-emg-airflow/lstm") for fold in "01"]
    expected = np.mean([model.probabilities(x) for model in models], axis=0)
    # The file holds 16 bits.
    np.testing.assert_allclose(night.probabilities, expected, atol=2e-3)
    assert night.events.keys() == {"apnea", "hypopnea"}
    assert [model["task"] for model in night.about["models"]] == ["sleep_stage", *TASKS]
    # Those of random weights are unsure.
    assert night.about["warnings"] == night.doubts
    assert night.about["assumptions"][1] == "emg: channel EMG, 100 Hz to 100 Hz, scaled by its own quartiles"


def test_each_model_has_its_channels_as_it_was_trained_with_them(folds, recording, arrays, tmp_path):
    """Models of one fold may have been trained on nights that were prepared in different ways."""
    shutil.copytree(folds / "0", tmp_path / "0")
    model = tmp_path / "0/fine_tuning/apnea_1/eeg-emg-airflow/lstm"
    metadata = json.loads((model / "metadata.json").read_text())
    recipe = Recipe.of_metadata(metadata)
    recipe = replace(recipe, channels=recipe.channels | {"emg": ChannelSpec("EMG", band=(0.5, 2))})
    (model / "metadata.json").write_text(json.dumps(metadata | {"recipe": recipe.to_json()}))
    x = {name: arrays["x"][:, arrays["ch_names"].tolist().index(own)] for name, own in CHANNELS.items()}
    expected = FineTunedPredictor(model).probabilities({name: recipe.applied(name, x[name], {}) for name in x})
    found = staged(load_stager(tmp_path), recording).events["apnea"]
    np.testing.assert_allclose(found, expected[:, 1], atol=2e-3)


def test_a_missing_modality_is_said(stager, arrays, tmp_path):
    night = staged(stager, write(tmp_path / "n.edf", arrays, leave_out=("EMG",)))
    assert {model["variant"] for model in night.about["models"]} == {"eeg lstm, 1 of the labels"}
    assert night.events == {} and night.breathing is None
    assert night.about["warnings"] == [
        *night.doubts,
        "it has no usable channel for emg (EMG), so models that do not need one staged it.",
        "apnea was not looked for, because its models need emg.",
        "hypopnea was not looked for, because its models need emg.",
    ]


def test_channels_by_another_name(stager, arrays, tmp_path):
    names = {"EEG C4-M1": "C4-A1", "EMG": "Chin EMG", "Airflow": "Nasal Pressure"}
    path = write(tmp_path / "n.edf", arrays, names)
    night = staged(stager, path)
    assert [told.partition(",")[0] for told in night.about["assumptions"]] == [
        "eeg: channel C4-A1 in place of EEG C4-M1",
        "emg: channel Chin EMG in place of EMG",
        "airflow: channel Nasal Pressure in place of Airflow",
    ]
    named = staged(stager, path, ["emg=EOG L"])
    assert named.about["channels"][1]["name"] == "EOG L"
    assert "EOG L is eog by its name, but is used as emg: if that is wrong, name another" in " ".join(
        named.about["warnings"]
    )
    assert " by its name" not in " ".join(night.about["warnings"])
    assert not np.array_equal(named.probabilities, night.probabilities)


@pytest.mark.parametrize(
    ("channel", "recorded", "chosen"),
    [
        ("EEG_C4", ("SaO2", "EEG(sec)", "EMG", "EEG"), ("EEG",)),
        ("EEG_C3", ("C4-A1", "C3-A2"), ("C3-A2",)),
        ("EEG_C4", ("C4", "M1", "C4-M1"), ("C4-M1",)),
        ("EEG_C4", ("C3", "C4", "A1"), ("C4", "A1")),
        ("EMG_Chin", ("Movement", "L Leg EMG", "EMG1"), ("EMG1",)),
        ("EMG_Chin", ("Machine Pressure", "Submental"), ("Submental",)),
        ("EMG_Chin", ("Movement", "L Leg EMG"), None),
    ],
)
def test_the_channel_that_was_trained_with(channel, recorded, chosen):
    found = assigned(SimpleNamespace(path="night.edf", channels=recorded), {channel[:3].lower(): of_shhs(channel)}, {})
    assert [choice.recorded for choice in found.values()] == ([chosen] if chosen else [])


@pytest.mark.parametrize(
    ("recorded", "named", "chosen"),
    [
        # The first stream does not take the second one's own channel.
        ("EOG(R) | E1", {}, {"eog": "E1", "eog2": "EOG(R)"}),
        ("EOG(R) | EOG(L)", {}, {"eog": "EOG(L)", "eog2": "EOG(R)"}),
        ("LOC | ROC", {}, {"eog": "LOC", "eog2": "ROC"}),
        # With one channel, the second is missing.
        ("EOG(R)", {}, {"eog": "EOG(R)"}),
        ("EOG(R) | EOG(L)", {"eog": "EOG(R)"}, {"eog": "EOG(R)", "eog2": "EOG(L)"}),
        ("EOG(R) | EOG(L)", {"eog2": "EOG(L)"}, {"eog": "EOG(R)", "eog2": "EOG(L)"}),
        ("C3-A2", {}, {"eeg": "C3-A2"}),
        ("C3-A2 | F4-M1", {}, {"eeg": "F4-M1", "eeg2": "C3-A2"}),
        ("C4 | C3 | M1", {}, {"eeg": "C4-M1", "eeg2": "C3-M1"}),
        ("EEG | C4 | M1", {"eeg2": "C4-M1"}, {"eeg": "EEG", "eeg2": "C4-M1"}),
        ("EMG | EOG", {}, {"eog": "EOG", "emg": "EMG"}),
    ],
)
def test_no_channel_serves_two_streams(recorded, named, chosen):
    names = {"eeg": "EEG_C4", "eeg2": "EEG_C3", "eog": "EOG_Left", "eog2": "EOG_Right", "emg": "EMG_Chin"}
    opened = SimpleNamespace(path="night.edf", channels=tuple(recorded.split(" | ")))
    found = assigned(opened, {stream: of_shhs(name) for stream, name in names.items()}, named)
    assert {stream: choice.name for stream, choice in found.items()} == chosen


def of_shhs(name: str) -> ChannelSpec:
    return next(spec for spec in DATABASES["shhs"].channels if spec.name == name)


def test_a_channel_that_cannot_be_used_counts_as_missing(stager, arrays, tmp_path):
    spoilt = {**arrays, "x": arrays["x"].copy()}
    spoilt["x"][:, spoilt["ch_names"].tolist().index("EMG")] = 0
    night = staged(stager, write(tmp_path / "n.edf", spoilt))
    assert "EMG is flat all night" in night.about["warnings"][len(night.doubts)]
    assert {model["variant"] for model in night.about["models"]} == {"eeg lstm, 1 of the labels"}


@pytest.mark.parametrize("spoilt", [{"tcm": "/../../evil"}, {"task": "snoring"}, {"config": {"training": {}}}])
def test_metadata_are_not_trusted(tmp_path, spoilt):
    path = write_model(tmp_path / "0", ("eeg",), "sleep_stage")
    told = json.loads((path / "metadata.json").read_text())
    (path / "metadata.json").write_text(json.dumps({**told, **spoilt}))
    with pytest.raises(ValueError, match="does not describe a fine-tuned model"):
        load_stager(tmp_path / "0")


def test_the_model_with_most_labels_then_the_best(tmp_path):
    worse = write_model(tmp_path / "0", ("eeg",), "sleep_stage", 0.05, 0.9)
    best = write_model(tmp_path / "0", ("eeg",), "sleep_stage", 1, 0.6)
    ((chosen,),) = (predictor.members for predictor in load_stager(tmp_path / "0").predictors)
    assert chosen.folder == best != worse
    assert is_fold(tmp_path / "0") and not is_fold(tmp_path)


def test_signals_are_prepared_as_the_databases_nights(arrays, tmp_path):
    """SHHS's EMG is band-passed before it is scaled."""
    path = write_model(
        tmp_path / "models", ("eeg", "emg"), "sleep_stage", db="shhs", channels={"eeg": "EEG_C4", "emg": "EMG_Chin"}
    )
    signals = {"EEG": arrays["x"][:, 0], "EMG": arrays["x"][:, 3]}
    edf = write_edf(
        tmp_path / "n.edf", {n: (x.ravel().astype(float), 100, "uV") for n, x in signals.items()}, span=1500
    )
    night = staged(load_stager(tmp_path / "models"), edf)
    assert [c["from"] for c in night.about["channels"]] == [["EEG"], ["EMG"]]
    bands = ((0.5, 40), (25, 49))
    model, modalities = FineTunedPredictor(path), ("eeg", "emg")
    filtered = [
        band_pass(x.ravel().astype(float), band).reshape(x.shape).astype("float32")
        for x, band in zip(signals.values(), bands, strict=True)
    ]
    expected = model.probabilities({name: scale(x) for name, x in zip(modalities, filtered, strict=True)})
    np.testing.assert_allclose(night.probabilities, expected, atol=1e-3)
    unfiltered = model.probabilities({name: scale(x) for name, x in zip(modalities, signals.values(), strict=True)})
    assert np.abs(unfiltered - expected).max() > 5e-3


@pytest.mark.parametrize("tasks", [("apnea", "hypopnea"), ("apnea",)])
def test_results_of_the_command(arrays, tmp_path, tasks, capsys):
    # Epoch 12 is of the position that is told before its middle. Recording or scoring tells it.
    notes, by_scorer = [(60.0, 1.0, "Position - Supine"), (374.0, 1.0, "LEFT")], len(tasks) == 1
    recording = write(tmp_path / "night.edf", arrays, notes=None if by_scorer else notes)
    events = [(95.0, 12.0, "Hypopnea"), (118.5, 20.0, "Apnea"), (700.0, 9.0, "Hypopnea")]
    entries = [(0.0, 1200.0, "Sleep stage N2"), *events, *(notes if by_scorer else ())]
    scoring = write_hypnogram(tmp_path / "scored.edf", entries)
    for task in ("sleep_stage", *tasks):
        write_model(tmp_path / "models" / "synthetic" / "0", ("eeg", "airflow"), task)
    out = tmp_path / "out"
    arguments = ["--model", "synthsleepnet", "--dir", str(tmp_path / "models"), "--recording", str(recording)]
    assert predict.main([*arguments, "--out", str(out), "--scoring", str(scoring)]) == 0
    (line,) = re.findall("^  breathing: apnea in .*", capsys.readouterr().out, re.MULTILINE)
    # Three events in 20 minutes, two of them in neighbouring epochs.
    assert line.endswith("; the scorer's 9.0")
    table = pd.read_csv(out / "night.hypnogram.csv")
    assert list(table)[3:] == [*STAGES, *(f"smoothed_{stage}" for stage in STAGES), *tasks]
    told = json.loads((out / "night.json").read_text())
    found = table[list(tasks)].to_numpy() > 0.5
    assert [told["breathing"][task]["epochs"] for task in tasks] == found.sum(axis=0).tolist()
    summary = pd.read_csv(out / "summary.csv").iloc[0]
    lain = np.repeat(["", "supine", "left"], [2, 10, len(table) - 12])
    indices = {}
    for name, where in (("sleep", lain != "x"), ("supine", lain == "supine"), ("left", lain == "left")):
        asleep = (table["stage"] != "W").to_numpy() & where
        either = found.any(axis=1) & asleep
        runs = int(either[0]) + int((~either[:-1] & either[1:]).sum())
        assert asleep.any()
        indices[name] = pytest.approx(runs * 120 / asleep.sum()) if len(tasks) == 2 else None
        if name != "sleep":
            of = {"minutes": asleep.sum() / 2, "index": indices[name]}
            assert told["breathing"]["index_by_position"][name] == of
    assert told["breathing"]["apnea_hypopnea_index"] == indices["sleep"]
    assert list(told["breathing"]["index_by_position"]) == ["supine", "left", "not supine"]
    scorer = told["breathing"]["scorer"]
    assert (scorer["counted"]["index"], scorer["estimated"]["index"]) == (9.0, 6.0)
    columns = ("apnea_hypopnea_index", "index_supine", "index_not_supine", "scorer_index")
    for column, expected in zip(columns, (*indices.values(), 9.0), strict=True):
        assert np.isnan(summary[column]) if expected is None else summary[column] == expected
    texts = mne.read_annotations(out / "night.hypnogram.edf").description.tolist()
    assert texts.count("Apnea") == told["breathing"]["apnea"]["runs"]
    page = (out / "night.html").read_text()
    assert "Apnea and hypopnea" in page and "a run of epochs with an event counts as one event" in page
    assert "Apnea-hypopnea index by position" in page and "<td>not supine</td>" in page
    assert re.search("<tr><td>counted</td><td>.*</td><td>9.0\N{NO-BREAK SPACE}/h</td>", page)


def test_missing_folds_are_in_print_and_report(arrays, tmp_path, capsys):
    write_model(tmp_path / "models" / "synthetic" / "0", ("eeg",), "sleep_stage")
    (tmp_path / "nights").mkdir()
    np.savez(tmp_path / "nights" / "synthetic00.npz", **arrays)
    evaluated = ["--model", "synthsleepnet", "--dir", tmp_path / "models", "--data", tmp_path / "nights"]
    evaluated += ["--fold", "0", "3", "--json", tmp_path / "report.json", "--save", tmp_path / "saved"]
    assert predict.main([str(argument) for argument in evaluated]) == 0
    assert "Not evaluated, because the model or the night files are missing: fold 3." in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["missing_folds"] == [3] and [model["fold"] for model in report["models"]] == [0]
    (table,) = (pd.read_csv(path) for path in (tmp_path / "saved").rglob("*.csv"))
    # Every epoch has its row and its number, scored or not, as RecSleepNet's have.
    assert table["epoch"].tolist() == list(range(len(arrays["y"])))
    assert list(table)[1:] == ["scored", "predicted", "W", "N1", "N2", "N3", "REM"]
    assert (table["scored"] == "unscored").sum() == (arrays["y"] == -1).sum() > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--no-calibration"], "leave --no-calibration out"),
        (["--channel", "EMG"], "write MODALITY=NAME"),
        (["--channel", "eog=EOG L"], "with each of eeg, emg, airflow at most once"),
        (["--channel", "emg=Leg"], "has no channel Leg"),
        (["--channel", "emg=EOG L", "--channel", "eeg=eog l"], "--channel names EOG L for both emg and eeg"),
        (["--db", "shhs"], "was trained on synthetic, not on shhs"),
    ],
)
def test_mistakes_are_told(folds, recording, tmp_path, capsys, options, told):
    arguments = ["--model", "synthsleepnet", "--dir", str(folds), "--recording", str(recording), "--out"]
    assert predict.main([*arguments, str(tmp_path / "out"), *options]) == 2
    assert told in capsys.readouterr().err


def test_events_without_eeg_beside_stages_of_calibrated_eeg(recording, tmp_path):
    """RecSleepNet's channel is brought to a level; the other network's is not."""
    sizes = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}
    stages = of_network(RecSleepNet(**sizes), Recipe({"eeg": ChannelSpec("EEG C4-M1")}, level=Level(12.5)))
    of_events = FineTunedPredictor(write_model(tmp_path, ("airflow",), "apnea"))
    night = staged(Stager((stages, of_events)), recording)
    with open_signals(recording) as opened:
        airflow = read_channel(opened, choose(opened, "Airflow"), lowest_rate=1).signals
    np.testing.assert_allclose(
        night.events["apnea"], of_events.probabilities({"airflow": scale(airflow)})[:, 1], atol=1e-5
    )


def test_no_model_can_be_used(arrays, tmp_path):
    write_model(tmp_path / "a", ("eeg", "emg"), "sleep_stage")
    with pytest.raises(ValueError, match=r"no channel for emg \(EMG\), which the models need.*--channel emg=NAME"):
        staged(load_stager(tmp_path / "a"), write(tmp_path / "n.edf", arrays, leave_out=("EMG",)))
    write_model(tmp_path / "b", ("airflow",), "apnea")
    with pytest.raises(ValueError, match="no model for sleep stages"):
        staged(load_stager(tmp_path / "b"), write(tmp_path / "n.edf", arrays))
