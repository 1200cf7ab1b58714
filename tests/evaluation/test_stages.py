"""Scores against figures worked out by hand."""

import numpy as np
import pytest

from evaluation.stages import Scores


def test_two_stages_by_hand():
    # 6 W: 4 right, 2 called N3; 4 N3: 3 right, 1 called W. Chance agreement (6*5 + 4*5) / 100.
    scored = np.array([0] * 6 + [3] * 4)
    predicted = np.array([0, 0, 0, 0, 3, 3, 3, 3, 3, 0])
    scores = Scores.of(scored, predicted)
    assert scores.accuracy == pytest.approx(0.7)
    assert scores.kappa == pytest.approx((0.7 - 0.5) / 0.5)
    assert scores.by_stage.loc["W", "F1"] == pytest.approx(8 / 11)
    assert scores.by_stage.loc["N3", "precision"] == pytest.approx(3 / 5)
    assert scores.by_stage.loc["N3", "recall"] == pytest.approx(3 / 4)
    assert scores.macro_f1 == pytest.approx((8 / 11 + 2 / 3) / 2)
    assert scores.to_json()["stages"]["REM"] == {"precision": None, "recall": None, "f1": None}
    assert "-" in scores.table()


def test_a_stage_only_the_model_used_counts_as_zero():
    scores = Scores.of(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 4]))
    assert scores.macro_f1 == pytest.approx((6 / 7 + 0) / 2)


def test_a_single_stage_has_no_kappa():
    scores = Scores.of(np.zeros(5, int), np.zeros(5, int))
    assert scores.accuracy == 1
    assert scores.to_json()["kappa"] is None


def test_pooling_adds_epochs_not_scores():
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 5, n), rng.integers(0, 5, n)) for n in (10, 200)]
    pooled = Scores.of(*pairs[0]) + Scores.of(*pairs[1])
    assert pooled.confusion.tolist() == Scores.of(*np.concatenate(pairs, axis=1)).confusion.tolist()
    assert pooled.epochs == 210
