"""Whether folds were trained on whom they test, on accuracies of which that is known."""

import numpy as np
import pytest

from evaluation.seen import OtherFolds


def accuracies(shifted: bool, folds: int = 10, gap: float = 0.05) -> OtherFolds:
    """Of ten subjects a fold, who are easier or harder; a fold is better by ``gap`` on whom it was trained on.

    Whoever is ``shifted`` by a fold is tested by one that was trained on them.
    """
    rng = np.random.default_rng(4)
    own, others = {}, {}
    for subject, ease in enumerate(rng.normal(0.8, 0.05, 10 * folds)):
        found = ease + gap + rng.normal(0, 0.01, folds)
        testing = subject // 10
        found[(testing + shifted) % folds] -= gap
        own[subject], others[subject] = found[testing], np.delete(found, testing).tolist()
    return OtherFolds(own, others)


def test_folds_that_never_saw_their_test_subjects_do_worse_on_them():
    found = accuracies(shifted=False)
    assert found.ahead.mean() == pytest.approx(0.05, abs=0.005)
    low, high = found.interval
    assert 0.04 < low < found.ahead.mean() < high < 0.06
    assert found.best_by_own == [] and "WARNING" not in found.text() and "as folds do that were trained" in found.text()


def test_folds_that_saw_them_are_told():
    found = accuracies(shifted=True)
    assert found.interval[1] < 0.01
    assert "WARNING" in found.text()
    # One of nine folds alike.
    assert 2 < len(found.best_by_own) < 25
    assert f"most accurate of all on subject {found.best_by_own[0]}, " in found.text()
    assert [row["subject"] for row in found.to_json()["subjects"]] == list(range(100))
