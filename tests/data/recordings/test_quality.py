"""The amplitude of a night: what may and what may not change it."""

import numpy as np
import pytest

from data.recordings.quality import (
    Level,
    Quality,
    assess,
    calibrated,
    near_sleep,
    spans,
    unscored,
    warnings,
)
from data.terms import InputError


def night(epochs: int = 240, seed: int = 0) -> np.ndarray:
    """Noise of 1/f, like EEG, whose amplitude goes up and down: float64 (epochs, 3000)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=(epochs, 3000)))
    shape = 1 / np.maximum(np.fft.rfftfreq(3000, 0.01), 0.5)
    waves = np.fft.irfft(spectrum * shape)
    return 15 * waves / waves.std() * (1 + 0.5 * np.sin(np.arange(epochs) / 20))[:, None]


NOTHING = np.zeros(240, bool)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 3, 1e3])
def test_a_factor_changes_nothing(factor):
    x = night().astype("float32")
    before, after = assess(x, NOTHING), assess(x * np.float32(factor), NOTHING)
    assert after.amplitude == pytest.approx(factor * before.amplitude, rel=1e-5)
    level = Level(12.5, 0.5)
    np.testing.assert_allclose(
        calibrated(x * np.float32(factor), after, level), calibrated(x, before, level), rtol=1e-4, atol=1e-3
    )


def test_the_level_is_reached():
    x = night() + 300
    signals = calibrated(x, assess(x, NOTHING), Level(12.5, 0.5))
    assert assess(signals, NOTHING).amplitude == pytest.approx(12.5, rel=1e-4)
    np.testing.assert_allclose(np.median(signals, axis=1), 0.5, atol=1e-3)
    assert signals.dtype == np.float32


HOUR = slice(100, 160)


def flat(x):
    x[HOUR] = 7


def hiss(x):
    """What an open input records."""
    x[HOUR] = np.random.default_rng(1).normal(0, 0.2, x[HOUR].shape)


def rail(x):
    x[HOUR] = 3000


def both_rails(x):
    x[HOUR] = 300 * np.sign(np.sin(np.arange(3000) / 3))


def storm(x):
    x[HOUR] = np.random.default_rng(1).normal(0, 900, x[HOUR].shape)


@pytest.mark.parametrize("spoil", [flat, hiss, rail, both_rails, storm])
def test_an_hour_without_a_lead_changes_the_level_by_nothing(spoil):
    x = night()
    without = assess(np.delete(x, HOUR, axis=0), np.zeros(180, bool)).amplitude
    spoil(x)
    quality = assess(x, NOTHING)
    lost = np.flatnonzero(quality.silent | quality.outlying)
    np.testing.assert_array_equal(lost, np.arange(100, 160))
    assert quality.amplitude == pytest.approx(without, rel=1e-6)


def test_short_artefacts_and_drift_hardly_change_the_level():
    x = night()
    clean = assess(x, NOTHING).amplitude
    x[::3, :300] += 500
    x += np.linspace(0, 1000, x.size).reshape(x.shape)
    assert assess(x, NOTHING).amplitude == pytest.approx(clean, rel=0.25)


def test_calibrated_signals_end_where_training_ended():
    x = night()
    x[5, 100] = 1e6
    signals = calibrated(x, assess(x, NOTHING), Level(10))
    assert signals.max() == pytest.approx(160)
    silent = Quality(10.0, np.arange(240) == 3, NOTHING, 0, 0)
    assert not calibrated(x, silent, Level(10))[3].any()


def test_nothing_but_silence_is_refused():
    with pytest.raises(InputError, match="no epoch holds a signal"):
        assess(np.zeros((3, 3000)), np.zeros(3, bool))
    with pytest.raises(InputError, match="no epoch holds a signal"):
        assess(night(3), np.ones(3, bool))


def test_values_too_coarse_to_tell_a_level_are_refused():
    coarse = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (8, 3000), p=[0.2, 0.6, 0.2]).astype("float32")
    with pytest.raises(InputError, match="recorded too coarsely"):
        assess(coarse, np.zeros(8, bool))


@pytest.mark.parametrize(
    ("change", "unit", "told"),
    [
        (lambda x: x, "µV", ""),
        (lambda x: x * 1e3, "µV", "unit is probably wrong"),
        (lambda x: x * 1e-6, "µV", "unit is probably wrong"),
        (lambda x: x * 1e3, "as stored", ""),
        (lambda x: np.clip(x, -12, 12), "µV", "clipped"),
        (lambda x: np.random.default_rng(0).normal(0, 20, x.shape), "µV", "mostly noise"),
    ],
)
def test_warnings(change, unit, told):
    found = " ".join(warnings(assess(change(night()), NOTHING), unit))
    assert told in found if told else found == ""


def test_a_strange_level_is_told_where_it_is_not_mended():
    quality = assess(night(), NOTHING)
    ratio = quality.amplitude / 2
    assert f"{ratio:.3g} times that of the training nights" in warnings(quality, "as stored", Level(2))[0]
    assert not warnings(quality, "as stored", Level(quality.amplitude * 0.5))


def test_near_sleep_in_a_short_recording():
    stages = np.zeros(80, int)
    stages[79] = 2
    np.testing.assert_array_equal(np.flatnonzero(near_sleep(stages)), np.arange(19, 80))


def test_near_sleep_is_half_an_hour_around_n2_n3_and_rem():
    stages = np.zeros(400, int)
    stages[200:210], stages[30] = 2, 1
    np.testing.assert_array_equal(np.flatnonzero(near_sleep(stages)), np.arange(140, 270))


def test_stretches():
    lost = np.zeros(60, bool)
    lost[5:25] = lost[30:51] = True
    np.testing.assert_array_equal(np.flatnonzero(unscored(lost)), np.arange(30, 51))
    assert spans(lost) == "5-24, 30-50"
    assert spans(np.arange(60) % 2 == 0).endswith("8 and 25 more stretches")
