"""How sure a figure of several test subjects is: the interval that holds it in 95 % of draws of such subjects.

The epochs of one subject resemble each other, so subjects are drawn, with replacement, each with all of its epochs: by
the percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). Of a handful of
subjects the interval is too narrow.
"""

from collections.abc import Mapping

import numpy as np

DRAWS = 1000
SEED = 42

Interval = tuple[float, float]


def draws(subjects: int) -> np.ndarray:
    """How often each of so many subjects is drawn, int (draws, subjects); the same in every run."""
    return np.random.default_rng(SEED).multinomial(subjects, np.full(subjects, 1 / subjects), DRAWS)


def intervals(drawn: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The interval of each figure, of its values (draws,); NaN, where a draw gives no figure, is left out.

    A figure that no draw gives has no interval.
    """
    known = {name: values[np.isfinite(values)] for name, values in drawn.items()}
    limits = {name: np.percentile(values, (2.5, 97.5)) for name, values in known.items() if len(values)}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def line(found: Mapping[str, Interval], subjects: int) -> str:
    """The intervals of figures over so many subjects, on one line."""
    named = "   ".join(f"{name.replace('_', ' ')} {low:.3f} to {high:.3f}" for name, (low, high) in found.items())
    return f"95 % intervals over {subjects} subjects: {named}".replace("macro f1", "macro-F1")
