"""Embeddings of any recording: what they are, that signals reach the encoder as in training, and the command."""

import json
import subprocess
import sys
from dataclasses import replace

import keras
import mne
import numpy as np
import pandas as pd
import pytest
from fine_tuned import BACKBONE, randomise
from recordings import as_shhs, interrupt, write_edf

import synth
from data.databases import DATABASES
from data.nights.files import read_about
from data.nights.index import NightFile
from data.nights.night import read_night
from data.prepare.__main__ import main as prepare
from data.prepare.synthetic import make_night
from data.recipe import Recipe
from data.terms import InputError
from runs.networks import load_model, save_model
from runs.settings import configure
from synth.embed import main
from synth.embeddings import Embedder
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetEncoder

# One process makes the encoders and the recordings.
pytestmark = [pytest.mark.xdist_group("embeddings"), pytest.mark.usefixtures("small_backbone")]

CHANNELS = {"eeg": "EEG_C4", "emg": "EMG_Chin"}
EPOCHS = 46


@pytest.fixture(scope="module")
def folder(small_backbone, tmp_path_factory):  # noqa: ARG001
    """A recording of the SHHS and the night that was prepared of it, and a fold with an encoder of each step."""
    folder = tmp_path_factory.mktemp("embeddings")
    as_shhs(folder / "raw", 200001, make_night(1, configure("synthetic", ["hours=0.4"]).synthetic))
    where = ["--data", str(folder / "raw"), "--out", str(folder / "nights")]
    assert prepare(["--db", "shhs", *where, "--select_ch", *CHANNELS.values()]) == 0
    about = read_about(folder / "nights/shhs1-200001.npz")
    fusion = SynthSleepNetEncoder(tuple(CHANNELS), BACKBONE, dim=16, heads=2, depth=1)
    for place, network, used in (
        ("multimodal/eeg-emg", fusion, CHANNELS),
        ("unimodal/emg", NeuroNetEncoder(**BACKBONE), {"emg": "EMG_Chin"}),
    ):
        recipe = Recipe.of_nights(DATABASES["shhs"], used, about, scaled=True)
        save_model(folder / "fold" / place, randomise(network), {"db": "shhs", "recipe": recipe.to_json()})
    return folder


@pytest.fixture(scope="module")
def edf(folder):
    return folder / "raw/edfs/shhs1-200001.edf"


@pytest.fixture(scope="module")
def night(folder):
    return folder / "nights/shhs1-200001.npz"


@pytest.fixture(scope="module")
def embedder(folder):
    return synth.load_embedder(folder / "fold")


def reference(edf) -> dict[str, np.ndarray]:
    """What training sees of the recording, by MNE and NumPy in float64: filtered, less the median, over the quartiles'
    distance."""
    raw = mne.io.read_raw_edf(edf, preload=True, verbose="error")
    found = {}
    for name, recorded, band in (("eeg", "EEG", (0.5, 40)), ("emg", "EMG", (25, 49))):
        signal = 1e6 * raw.get_data([recorded])[0]
        signal = mne.filter.filter_data(signal, raw.info["sfreq"], *band, verbose="error")
        low, median, high = np.percentile(signal, (25, 50, 75))
        found[name] = ((signal - median) / (high - low)).reshape(-1, 3000)
    return found


def test_signals_reach_the_encoder_as_in_training(folder, edf, embedder):
    found = synth.embed_recording(edf, embedder)
    assert found.embeddings.shape == (EPOCHS, 16) and not found.missing.any()
    network = load_model(folder / "fold/multimodal/eeg-emg", [SynthSleepNetEncoder])
    expected = keras.ops.convert_to_numpy(network(reference(edf)))
    # Two hundredths more of either signal change an embedding by a thousandth.
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-5)


def test_a_night_file_and_its_recording_agree_and_equal_what_probing_learns_from(
    folder, edf, night, embedder, tmp_path
):
    ours = [synth.embed_recording(path, embedder).embeddings for path in (edf, night)]
    np.testing.assert_allclose(*ours, atol=1e-5)
    encoder = folder / "fold/multimodal/eeg-emg"
    recipe = Recipe.of_metadata(json.loads((encoder / "metadata.json").read_text()))
    embedder = Embedder(encoder, recipe, tmp_path)
    (stored,) = embedder.nights([NightFile(night, EPOCHS, 1, 0, 0)], "", bar=False)
    np.testing.assert_allclose(ours[1], stored.embeddings, atol=1e-5)
    # With other labels, nothing is embedded again.
    other = Embedder(encoder, replace(recipe, labelled_wake_minutes=0), tmp_path)
    other.embed = None
    (again,) = other.nights([NightFile(night, EPOCHS, 1, 0, 0)], "", bar=False)
    assert np.array_equal(again.embeddings, stored.embeddings)
    labels = read_night(night, ["EEG_C4"]).labels("sleep_stage", wake_minutes=0)
    assert np.array_equal(again.labels["sleep_stage"], labels) and (labels != stored.labels["sleep_stage"]).any()


def test_an_encoder_of_one_modality_gives_its_cls_token(folder, edf, night):
    path = folder / "fold/unimodal/emg"
    found = synth.embed_recording(edf, path)
    recipe = Recipe.of_metadata(json.loads((path / "metadata.json").read_text()))
    tokens = load_model(path, [NeuroNetEncoder])(read_night(night, recipe.names).inputs(recipe)["emg"])
    np.testing.assert_allclose(found.embeddings, keras.ops.convert_to_numpy(tokens)[:, 0], atol=1e-5)
    # The name alone will do, of whatever channel is wanted.
    assert synth.embed_recording(edf, path, "EOG(L)").about["channels"][0]["name"] == "EOG(L)"


def test_the_only_channel_of_a_night_has_the_name_that_is_asked_for(folder, night, tmp_path):
    path, encoder = tmp_path / "night.npz", folder / "fold/unimodal/emg"
    np.savez(path, x=read_night(night, ["EMG_Chin"]).signals[:, 0])
    with pytest.raises(InputError, match=r"no channel for emg \(EMG_Chin\).*name one of EEG with --channel"):
        synth.embed_recording(path, encoder)
    for name in ("Chin", "emg=Chin"):
        assert synth.embed_recording(path, encoder, name).about["channels"][0]["name"] == "Chin"
        arguments = ["--dir", encoder, "--recording", path, "--out", tmp_path, "--overwrite", "--channel", name]
        assert main([str(argument) for argument in arguments]) == 0


def test_what_mne_has_opened_and_saved(edf, embedder, tmp_path):
    raw = mne.io.read_raw_edf(edf, verbose="error")
    raw.save(tmp_path / "night_raw.fif", verbose="error")
    expected = synth.embed_recording(edf, embedder)
    for recording in (raw, str(tmp_path / "night_raw.fif")):
        found = synth.embed_recording(recording, embedder)
        np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)
    assert found.name == "night_raw" and expected.name == "shhs1-200001"


def test_the_table(edf, embedder, tmp_path):
    found = synth.embed_recording(edf, embedder)
    table = found.to_frame()
    assert list(table) == ["epoch", "start_s", "model", "missing", *(f"e{n}" for n in range(16))]
    assert table["epoch"].tolist() == list(range(EPOCHS))
    assert table["start_s"].tolist() == [30 * epoch for epoch in range(EPOCHS)]
    digest = embedder.models[0]["sha256"]
    assert set(table["model"]) == {f"SynthSleepNet eeg-emg shhs {digest[:12]}"}
    found.save(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)
    found.save(tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["embeddings"], found.embeddings) and arrays["embeddings"].dtype == np.float32
        for name in ("epoch", "start_s", "model", "missing"):
            assert arrays[name].tolist() == table[name].tolist()


def test_epochs_that_were_not_recorded_are_told(embedder, tmp_path):
    rng = np.random.default_rng(0)
    signals = {name: (rng.normal(0, 20, 60_000), 100, "uV") for name in ("EEG C4-M1", "Chin EMG")}
    path = write_edf(tmp_path / "gap.edf", signals, annotations=[(0, 1, "lights off")])
    found = synth.embed_recording(interrupt(path, 200, 90), embedder)
    # 200 s, 90 s of nothing, 400 s: the epoch that is two thirds recorded counts.
    assert np.flatnonzero(found.missing).tolist() == [7, 8, 9] and len(found.missing) == 23
    assert [channel["name"] for channel in found.about["channels"]] == ["EEG C4-M1", "Chin EMG"]
    assert "EEG C4-M1: 90 s are missing in the recording." in found.about["warnings"]


def command(folder, out, *recordings, options=()) -> int:
    where = ["--dir", folder / "fold", "--out", out, "--recording", *recordings, *options]
    return main([str(argument) for argument in where])


@pytest.fixture(scope="module")
def many(folder, edf, night):
    """A folder with a recording, its night file and what is none."""
    many = folder / "many"
    many.mkdir()
    (many / "a.edf").symlink_to(edf)
    (many / "b.npz").symlink_to(night)
    (many / "c.edf").write_text("not a recording")
    return many


def test_a_bad_recording_does_not_stop_the_others(folder, many, tmp_path, capsys):
    assert command(folder, tmp_path, many) == 1
    told = capsys.readouterr().out
    assert "a: 46 epochs, 16 features" in told and "2 embedded, 1 failed" in told and "failed: c: " in told
    names = {f"{name}.embeddings.{ending}" for name in "ab" for ending in ("parquet", "json")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"embeddings.csv"}
    summary = pd.read_csv(tmp_path / "embeddings.csv").set_index("name")
    assert summary["status"].to_dict() == {"a": "embedded", "b": "embedded", "c": "failed"}
    assert summary.loc["a", "channels"] == "EEG; EMG" and summary.loc["b", "channels"] == "EEG_C4; EMG_Chin"
    a, b = (pd.read_parquet(tmp_path / f"{name}.embeddings.parquet") for name in "ab")
    pd.testing.assert_frame_equal(a, b, atol=1e-5)
    about = json.loads((tmp_path / "a.embeddings.json").read_text())
    assert about["model"]["name"] == a["model"][0] and about["start"] == "1995-06-01T23:10:30+00:00"
    assert (about["epochs"], about["missing"], about["features"]) == (EPOCHS, 0, 16)


def test_finished_ones_are_kept_unless_they_were_made_in_another_way(folder, many, tmp_path, capsys):
    assert command(folder, tmp_path, many / "a.edf") == 0
    before = (tmp_path / "a.embeddings.parquet").stat().st_mtime_ns
    assert command(folder, tmp_path, many / "a.edf") == 0
    assert "1 kept" in capsys.readouterr().out
    assert (tmp_path / "a.embeddings.parquet").stat().st_mtime_ns == before
    for options in (["--format", "npz"], ["--channel", "emg=EOG(L)"]):
        assert command(folder, tmp_path, many / "a.edf", options=options) == 2
        assert "give --overwrite" in capsys.readouterr().err
    assert command(folder, tmp_path, many / "a.edf", options=["--overwrite"]) == 0
    assert (tmp_path / "a.embeddings.parquet").stat().st_mtime_ns > before


def test_side_by_side_as_one_by_one(folder, many, tmp_path, capfd):
    """And the tables among the recordings are not taken for recordings."""
    for out, jobs in (("one", 1), ("two", 2)):
        options = ["--jobs", jobs, "--format", "npz"]
        assert command(folder, tmp_path / out, many, options=options) == 1
    one, two = ({p.name for p in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert one == two == {*(f"{n}.embeddings.{e}" for n in "ab" for e in ("npz", "json")), "embeddings.csv"}
    for name in "ab":
        tables = (np.load(tmp_path / out / f"{name}.embeddings.npz")["embeddings"] for out in ("one", "two"))
        np.testing.assert_allclose(*tables, atol=1e-6)
    # Nothing of progress where nobody watches.
    assert capfd.readouterr().err == ""
    assert command(folder, tmp_path / "three", tmp_path / "one") == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--channel", "C4"], "write MODALITY=NAME"),
        (["--channel", "emg=Leg"], "has no channel Leg"),
        (["--jobs", "0"], "--jobs 0: give a number of processes"),
        (["--recording", "nowhere.edf"], "nowhere.edf does not exist"),
        (["--dir", "nowhere"], "nowhere holds no pretrained encoder: name a fold of SynthSleepNet"),
    ],
)
def test_mistakes_of_the_command(folder, edf, tmp_path, capsys, options, told):
    assert command(folder, tmp_path / "out", edf, options=options) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_recording_without_a_channel_of_the_encoder(embedder, tmp_path):
    noise = (np.random.default_rng(0).normal(0, 20, 6000), 100, "uV")
    path = write_edf(tmp_path / "n.edf", {"EEG C4-M1": noise})
    with pytest.raises(InputError, match=r"no channel for emg \(EMG_Chin\), which the models need.*--channel emg=NAME"):
        synth.embed_recording(path, embedder)
    path = write_edf(tmp_path / "flat.edf", {"EEG C4-M1": noise, "EMG": (np.zeros(6000), 100, "uV")})
    with pytest.raises(InputError, match="EMG is flat all night"):
        synth.embed_recording(path, embedder)


def test_folders_without_one_usable_encoder(folder, tmp_path):
    encoder, recipe = NeuroNetEncoder(**BACKBONE), {"db": "shhs", "channels": {"eeg": "EEG_C4"}}
    save_model(tmp_path / "converted", encoder, {"source": {}})
    with pytest.raises(InputError, match="does not say how to prepare signals"):
        synth.load_embedder(tmp_path / "converted")
    save_model(tmp_path / "head", keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), recipe)
    with pytest.raises(InputError, match="holds a Sequential, which is not a pretrained encoder"):
        synth.load_embedder(tmp_path / "head")
    for name in ("eeg", "eeg-emg"):
        (tmp_path / "fold/multimodal" / name).mkdir(parents=True)
        (tmp_path / "fold/multimodal" / name / "metadata.json").touch()
    with pytest.raises(
        InputError, match=r"holds encoders of eeg, eeg-emg: name the folder of one, such as .*fold/multimodal/eeg"
    ):
        synth.load_embedder(tmp_path / "fold")
    # An encoder that version 1 saved holds its channels instead of a recipe.
    save_model(tmp_path / "old", encoder, recipe)
    assert synth.load_embedder(tmp_path / "old").recipe == Recipe.of_nights(
        DATABASES["shhs"], recipe["channels"], {}, scaled=True
    )
    recipe = replace(synth.load_embedder(folder / "fold").recipe)
    save_model(tmp_path / "wrong", encoder, {"db": "shhs", "recipe": recipe.to_json()})
    with pytest.raises(InputError, match="the encoder does not take eeg, emg, as its recipe says"):
        synth.load_embedder(tmp_path / "wrong")


def test_help_and_mistakes_start_no_backend(project):
    code = "import sys, synth.embed\ntry: synth.embed.main(sys.argv[1:])\nfinally: print(*sys.modules)"
    for arguments in (["--help"], ["--dir", "a", "--recording", "nowhere.edf"]):
        ran = subprocess.run([sys.executable, "-c", code, *arguments], cwd=project, capture_output=True, text=True)
        assert not {"keras", "tensorflow", "torch", "jax", "onnxruntime"} & set(ran.stdout.split()), ran.stderr
