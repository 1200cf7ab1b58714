"""How certain a figure over several test subjects is: its 95 % confidence interval.

It is found by the percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
Whole subjects are drawn with replacement, because the epochs of one subject are alike. With only a few subjects, the
interval is too narrow.
"""

from collections.abc import Mapping

import numpy as np

DRAWS = 1000
SEED = 42

Interval = tuple[float, float]


def draws(subjects: int) -> np.ndarray:
    """How often each of ``subjects`` subjects is drawn, int (draws, subjects); the same in every run."""
    return np.random.default_rng(SEED).multinomial(subjects, np.full(subjects, 1 / subjects), DRAWS)


def intervals(drawn: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The interval of each figure from its values (draws,).

    Draws in which a figure is NaN are left out. A figure that is NaN in all draws has no interval.
    """
    known = {name: values[np.isfinite(values)] for name, values in drawn.items()}
    limits = {name: np.percentile(values, (2.5, 97.5)) for name, values in known.items() if len(values)}
    return {name: (float(low), float(high)) for name, (low, high) in limits.items()}


def line(found: Mapping[str, Interval], subjects: int) -> str:
    """The intervals of figures over ``subjects`` subjects, on one line."""
    named = "   ".join(f"{name.replace('_', ' ')} {low:.3f} to {high:.3f}" for name, (low, high) in found.items())
    return f"95 % intervals over {subjects} subjects: {named}".replace("macro f1", "macro-F1")
