"""The apnea-hypopnea index and its agreement, against cases worked out by hand."""

import numpy as np
import pytest

from evaluation.breathing import Agreement, apnea_hypopnea_index


def test_a_run_of_epochs_is_one_event():
    events = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    # Three runs in six epochs, three minutes, of sleep.
    assert apnea_hypopnea_index(events, np.array([1, 1, 1, 1, 0, 0, 1, 1], bool)) == pytest.approx(60)
    # What is found in wake is no event of sleep: two runs in two minutes and a half.
    assert apnea_hypopnea_index(events, np.array([0, 1, 1, 0, 0, 0, 1, 1], bool)) == pytest.approx(2 / (2 / 60))
    assert np.isnan(apnea_hypopnea_index(events, np.zeros(8, bool)))


def test_limits_of_agreement(tmp_path):
    agreement = Agreement(("a", "b", "c"), (1, 2, 3), np.array([5.0, 9.0, 16.0]), np.array([4.0, 10.0, 13.0]))
    # Differences 1, -1, 3: mean 1, standard deviation 2. Deviations from the means -5, -1, 6 and -5, 1, 4.
    limits = {"lower_limit": -2.92, "upper_limit": 4.92}
    correlation = (25 - 1 + 24) / np.sqrt(62 * 42)
    assert agreement.figures == pytest.approx({"bias": 1, "deviation": 2, **limits, "correlation": correlation})
    agreement.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_one_night_has_no_limits(tmp_path):
    agreement = Agreement(("a",), (1,), np.array([5.0]), np.array([4.0]))
    told = agreement.to_json()
    assert told["deviation"] is told["correlation"] is None and told["bias"] == 1 and told["intervals_95"] == {}
    agreement.plot(tmp_path / "plot.png")


def test_intervals_are_over_subjects_with_all_their_nights():
    rng = np.random.default_rng(5)
    subjects = np.repeat(np.arange(12), 2)
    scored = np.repeat(rng.uniform(0, 40, 12), 2) + rng.normal(0, 1, 24)
    estimated = 0.8 * scored + np.repeat(rng.normal(0, 4, 12), 2)
    agreement = Agreement(tuple(map(str, range(24))), tuple(subjects.tolist()), estimated, scored)
    bias, correlation = [], []
    for _ in range(4000):
        nights = np.concatenate([np.flatnonzero(subjects == s) for s in rng.integers(0, 12, 12)])
        bias.append((estimated - scored)[nights].mean())
        correlation.append(np.corrcoef(estimated[nights], scored[nights])[0, 1])
    assert agreement.intervals["bias"] == pytest.approx(np.percentile(bias, (2.5, 97.5)), abs=0.3)
    assert agreement.intervals["correlation"] == pytest.approx(np.percentile(correlation, (2.5, 97.5)), abs=0.03)
    assert "over 12 subjects: bias" in agreement.line()
