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
    agreement = Agreement(("a", "b", "c"), np.array([5.0, 9.0, 16.0]), np.array([4.0, 10.0, 13.0]))
    # Differences 1, -1, 3: mean 1, standard deviation 2.
    assert agreement.figures == pytest.approx({"bias": 1, "deviation": 2, "lower_limit": -2.92, "upper_limit": 4.92})
    agreement.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_one_night_has_no_limits(tmp_path):
    agreement = Agreement(("a",), np.array([5.0]), np.array([4.0]))
    assert agreement.to_json()["deviation"] is None and agreement.to_json()["bias"] == 1
    agreement.plot(tmp_path / "plot.png")
