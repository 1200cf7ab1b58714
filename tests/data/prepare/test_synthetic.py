"""Synthetic nights: repeatable, different between subjects, with the signs of each stage in the right places."""

import mne
import numpy as np
import pytest
from scipy import signal

from config import SyntheticConfig
from data.databases import DATABASES
from data.nights.folds import find_nights
from data.nights.night import read_night
from data.prepare.synthetic import CHANNELS, ensure_nights, make_night, write_recording
from data.terms import EVENTS, STAGES, InputError
from runs.settings import configure

pytestmark = pytest.mark.long

W, N1, N2, N3, REM = range(5)


@pytest.fixture(scope="module")
def nights():
    return [make_night(subject, SyntheticConfig(hours=2)) for subject in range(3)]


def band_power(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Of each epoch (epochs, 3000), in µV²."""
    frequencies, power = signal.welch(x, 100, nperseg=400)
    return power[:, (frequencies >= low) & (frequencies < high)].mean(axis=1)


def test_same_subject_same_night_other_subject_other_night(nights):
    again = make_night(1, SyntheticConfig(hours=2))
    for key, value in nights[1].items():
        np.testing.assert_array_equal(again[key], value)
    other = make_night(1, SyntheticConfig(hours=2, synthetic_seed=1))
    assert not np.array_equal(other["x"][:50], again["x"][:50])
    assert nights[0]["y"][:300].tolist() != nights[1]["y"][:300].tolist()


def test_a_whole_night_has_all_stages_and_no_majority():
    y = make_night(0, SyntheticConfig())["y"]
    assert 850 < len(y) < 1050
    shares = np.bincount(y, minlength=5) / len(y)
    assert shares.max() < 0.5
    assert shares.min() > 0.02


def test_the_old_sleep_less_deeply_and_wake_more_often():
    young, old = (make_night(0, SyntheticConfig(hours=2), age=age) for age in (30, 80))
    deep = [night["y"] == N3 for night in (young, old)]
    assert 0 < deep[1].sum() < 0.6 * deep[0].sum()
    wakes = [np.count_nonzero((night["y"][1:] == W) & (night["y"][:-1] != W)) for night in (young, old)]
    assert wakes[1] > wakes[0]
    slow = [np.median(band_power(n["x"][:, 0], 0.5, 2)[d]) for n, d in zip((young, old), deep, strict=True)]
    assert slow[1] < 0.7 * slow[0]


def test_each_stage_shows_its_signs(nights):
    for night in nights:
        x, y = night["x"], night["y"]
        eeg, left, right, emg = x[:, 0], x[:, 1], x[:, 2], band_power(x[:, 3], 18, 48)

        def median(values, stage, y=y):
            return np.median(values[y == stage])

        assert median(band_power(eeg, 0.5, 2), N3) > 5 * median(band_power(eeg, 0.5, 2), N2)
        assert median(band_power(eeg, 8.5, 11.2), W) > 3 * median(band_power(eeg, 8.5, 11.2), REM)
        assert median(band_power(eeg, 12, 14.5), N2) > 1.5 * median(band_power(eeg, 12, 14.5), REM)
        assert median(emg, REM) < 0.3 * median(emg, N2) < 0.3 * median(emg, W)
        together = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(left, right, strict=True)])
        assert median(together, REM) < -0.5 < median(together, N3)


def test_breathing_stops_in_apneas_and_oxygen_falls(nights):
    for night in nights:
        x, y, events = night["x"], night["y"], night["events"]
        assert tuple(night["event_names"]) == EVENTS
        assert tuple(night["ch_names"]) == CHANNELS
        assert events.shape == (len(y), 5)
        quiet = signal.sosfiltfilt(signal.butter(2, 2, fs=100, output="sos"), x[:, 5].ravel()).reshape(len(y), 3000)
        # The quietest ten seconds' range of each epoch.
        depth = np.ptp(quiet.reshape(len(y), 6, 500), axis=2).min(axis=1)
        apnea = events[:, :3].any(axis=1)
        calm = ~events[:, :4].any(axis=1)
        assert np.median(depth[apnea]) < 0.4 * np.median(depth[calm])
        low = events[:, EVENTS.index("SpO2 Desaturation")] == 1
        assert x[low, 6].min(axis=1).mean() < x[~low, 6].min(axis=1).mean() - 2


def test_files_are_made_once_and_read_as_nights(tmp_path):
    config = configure("synthetic", ["hours=0.2", "subjects=(0,1)", "folds=2"])
    ensure_nights(tmp_path, config.database, config.synthetic)
    found = find_nights(config.database, tmp_path)
    assert sorted(found) == [0, 1]
    night = read_night(found[0][0], (DATABASES["synthetic"].channel,))
    assert night.signals.shape[1:] == (1, 3000)
    stamp = found[1][0].stat().st_mtime_ns
    found[0][0].unlink()
    ensure_nights(tmp_path, config.database, config.synthetic)
    assert found[0][0].exists()
    assert found[1][0].stat().st_mtime_ns == stamp
    with pytest.raises(InputError, match="other"):
        ensure_nights(tmp_path, config.database, SyntheticConfig(hours=3))


def test_a_recording_holds_its_night_and_its_scoring(tmp_path):
    config = SyntheticConfig(hours=0.2)
    scoring = write_recording(tmp_path / "sleeper.edf", 3, config)
    night, raw = make_night(3, config), mne.io.read_raw_edf(tmp_path / "sleeper.edf", verbose="error")
    assert tuple(raw.ch_names) == CHANNELS
    assert [STAGES.index(line) for line in scoring.read_text().splitlines()] == list(night["y"])
    eeg = night["x"][:, 0].ravel()
    # EDF keeps 16 bits of each sample.
    np.testing.assert_allclose(1e6 * raw.get_data(CHANNELS[0])[0], eeg, atol=np.ptp(eeg) / 2**15)
