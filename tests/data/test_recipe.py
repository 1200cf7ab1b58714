"""The recipe: it is read as it was written, it is found for models of before, and it is applied once."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from recordings import write_edf
from scipy.signal import resample_poly

import recsleep
import trainer
from config import PreparationConfig
from data.databases import DATABASES, ChannelSpec
from data.nights.files import write_arrays
from data.nights.night import channel_about, read_night
from data.prepare.__main__ import main as prepare
from data.prepare.conversion import convert
from data.prepare.custom import load_spec
from data.prepare.sources import find_sources
from data.recipe import PUBLISHED, Level, Recipe, band_pass, quartiles, resample, scale
from data.recordings.channels import choose, open_signals, read_channel
from data.terms import InputError

EMG = ChannelSpec("EMG_Chin", ("EMG", "Chin"), (25.0, 49.0))
FULL = Recipe(
    {"eeg": ChannelSpec("C3-A2"), "emg": EMG}, True, True, False, Level(0.12, 0.55), labelled_wake_minutes=5.0
)


@pytest.mark.parametrize("rate", [60, 62.5, 64, 99.99, 125, 128, 200, 250, 256, 500, 512, 2048, 255.987])
@pytest.mark.parametrize("seconds", [0.1, 7.03, 90])
def test_resampling_is_scipys(rate, seconds):
    signal = np.random.default_rng(0).normal(size=round(seconds * rate)).cumsum()
    ratio = Fraction(100 / rate).limit_denominator(100_000)
    expected = resample_poly(signal, ratio.numerator, ratio.denominator, padtype="edge")
    np.testing.assert_allclose(resample(signal, rate), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_what_has_labels_is_no_part_of_how_signals_are_made():
    assert replace(FULL, labelled_wake_minutes=9) == FULL != replace(FULL, scaled=False)


@pytest.mark.parametrize("recipe", [FULL, replace(FULL, nights_calibrated=True), *PUBLISHED.values()])
def test_it_is_read_as_it_was_written(recipe):
    found = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert (found, found.labelled_wake_minutes) == (recipe, recipe.labelled_wake_minutes)


@pytest.mark.parametrize(
    "spoilt",
    [
        *(
            {"channels": {}},
            {"channels": {"nose": {}}},
            {"channels": [1]},
            {"level": 3},
            {"sampling_rate_hz": 128},
            None,
        ),
        *(
            {"channels": {"emg": {"name": "EMG", "spellings": [], "band_hz": b}}}
            for b in ([40, 1], [1, 60], ["x", 2], 5)
        ),
    ],
)
def test_a_damaged_recipe_is_an_error(spoilt):
    values = None if spoilt is None else FULL.to_json() | spoilt
    with pytest.raises(InputError, match="recipe cannot be read"):
        Recipe.from_json(values)


def test_models_saved_before_follow_the_rule():
    single = Recipe.of_metadata({"db": "ucddb", "channel": "C3A2", "amplitude": 0.1, "offset": 0.5})
    assert single == Recipe({"eeg": DATABASES["ucddb"].channels[0]}, as_stored=True, level=Level(0.1, 0.5))
    several = Recipe.of_metadata({"db": "shhs", "channels": {"emg": "EMG_Chin"}})
    assert several.scaled and several.nights_scaled and several.channels["emg"].band == (25, 49)
    with pytest.raises(InputError, match="unknown database"):
        Recipe.of_metadata({"db": "nope"})
    with pytest.raises(InputError, match="do not name a channel for each"):
        Recipe.of_metadata({"db": "shhs", "channels": {"../x": "EMG"}})


SPEC = """
recordings = "*.edf"
subject = '(\\d+)'
scoring = "{name}.txt"
form = "lines"
as_stored = true
[channels.EMG]
spellings = ["Chin"]
band = [20, 40]
[labels]
W = "W"
S = "N2"
"""


@pytest.fixture
def custom(tmp_path):
    """An EDF of a laboratory's own, in mV, 40 minutes of wake before it; its specification and the night it becomes."""
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.02, 100 * 30 * 120)
    signal[: 100 * 30 * 80] *= 3
    edf = write_edf(tmp_path / "raw" / "7.edf", {"Chin": (signal, 100, "mV")}, span=0.4)
    (tmp_path / "raw" / "7.txt").write_text("W\n" * 80 + "S\n" * 40)
    (tmp_path / "lab.toml").write_text(SPEC)
    database = load_spec(tmp_path / "lab.toml")
    (source,) = find_sources(database, tmp_path / "raw")
    arrays = convert(source, database, database.channels, PreparationConfig())
    write_arrays(tmp_path / "nights" / "subject7_7.npz", arrays)
    return edf, tmp_path / "nights" / "subject7_7.npz"


def test_a_custom_channels_unit_and_band_are_known_to_who_trains_on_its_nights(custom):
    _, path = custom
    recipe = Recipe.of_nights(DATABASES["custom"], {"emg": "EMG"}, read_night(path, ("EMG",)).about)
    assert recipe.channels == {"emg": ChannelSpec("EMG", ("Chin",), (20.0, 40.0))}
    assert recipe.as_stored


def test_nights_that_version_1_prepared_say_it_in_their_settings():
    settings = {"as_stored": True, "channels": [{"name": "EMG", "band_hz": [20, 40]}], "spec": {}}
    settings["spec"]["channels"] = {"EMG": {"spellings": "Chin", "band": [20, 40]}}
    recipe = Recipe.of_nights(
        DATABASES["custom"], {"emg": "EMG"}, {"settings": settings, "channels": [{"name": "EMG"}]}
    )
    assert recipe.channels["emg"] == ChannelSpec("EMG", ("Chin",), (20.0, 40.0)) and recipe.as_stored


def test_an_unscaled_night_is_scaled_as_its_recording_is_when_it_is_staged(custom):
    """The night was trimmed to half an hour of wake, which is three times as large as sleep."""
    edf, path = custom
    night = read_night(path, ("EMG",))
    recipe = Recipe.of_nights(DATABASES["custom"], {"emg": "EMG"}, night.about, scaled=True)
    with open_signals(edf) as recording:
        signal = read_channel(recording, choose(recording, "Chin"), recipe.as_stored)
    staged, trained = recipe.applied("emg", signal.signals, signal.prepared), night.inputs(recipe)["emg"]
    assert len(staged) == 120 and len(trained) == 100
    np.testing.assert_allclose(trained, staged[20:], atol=1e-3)
    filtered = band_pass(signal.signals.ravel().astype(float), (20, 40))
    low, median, high = quartiles(filtered)
    np.testing.assert_allclose(staged.ravel(), (filtered - median) / (high - low), atol=1e-4)


@pytest.mark.parametrize("damaged", [[1, 2], [3, 2, 1], ["a", 1, 2], [0, 1, float("nan")], None])
def test_quartiles_that_are_none_are_not_trusted(custom, damaged):
    _, path = custom
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    about["channels"][0]["quartiles"] = damaged
    write_arrays(path, arrays | {"about": np.array(json.dumps(about))})
    night = read_night(path, ("EMG",))
    made = night.inputs(Recipe({"emg": ChannelSpec("EMG")}, scaled=True))["emg"]
    low, _, high = quartiles(made)
    assert high - low == pytest.approx(1, rel=1e-4)


def test_what_preparation_scaled_is_not_scaled_again(tmp_path):
    x = np.random.default_rng(1).normal(5, 2, (4, 1, 3000)).astype("float32")
    names = {"ch_names": np.array(["EEG_C4"]), "y": np.zeros(4, int)}
    for db in ("shhs", "synthetic"):
        recipe = Recipe.of_nights(DATABASES[db], {"eeg": "EEG_C4"}, {}, scaled=True)
        write_arrays(tmp_path / "n.npz", {"x": x, **names})
        made = read_night(tmp_path / "n.npz", ("EEG_C4",)).inputs(recipe)["eeg"]
        assert np.array_equal(made, x[:, 0]) == (db == "shhs")


def test_a_channel_of_one_value_but_for_a_few_samples_is_divided_by_one():
    x = np.full((4, 3000), 7.0)
    x[0, 0] = 9
    y = scale(x)
    assert y[0, 0] == 2 and not y[1:].any()


def test_a_model_keeps_the_recipe_of_its_custom_nights_and_stages_by_it(tmp_path):
    """Band and unit are in the specification alone, which staging does not see."""
    rng = np.random.default_rng(0)
    for subject in range(4):
        signal = rng.normal(0, 0.02, 100 * 30 * 24)
        write_edf(tmp_path / "raw" / f"{subject}.edf", {"Chin": (signal, 100, "mV")}, span=0.4)
        (tmp_path / "raw" / f"{subject}.txt").write_text("W\n" * 4 + "S\n" * 20)
    (tmp_path / "lab.toml").write_text(SPEC)
    where = ["--data", tmp_path / "raw", "--out", tmp_path / "nights", "--spec", tmp_path / "lab.toml"]
    assert prepare(["--db", "custom", *map(str, where)]) == 0
    settings = ("channel=EMG", "folds=4", "filters=4", "first_kernel=12", "block_kernel=3", "lstm_units=4")
    settings += ("reconstruction_passes=0", "passes=1", "batch_nights=2")
    training = ["--db", "custom", "--to_fold", 0, "--data", tmp_path / "nights", "--out", tmp_path]
    training += [part for value in settings for part in ("--set", value)]
    assert trainer.main([str(argument) for argument in training]) == 0
    (predictor,) = recsleep.load_stager(tmp_path / "custom" / "0").predictors
    recipe = predictor.recipe
    assert recipe.channels == {"eeg": ChannelSpec("EMG", ("Chin",), (20.0, 40.0))} and recipe.as_stored
    staged = recsleep.stage(tmp_path / "raw" / "0.edf", tmp_path / "custom" / "0", calibrate=False)
    night = read_night(tmp_path / "nights" / "subject0_0.npz", ("EMG",))
    expected = predictor.probabilities({"eeg": night.signals[:, 0]})
    np.testing.assert_allclose(staged.probabilities, expected, atol=1e-3)


@pytest.mark.parametrize(
    "about",
    [
        {"channels": 5},
        {"channels": [{"name": "EMG", "band_hz": 5, "spellings": []}]},
        {"channels": [{"name": "EMG", "band_hz": None, "spellings": None}]},
        {"settings": {"channels": 7}},
        {"settings": {"channels": [{"name": "EMG", "band_hz": None}], "spec": [1]}},
    ],
)
def test_a_night_that_describes_itself_in_no_known_form(about):
    with pytest.raises(InputError, match="in an unknown form"):
        Recipe.of_nights(DATABASES["custom"], {"emg": "EMG"}, about)


def test_a_night_that_was_not_filtered_is_filtered_when_it_is_staged():
    """By a model of another database, whose channel goes through a band-pass."""
    x = np.random.default_rng(0).normal(0, 20, (4, 3000)).astype("float32")
    recipe = Recipe({"emg": EMG})
    for band, filtered in ((None, True), ([25, 49], False)):
        night = {"channels": [{"name": "EMG", "band_hz": band, "spellings": []}]}
        assert (recipe.applied("emg", x, channel_about(night, "EMG")) is not x) == filtered
    assert recipe.applied("emg", x, channel_about({}, "EMG")) is x
    good = {"name": "EMG", "unit": "mV", "band_hz": None, "quartiles": [1, 2, 3]}
    for damaged in ({"settings": {"channels": 7}, "channels": [good]}, {"channels": [7, good]}):
        found = channel_about(damaged, "EMG")
        assert found == {"prepared": True, "filtered": False, "unit": "mV", "quartiles": [1, 2, 3]}


def test_a_derivation_of_a_night_file_has_quartiles_of_its_own(tmp_path):
    x = np.random.default_rng(0).normal(((70.0,), (0.0,)), 1, (4, 2, 3000))
    about = {"channels": [{"name": name, "quartiles": [69.0, 70.0, 71.0]} for name in ("C3", "M2")]}
    names = {"ch_names": np.array(["C3", "M2"]), "y": np.zeros(4, int), "about": np.array(json.dumps(about))}
    write_arrays(tmp_path / "n.npz", {"x": x.astype("float32"), **names})
    with open_signals(tmp_path / "n.npz") as night:
        signal = read_channel(night, choose(night, "C3-M2"))
    made = Recipe({"eeg": ChannelSpec("C3-M2")}, scaled=True).applied("eeg", signal.signals, signal.prepared)
    assert np.median(made) == pytest.approx(0, abs=1e-5)
