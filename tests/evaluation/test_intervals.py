"""Figures of drawn subjects against scikit-learn on their epochs one after another, and intervals against theory."""

import numpy as np
import pytest

from evaluation.events import EventScores
from evaluation.intervals import DRAWS, draws, intervals
from evaluation.pooled import Pooled
from evaluation.stages import Scores

RNG = np.random.default_rng(3)


def stages(epochs: int) -> Scores:
    scored = RNG.integers(0, 5, epochs)
    return Scores.of(scored, np.where(RNG.random(epochs) < 0.7, scored, RNG.integers(0, 5, epochs)))


def events(epochs: int, share: float = 0.2) -> EventScores:
    """With probabilities of which many are the same."""
    scored = RNG.random(epochs) < share
    return EventScores(scored, np.round((scored + RNG.random(epochs)) / 2, 1).astype("float32"))


def figures(scores: Scores | EventScores) -> dict[str, float]:
    if isinstance(scores, EventScores):
        return scores.figures
    return {name: getattr(scores, name) for name in ("accuracy", "macro_f1", "kappa")}


@pytest.mark.parametrize(
    "parts",
    [
        [stages(epochs) for epochs in (40, 3, 80, 20)],
        [events(epochs) for epochs in (40, 3, 80, 20)],
        # Draws of the first two alone hold no event; no probability is above 0.5 in some.
        [events(30, share=0), events(30, share=0), events(30)],
        [EventScores(np.array([True, False]), np.array([0.2, 0.1], "float32")), events(10)],
    ],
)
def test_a_draw_gives_the_figures_of_its_epochs(parts):
    counts = draws(len(parts))[:60]
    found = type(parts[0]).drawn(parts, counts)
    for number, own in enumerate(counts):
        chosen = [part for part, count in zip(parts, own, strict=True) for _ in range(count)]
        expected = figures(sum(chosen[1:], chosen[0]))
        ours = {name: values[number] for name, values in found.items()}
        assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-12, nan_ok=True)
    assert found.keys() == figures(parts[0]).keys() - {"prevalence"}


def test_each_draw_holds_as_many_subjects():
    counts = draws(7)
    assert counts.shape == (DRAWS, 7) and (counts.sum(axis=1) == 7).all() and (counts >= 0).all()
    assert np.array_equal(counts, draws(7))
    # Binomial, of 7 draws with a chance of 1/7 each.
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.1)
    assert counts.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.15)


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    """Of subjects with as many epochs each, the accuracy is the mean of theirs."""
    right = RNG.binomial(100, 0.8, 60)
    parts = {
        n: Scores.of(np.zeros(100, int), np.r_[np.zeros(r, int), np.ones(100 - r, int)]) for n, r in enumerate(right)
    }
    low, high = Pooled(parts).intervals["accuracy"]
    error = np.std(right / 100) / np.sqrt(60)
    assert (low, high) == pytest.approx(
        (right.mean() / 100 - 1.96 * error, right.mean() / 100 + 1.96 * error), abs=1e-3
    )


def test_draws_without_a_figure_are_left_out():
    found = intervals({"some": np.array([np.nan, *np.linspace(0, 1, 201)]), "none": np.full(5, np.nan)})
    assert found == {"some": pytest.approx((0.025, 0.975))}


def test_what_is_printed_and_saved():
    pooled = Pooled({3: events(200), 8: events(100)})
    told = pooled.to_json()
    assert told["epochs"] == 300 and told["subjects"] == 2
    low, high = told["intervals_95"]["average_precision"]
    assert low <= told["average_precision"] <= high
    assert "95 % intervals over 2 subjects: accuracy" in pooled.text()
    assert f"average precision {low:.3f} to {high:.3f}" in pooled.text()
    assert "macro-F1" in Pooled({1: stages(50), 2: stages(50)}).interval_line()


def test_one_subject_has_no_interval():
    pooled = Pooled({3: stages(200)})
    assert pooled.intervals == {} and pooled.to_json()["intervals_95"] == {}
    assert "95 %" not in pooled.text() and "REM" in pooled.text()
