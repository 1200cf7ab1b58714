"""Figures on breathing events: against counts by hand, and where they have no meaning."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluation.events import EventScores
from evaluation.predictions import NightPredictions, saved_scores

SCORED = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
PROBABILITIES = np.array([0.9, 0.8, 0.3, 0.6, 0.4, 0.2, 0.1, 0.0])


def test_as_counted_by_hand():
    """Two of three found, one of five found wrongly."""
    figures = EventScores(SCORED, PROBABILITIES).figures
    assert figures["accuracy"] == 6 / 8
    assert figures["prevalence"] == 3 / 8
    assert figures["sensitivity"] == pytest.approx(2 / 3)
    assert figures["specificity"] == pytest.approx(4 / 5)
    assert figures["macro_f1"] == pytest.approx((2 * 2 / (3 + 3) + 2 * 4 / (5 + 5)) / 2)
    expected = (3 * 3 + 5 * 5) / 64
    assert figures["kappa"] == pytest.approx((6 / 8 - expected) / (1 - expected))
    # 13 of the 15 pairs of an epoch with and one without are in the right order.
    assert figures["auroc"] == pytest.approx(13 / 15)
    assert figures["average_precision"] == pytest.approx((1 + 1 + 3 / 5) / 3)


def test_pooled_as_one():
    pooled = EventScores(SCORED[:3], PROBABILITIES[:3]) + EventScores(SCORED[3:], PROBABILITIES[3:])
    assert pooled.figures == EventScores(SCORED, PROBABILITIES).figures
    assert "auroc 0.867" in pooled.line() and pooled.line().endswith("8 epochs")


def test_without_any_event_some_figures_have_no_meaning():
    found = EventScores(np.zeros(4, bool), PROBABILITIES[4:]).to_json()
    assert found["auroc"] is found["average_precision"] is found["sensitivity"] is None
    assert found["specificity"] == found["accuracy"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_finds_the_event_with_a_better_f1(seed):
    rng = np.random.default_rng(seed)
    scored = rng.random(200) < 0.1
    # Rounded, so that several epochs have the same probability.
    probabilities = np.round(rng.beta(1 + 2 * scored, 6), 2).astype("float32")
    scores = EventScores(scored, probabilities)
    all_f1 = [f1_score(scored, probabilities > t, zero_division=0) for t in np.arange(-0.005, 1, 0.01)]
    found = f1_score(scored, probabilities > scores.best_threshold)
    assert found == pytest.approx(max(all_f1)) and found > f1_score(scored, probabilities > 0.5, zero_division=0)


@pytest.mark.parametrize("scored", [0, 1])
def test_the_threshold_is_the_middle_where_there_is_nothing_to_find(scored):
    assert EventScores(np.full(10, bool(scored)), np.linspace(0, 1, 10)).best_threshold == 0.5


def test_saved_predictions_have_the_scores_of_those_that_were_found(tmp_path):
    """Of probabilities, too, that differ from 0.5 by as little as a float32 can."""
    above, below = (np.nextafter(np.float32(0.5), np.float32(to)) for to in (1, 0))
    events = np.array([above, below, 0.5, 1 / 3, 1e-8, 1 - 2**-24], "float32")
    labels = np.array([1, 0, 0, -1, 0, 1])
    night = NightPredictions("night", "apnea", labels, np.stack([1 - events, events], axis=1), np.zeros(6, int))
    night.save(tmp_path / "night.csv")
    saved = saved_scores(tmp_path / "night.csv", "apnea")
    assert isinstance(saved, EventScores) and np.array_equal(saved.probabilities, night.scores.probabilities)
    assert saved.figures["accuracy"] == 1
