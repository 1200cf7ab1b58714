"""Differences of the same subjects before and after, against plain loops; and how often chance passes for a gain."""

from itertools import product

import numpy as np
import pytest

from evaluation.paired import BeforeAndAfter
from evaluation.stages import Scores


def scores(rng: np.random.Generator, accuracy: float, epochs: int = 200) -> Scores:
    """Of one subject, whose stages are found with that probability."""
    scored = rng.integers(0, 5, epochs)
    found = np.where(rng.random(epochs) < accuracy, scored, rng.integers(0, 5, epochs))
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (scored, found), 1)
    return Scores(confusion)


def compared(before: list[float], after: list[float], seed: int = 0) -> BeforeAndAfter:
    rng = np.random.default_rng(seed)
    return BeforeAndAfter(*({s: scores(rng, accuracy) for s, accuracy in enumerate(each)} for each in (before, after)))


def macro_f1(confusions: list[np.ndarray]) -> float:
    total = sum(confusions)
    return np.mean([2 * total[k, k] / (total[k].sum() + total[:, k].sum()) for k in range(5)])


@pytest.mark.parametrize("subjects", [3, 7])
def test_difference_and_p_by_trying_all_swaps(subjects):
    found = compared([0.7] * subjects, np.linspace(0.66, 0.78, subjects).tolist())
    one, other = ([each[s].confusion for s in range(subjects)] for each in (found.before, found.after))
    assert found.difference["macro_f1"] == pytest.approx(macro_f1(other) - macro_f1(one))
    differences = [
        macro_f1([a if s else b for a, b, s in zip(one, other, swap, strict=True)])
        - macro_f1([b if s else a for a, b, s in zip(one, other, swap, strict=True)])
        for swap in product((0, 1), repeat=subjects)
    ]
    expected = np.mean(np.abs(differences) >= abs(found.difference["macro_f1"]) - 1e-12)
    assert found.p == pytest.approx(expected)


def test_subjects_are_drawn_with_both_of_their_nights():
    """Subjects differ much from each other, the difference of each is the same: its interval is narrow."""
    found = compared([0.3, 0.5, 0.6, 0.7, 0.8, 0.9], [0.36, 0.56, 0.66, 0.76, 0.86, 0.96])
    low, high = found.intervals["accuracy"]
    assert low <= found.difference["accuracy"] <= high
    assert high - low < 0.1


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([0.6] * 8, [0.8] * 8, "Adapting helped: macro-F1 rose on these 8 test subjects"),
        ([0.8] * 8, [0.6] * 8, "Adapting did harm: macro-F1 fell on these 8 test subjects"),
        ([0.7] * 8, [0.7] * 8, "It is not certain that adapting helped: on 8 test subjects, the difference may"),
        # However large it is.
        ([0.3] * 5, [0.9] * 5, "on 5 test subjects (too few to tell), the difference may be chance"),
        ([0.3], [0.9], "on 1 test subject (too few to tell), the difference may be chance"),
    ],
)
def test_verdicts(before, after, told):
    found = compared(before, after)
    assert told in found.verdict
    assert found.text().endswith(found.verdict)
    assert found.to_json()["verdict"] == found.verdict


def test_noise_is_seldom_called_a_gain():
    """Of trainings that change nothing, at most one in twenty helps or harms, here within three deviations."""
    claims = [not compared([0.7] * 6, [0.7] * 6, seed).verdict.startswith("It is not certain") for seed in range(100)]
    assert np.mean(claims) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_more_subjects_than_swaps_can_be_tried():
    found = compared([0.6] * 20, [0.7] * 20)
    assert 0 < found.p < 0.01
    assert "Adapting helped" in found.verdict
