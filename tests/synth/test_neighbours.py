"""What nearest neighbours tell of embeddings, and the picture of them."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from nearest import macro_f1, nearest_stages

from config import SynthSleepNetTraining
from data.terms import STAGES
from evaluation.figures import COLOURS, map_of_epochs
from synth.steps import neighbours
from synth.steps.neighbours import on_a_map, told_by_neighbours


def clusters(epochs, features=24, apart=2.0, seed=0):
    """Embeddings that are scattered around a place of each stage."""
    rng = np.random.default_rng(seed)
    places, stages = np.random.default_rng(9).normal(0, apart, (5, features)), rng.integers(0, 5, epochs)
    return (places[stages] + rng.normal(0, 2, (epochs, features))).astype("float32"), stages


@pytest.mark.parametrize(("epochs", "components", "count"), [(300, 8, 5), (300, 50, 1), (12, 50, 5), (3, 50, 5)])
def test_as_numpy_finds_them(epochs, components, count):
    """Also where there are fewer epochs than components, or than neighbours."""
    known, asked = clusters(epochs), clusters(200, seed=1)
    training = SynthSleepNetTraining(knn_components=components, knn_neighbours=count)
    scores = told_by_neighbours(known, asked, training)
    expected = nearest_stages(*known, asked[0], components, count)
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (asked[1], expected), 1)
    assert np.array_equal(scores.confusion, confusion)
    assert scores.macro_f1 == pytest.approx(macro_f1(asked[1], expected))
    assert scores.accuracy < 1


def test_the_map_keeps_neighbours_together(monkeypatch):
    monkeypatch.setattr(neighbours, "MOST_DRAWN", 100)
    embeddings, stages = clusters(250, apart=8)
    places, drawn = on_a_map((embeddings, stages))
    assert places.shape == (84, 2) and np.array_equal(drawn, stages[::3])
    assert np.array_equal(places, on_a_map((embeddings, stages))[0])
    distances = np.linalg.norm(places[:, None] - places, axis=-1) + np.diag(np.full(84, np.inf))
    assert (drawn[distances.argmin(axis=1)] == drawn).mean() > 0.95


@pytest.mark.parametrize("epochs", [2, 3, 40])
def test_a_map_of_embeddings_that_are_all_the_same(epochs):
    """An encoder may collapse."""
    places, stages = on_a_map((np.ones((epochs, 16), "float32"), np.zeros(epochs, int)))
    assert places.shape == (epochs, 2) and np.isfinite(places).all() and len(stages) == epochs


def test_the_picture_shows_each_epoch_in_the_colour_of_its_stage():
    places, stages = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 3
    (axis,) = map_of_epochs(places, stages, "fold 0: $x_1$").axes
    dots = axis.collections[0]
    assert np.array_equal(dots.get_offsets(), places)
    assert np.allclose(dots.get_facecolors(), [to_rgba(COLOURS[STAGES[stage]]) for stage in stages])
    told = [text.get_text() for text in axis.get_legend().get_texts()]
    assert told == ["W 35%", "REM 0%", "N1 35%", "N2 30%", "N3 0%"]
    assert axis.get_title("left") == "fold 0: $x_1$"
