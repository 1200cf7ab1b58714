"""Smoothing: the epochs before and after an epoch also tell its stage, and a forward network does not see those after.

The stages of a night are modelled as a hidden Markov chain, and the forward-backward algorithm (Rabiner, Proc. IEEE 77,
1989, pp. 262-264) gives each epoch's probabilities given the whole night. Two things make it careful:

- When the network stages an epoch, it has seen the epochs before, so its probabilities are not independent from epoch
  to epoch. To not count the same evidence several times, they are raised to the power :data:`EVIDENCE`.
- Sleepers differ in how often they change stages, and the night itself tells how often. Its own transitions are the
  products of neighbouring epochs' probabilities, summed over the night. Doubtful probabilities would look like changes
  of stage that did not happen, so they are sharpened for this: raised to the power :data:`SHARPNESS`. Typical
  transitions are added with the weight of :data:`TYPICAL_EPOCHS` epochs of each stage, because a short night tells too
  little.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from data.terms import STAGES

EVIDENCE = 0.6
"""The power to which the network's probabilities are raised."""
SHARPNESS = 3
"""The power to which probabilities are raised to count the night's own transitions."""
TYPICAL_EPOCHS = 50
"""Typical transitions are added to those of the night as if they were so many epochs of each stage."""
TYPICAL = np.array(
    [
        [0.890, 0.080, 0.015, 0.003, 0.012],
        [0.090, 0.780, 0.120, 0.002, 0.008],
        [0.043, 0.004, 0.900, 0.037, 0.016],
        [0.020, 0.003, 0.060, 0.914, 0.003],
        [0.040, 0.006, 0.016, 0.002, 0.936],
    ]
)
"""The probabilities that W, N1, N2, N3 and REM (rows) are followed by each of them, counted in the scorings of eight
patients of the UCD Sleep Apnea Database and three participants of studies at the NSRR, and rounded."""
TYPICAL_SUBJECT_EPOCHS = 20
""":data:`TYPICAL` is added to a model's training nights, which may be few, as if from so many epochs of each stage."""
LEAST = 1e-6
"""Smaller probabilities are replaced by this one, so that a single epoch cannot rule out a stage."""


def counted_in(models: Iterable[Mapping[str, Any]]) -> np.ndarray | None:
    """How often each stage followed each in the training nights of models, int (5, 5), from their metadata.

    The result is None if one of them does not say it, as published models and those of version 1.
    """
    try:
        counts = [np.array(metadata.get("transitions", 0)) for metadata in models]
    except ValueError:
        return None
    known = all(c.shape == (len(STAGES), len(STAGES)) and c.dtype.kind == "i" and c.min() >= 0 for c in counts)
    return np.sum(counts, axis=0) if known else None


def typical(counted: np.ndarray | None) -> np.ndarray:
    """Typical transitions (5, 5), rows of probabilities, for a model with those ``counted`` in its training nights."""
    return TYPICAL if counted is None else _rows(counted + TYPICAL_SUBJECT_EPOCHS * TYPICAL)


def smoothed(probabilities: np.ndarray, heard: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The probabilities of each epoch's stage given the whole night.

    Args:
        probabilities: (epochs, 5), the network's.
        heard: bool (epochs,), true where there was a signal. Elsewhere all stages are equally likely in the result.
        counted: how often each stage followed each in the training nights (5, 5), if known.

    Returns:
        float32 (epochs, 5).

    Example:

    >>> sure, doubtful = [0.02, 0.04, 0.86, 0.06, 0.02], [0.02, 0.42, 0.40, 0.06, 0.10]
    >>> smoothed(np.array([sure, doubtful, sure]), heard=np.ones(3, bool)).argmax(axis=1).tolist()
    [2, 2, 2]
    """
    found = np.where(heard[:, None], _rows(_powered(probabilities, SHARPNESS)), 0)
    transitions = _rows(TYPICAL_EPOCHS * typical(counted) + found[:-1].T @ found[1:])
    evidence = np.where(heard[:, None], _powered(probabilities, EVIDENCE), 1)
    forward, backward = np.empty_like(evidence), np.ones_like(evidence)
    before = np.ones(len(STAGES))
    for epoch, now in enumerate(evidence):
        forward[epoch] = _share(before * now)
        before = forward[epoch] @ transitions
    for epoch in range(len(evidence) - 1, 0, -1):
        backward[epoch - 1] = _share(transitions @ (evidence[epoch] * backward[epoch]))
    return np.where(heard[:, None], _rows(forward * backward), 1 / len(STAGES)).astype(np.float32)


class ForwardFilter:
    """Smoothing during the night: each epoch's probabilities given the epochs before it.

    The night's own transitions are those until this epoch.

    Args:
        counted: as for :func:`smoothed`.
    """

    def __init__(self, counted: np.ndarray | None = None) -> None:
        self._counts = TYPICAL_EPOCHS * typical(counted)
        self._last: np.ndarray | None = None
        self._before = np.ones(len(STAGES))

    def step(self, probabilities: np.ndarray, heard: bool = True) -> np.ndarray:
        """Smooth the next epoch's ``probabilities`` (5,), ignored if the epoch was not ``heard``; float32 (5,)."""
        if not heard:
            self._before, self._last = self._before @ _rows(self._counts), None
            return np.full(len(STAGES), 1 / len(STAGES), np.float32)
        sharp = _share(_powered(probabilities, SHARPNESS))
        if self._last is not None:
            self._counts += np.outer(self._last, sharp)
        self._last = sharp
        found = _share(self._before * _powered(probabilities, EVIDENCE))
        self._before = found @ _rows(self._counts)
        return found.astype(np.float32)


def _powered(probabilities: np.ndarray, power: float) -> np.ndarray:
    return np.maximum(probabilities.astype(float), LEAST) ** power


def _share(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def _rows(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=1, keepdims=True)
