"""Smoothing: against a sum over all sequences of stages, and on nights of many kinds, which it must not harm."""

from itertools import pairwise, product

import numpy as np
import pytest

from data.terms import STAGES
from evaluation.stages import Scores, transitions
from staging.smoothing import EVIDENCE, SHARPNESS, TYPICAL, TYPICAL_EPOCHS, ForwardFilter, counted_in, smoothed

W, N1, N2, N3, REM = range(5)


def test_typical_transitions_are_probabilities():
    np.testing.assert_allclose(TYPICAL.sum(axis=1), 1)
    assert (TYPICAL > 0).all() and (TYPICAL.argmax(axis=1) == range(5)).all()


def of_all_sequences(evidence: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """The probability of each epoch's stage, by weighing every sequence of stages there can be."""
    found = np.zeros(evidence.shape)
    for stages in product(range(5), repeat=len(evidence)):
        chain = np.prod([followed[a, b] for a, b in pairwise(stages)])
        found[range(len(stages)), stages] += chain * np.prod(evidence[range(len(stages)), stages])
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("counted", [None, np.arange(25).reshape(5, 5)])
def test_the_probabilities_given_the_whole_night(counted):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5) / 2, 6)
    typical = TYPICAL if counted is None else counted + 20 * TYPICAL
    typical = typical / typical.sum(axis=1, keepdims=True)
    heard = np.arange(6) != 3
    neighbours = [(0, 1), (1, 2), (4, 5)]
    sharp = probabilities**SHARPNESS / (probabilities**SHARPNESS).sum(axis=1, keepdims=True)
    counts = TYPICAL_EPOCHS * typical + sum(np.outer(sharp[a], sharp[b]) for a, b in neighbours)
    evidence = np.where(heard[:, None], probabilities**EVIDENCE, 1)
    expected = of_all_sequences(evidence, counts / counts.sum(axis=1, keepdims=True))
    expected[3] = 0.2
    np.testing.assert_allclose(smoothed(probabilities, heard, counted), expected, atol=1e-6)


def test_while_the_night_lasts_only_the_past_counts():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5) / 2, 5)
    sharp = probabilities**SHARPNESS / (probabilities**SHARPNESS).sum(axis=1, keepdims=True)
    ours, counts = ForwardFilter(), TYPICAL_EPOCHS * TYPICAL
    expected = np.ones(5)
    for epoch, each in enumerate(probabilities):
        if epoch:
            expected = expected @ (counts / counts.sum(axis=1, keepdims=True))
        if epoch == 2:
            np.testing.assert_allclose(ours.step(each, heard=False), 0.2)
            continue
        if epoch not in (0, 3):
            counts = counts + np.outer(sharp[epoch - 1], sharp[epoch])
        expected = expected * each**EVIDENCE / np.sum(expected * each**EVIDENCE)
        np.testing.assert_allclose(ours.step(each), expected, atol=1e-6)


def test_transitions_of_training_nights():
    night = np.array([W, W, N2, -1, N2, N2, W])
    counts = transitions(night)
    assert counts.sum() == 4 and counts[W, N2] == counts[N2, N2] == counts[N2, W] == counts[W, W] == 1
    np.testing.assert_array_equal(counted_in([{"transitions": counts.tolist()}] * 2), 2 * counts)
    for other in (
        {},
        {"transitions": [[1, 2], [3]]},
        {"transitions": [[1, 2], [3, 4]]},
        {"transitions": "many"},
        {"transitions": (-counts).tolist()},
    ):
        assert counted_in([{"transitions": counts.tolist()}, other]) is None


def cycles(rng: np.random.Generator, epochs: int) -> list[int]:
    """A calm night: a few awakenings, long runs of every stage."""
    stages = [W] * 20
    while len(stages) < epochs:
        for stage, shortest, longest in ((N1, 2, 6), (N2, 20, 50), (N3, 20, 60), (N2, 5, 20), (REM, 15, 50), (W, 0, 4)):
            stages += [stage] * rng.integers(shortest, longest + 1)
    return stages[:epochs]


def fragmented(rng: np.random.Generator, epochs: int) -> list[int]:
    """Sleep that breaks off every few epochs, as in severe apnea."""
    followed = TYPICAL * (1 - 0.4 * np.eye(5))
    stages = [W]
    while len(stages) < epochs:
        stages.append(rng.choice(5, p=followed[stages[-1]] / followed[stages[-1]].sum()))
    return stages


NIGHTS = {
    "calm": lambda rng: cycles(rng, 960),
    "fragmented": lambda rng: fragmented(rng, 960),
    "short": lambda rng: cycles(rng, 60),
    "long": lambda rng: [W] * 900 + cycles(rng, 960) + [W] * 900,
    "REM at onset": lambda rng: [W] * 6 + [REM] * 20 + cycles(rng, 900),
    "wake alone": lambda _: [W] * 300,
    "N3 alone": lambda _: [N3] * 60,
    "REM alone": lambda _: [REM] * 60,
}


def observed(rng: np.random.Generator, stages: np.ndarray, noise: float) -> np.ndarray:
    """What a well calibrated network might say of the ``stages``, whose errors last for several epochs in part."""
    # What is alike: N1 and its neighbours, N3 and N2, REM and wake and N1.
    features = np.array([[3, 1, 0, -2, 0], [1, 2, 1, -2, 1], [-1, 1, 3, 1, 0], [-2, -1, 1, 4, -1], [0, 1, 0, -2, 3]])
    drawn = rng.normal(0, noise, (len(stages) + 1, 5))
    seen = features[stages] + (drawn[:-1] + drawn[1:]) / np.sqrt(2)
    likelihoods = np.exp(-(((seen[:, None] - features) / noise) ** 2).sum(axis=2) / 2)
    return likelihoods / likelihoods.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("noise", [0.7, 1.5])
@pytest.mark.parametrize("kind", NIGHTS)
def test_nights_of_all_kinds(kind, noise):
    """Over twelve nights: no worse in accuracy and macro-F1, and better where there is something to mend."""
    rng = np.random.default_rng(1)
    before = after = Scores(np.zeros((5, 5), int))
    for _ in range(12):
        truth = np.array(NIGHTS[kind](rng))
        probabilities = observed(rng, truth, noise)
        better = smoothed(probabilities, np.ones(len(truth), bool))
        before += Scores.of(truth, probabilities.argmax(axis=1))
        after += Scores.of(truth, better.argmax(axis=1))
    assert after.accuracy >= before.accuracy
    assert after.macro_f1 >= before.macro_f1 - 0.002
    assert before.accuracy > 0.95 or after.accuracy >= before.accuracy + 0.01


def test_of_a_single_epoch_and_of_none_heard():
    one = np.array([[0.1, 0.2, 0.4, 0.2, 0.1]], np.float32)
    assert smoothed(one, np.ones(1, bool)).argmax() == N2
    np.testing.assert_allclose(smoothed(one, np.zeros(1, bool)), 1 / len(STAGES))
