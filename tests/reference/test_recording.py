"""A night that no fold ever saw, staged by the ten published folds of another database."""

import numpy as np
import pytest
from recordings import write_edf

import recsleep
from config import SyntheticConfig
from data.nights.files import write_arrays
from data.prepare.synthetic import make_night
from evaluation.stages import Scores

tf = pytest.importorskip("tensorflow", reason="TensorFlow reads the TensorFlow-1 checkpoints")

pytestmark = pytest.mark.xdist_group("ten folds")


@pytest.fixture(scope="module")
def stager(reference):
    return recsleep.load_stager(reference / "pretrained_model" / "sleepedfx")


@pytest.fixture(scope="module")
def one(reference):
    """One of the ten, for what does not need them all."""
    return recsleep.load_stager(reference / "pretrained_model" / "sleepedfx" / "0")


@pytest.fixture(scope="module")
def night(reference):
    with np.load(reference / "nights" / "ucddb" / "ucddb018.npz") as file:
        return file["x"], file["y"]


@pytest.fixture(scope="module")
def staged(reference, stager):
    return recsleep.stage(reference / "nights" / "ucddb" / "ucddb018.npz", stager)


def test_agreement_on_subject_18(staged):
    scores = staged.agreement
    assert scores.epochs == 822
    assert scores.accuracy >= 0.915
    assert scores.macro_f1 >= 0.83
    assert scores.kappa >= 0.875
    assert not staged.about["warnings"]
    # What smoothing adds to the networks' own stages.
    assert Scores.of(staged.scored, staged.probabilities.argmax(axis=1)).accuracy < scores.accuracy - 0.015


@pytest.mark.parametrize("factor", [1e-6, 0.3, 3, 1e3])
def test_another_amplitude_gives_the_same_stages(stager, night, staged, tmp_path, factor):
    x, y = night
    np.savez(tmp_path / "n.npz", x=x * np.float32(factor), y=y)
    np.testing.assert_array_equal(recsleep.stage(tmp_path / "n.npz", stager).stages, staged.stages)


def test_without_calibration_it_fails_and_says_so(reference, stager):
    raw = recsleep.stage(reference / "nights" / "ucddb" / "ucddb018.npz", stager, calibrate=False)
    assert raw.agreement.accuracy < 0.7
    assert "times that of the training nights" in raw.about["warnings"][-1]


def resampled(x: np.ndarray, rate: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = np.gcd(rate, 100)
    return resample_poly(x, rate // common, 100 // common)


@pytest.mark.parametrize(
    ("first", "end", "rate", "accuracy"),
    [(200, 220, 100, 0.8), (150, 510, 100, 0.9), (0, 822, 64, 0.87), (0, 822, 512, 0.89), (0, 50, 100, 1.0)],
    ids=["10 minutes", "3 hours", "64 Hz", "512 Hz", "all wake"],
)
def test_an_edf_of_any_length_and_rate(one, night, tmp_path, first, end, rate, accuracy):
    x, y = night
    microvolts = 110 * (x[first:end].ravel() - 0.55)
    signals = {
        "C3": (resampled(microvolts / 2, rate), rate, "uV"),
        "A2": (resampled(-microvolts / 2, rate), rate, "uV"),
    }
    ours = recsleep.stage(write_edf(tmp_path / "n.edf", signals, span=400), one)
    assert ours.about["channels"][0]["from"] == ["C3", "A2"]
    assert Scores.of(y[first:end], ours.stages).accuracy >= accuracy


@pytest.mark.parametrize("lost", [0.0, 3.0, None], ids=["flat", "at the rail", "noise"])
def test_a_lead_off_for_an_hour(one, night, tmp_path, lost):
    x, y = night[0].copy(), night[1]
    hour = slice(300, 420)
    x[hour] = np.random.default_rng(0).normal(0, 4, x[hour].shape) if lost is None else lost
    np.savez(tmp_path / "n.npz", x=x, y=y)
    ours = recsleep.stage(tmp_path / "n.npz", one)
    np.testing.assert_array_equal(np.flatnonzero(ours.stages < 0), np.arange(300, 420))
    assert ours.agreement.epochs == 702
    assert ours.agreement.accuracy >= 0.87
    assert "300-419" in ours.about["warnings"][0]


def test_a_day_with_two_nights(one, night, tmp_path):
    """24 hours, awake three times as large as asleep: the level is the nights'."""
    x, y = 0.1 * (night[0] - 0.55), night[1]
    awake = 3 * np.concatenate([x[:180]] * 4)
    np.savez(tmp_path / "n.npz", x=np.concatenate([awake[:700], x, awake[:536], x]))
    ours = recsleep.stage(tmp_path / "n.npz", one)
    assert len(ours.stages) == 2880
    for first in (700, 2058):
        assert Scores.of(y, ours.stages[first : first + 822]).accuracy >= 0.87
    assert len(ours.periods()) == 2
    assert "there are 2 periods of sleep" in ours.remarks[0]


@pytest.mark.long
def test_smoothing_helps_on_synthetic_nights(one, tmp_path):
    """Of which the network, trained on real ones, is unsure."""
    before = after = Scores(np.zeros((5, 5), int))
    for subject in (1, 2, 3):
        write_arrays(tmp_path / "n.npz", make_night(subject, SyntheticConfig()))
        night = recsleep.stage(tmp_path / "n.npz", one, "EEG C4-M1")
        before += Scores.of(night.scored, night.probabilities.argmax(axis=1))
        after += Scores.of(night.scored, night.stages)
    assert after.accuracy > before.accuracy
    assert after.macro_f1 > before.macro_f1
    assert after.kappa > before.kappa


def test_live_is_the_whole_night(one, night):
    x = 125 * (night[0][:60] - 0.55)
    live, samples = recsleep.LiveStager(one), x.ravel()
    staged = [epoch for first in range(0, len(samples), 1234) for epoch in live.push(samples[first : first + 1234])]
    expected = one.predictors[0].probabilities({"eeg": x})
    np.testing.assert_allclose([epoch.probabilities for epoch in staged], expected, atol=1e-5)
