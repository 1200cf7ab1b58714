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
    assert found.not_behind == [] and "WARNING" not in found.text() and "each fold probably never saw" in found.text()


def test_folds_that_saw_them_are_told():
    found = accuracies(shifted=True)
    assert found.interval[1] < 0.01
    assert "WARNING" in found.text()
    # Nine folds were trained alike, the one that was not is among the others.
    assert len(found.not_behind) > 50
    assert f"\n  The other folds are not more accurate on subject {found.not_behind[0]}, " in found.text()
    assert [row["subject"] for row in found.to_json()["subjects"]] == list(range(100))


def test_a_few_subjects_of_another_fold_are_named():
    """As if numbers were off by one, so that the last subject of each fold was tested by the next one."""
    right, wrong = accuracies(shifted=False), accuracies(shifted=True)
    off = range(9, 100, 10)
    found = OtherFolds(right.own | {s: wrong.own[s] for s in off}, right.others | {s: wrong.others[s] for s in off})
    assert found.interval[0] > 0 and set(found.not_behind) <= set(off) and len(found.not_behind) >= 4
