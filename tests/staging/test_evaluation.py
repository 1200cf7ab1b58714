"""The apnea-hypopnea index of evaluated nights, against counts made by hand."""

import numpy as np
import pytest

from evaluation.predictions import NightPredictions
from staging.evaluation import Evaluated, indices

# Six hours of sleep, and apnea in two runs of epochs.
STAGES = np.r_[np.zeros(120, int), np.full(720, 2)]
APNEA = np.zeros(840, int)
APNEA[[200, 201, 300]] = 1
COUNTS = {"Obstructive Apnea": 4, "Central Apnea": 1, "Mixed Apnea": 0, "Hypopnea": 7, "SpO2 Desaturation": 12}


def models(counts: dict[str, int]) -> list[Evaluated]:
    """Models that find a single hypopnea, in an epoch that the scorer has none in, and no apnea."""
    found = np.tile([0.9, 0.1], (840, 1))
    hypopnea = found.copy()
    hypopnea[500] = 0.2, 0.8
    nights = {"apnea": (APNEA, found), "hypopnea": (np.zeros(840, int), hypopnea)}
    return [
        Evaluated(0, "", task, "v", {7: [NightPredictions("night", task, labels, probabilities, STAGES, counts)]}, [])
        for task, (labels, probabilities) in nights.items()
    ]


@pytest.mark.parametrize(("counts", "scored"), [(COUNTS, 12 / 6), ({}, 2 / 6)])
def test_the_scored_index_counts_events_where_the_night_tells_them(counts, scored):
    agreement = indices(models(counts))["v"]
    assert agreement.estimated == pytest.approx([1 / 6])
    assert agreement.scored == pytest.approx([scored])
    assert agreement.subjects == (7,)


def test_wake_far_from_sleep_counts_to_neither_index():
    """A network of stages finds nothing but sleep; the first half hour is wake that does not count."""
    counted = np.arange(840) >= 60
    events, asleep = np.tile([0.9, 0.1], (840, 1)), np.tile(np.eye(5)[2], (840, 1))
    events[[30, 100]] = 0.2, 0.8
    tasks = {"apnea": (APNEA, events), "hypopnea": (0 * APNEA, events), "sleep_stage": (STAGES, asleep)}
    nights = [
        NightPredictions("night", task, np.where(counted, labels, -1), probabilities, STAGES)
        for task, (labels, probabilities) in tasks.items()
    ]
    agreement = indices([Evaluated(0, "", night.task, "v", {7: [night]}, []) for night in nights])["v"]
    assert agreement.estimated == pytest.approx([1 / 6.5])
    assert agreement.scored == pytest.approx([2 / 6])
