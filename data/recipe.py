"""The recipe: what lies between a recording and the numbers that a network sees."""

from fractions import Fraction

import numpy as np

from data.terms import SAMPLING_RATE

SCALED_UNIT = "interquartile ranges"
"""Unit of the channels of a multimodal night."""


def resample(signal: np.ndarray, rate: float) -> np.ndarray:
    """``signal`` (samples,) from ``rate`` Hz to 100 Hz; sample k stays at k / 100 s, however long the night."""
    if rate == SAMPLING_RATE:
        return signal
    from scipy.signal import resample_poly

    ratio = Fraction(SAMPLING_RATE / rate).limit_denominator(100_000)
    return resample_poly(signal, ratio.numerator, ratio.denominator, padtype="edge")


def band_pass(signal: np.ndarray, band: tuple[float, float]) -> np.ndarray:
    """Zero-phase FIR band-pass of ``signal`` (samples,) at 100 Hz between the two frequencies in Hz."""
    from mne.filter import filter_data

    return filter_data(signal, SAMPLING_RATE, *band, copy=False, verbose="error")


def robust_scale(signal: np.ndarray) -> np.ndarray:
    """``signal`` (samples,), changed in place: less its median, over its interquartile range; a range of 0 is 1."""
    low, median, high = np.percentile(signal, (25, 50, 75))
    signal -= median
    signal /= (high - low) or 1.0
    return signal
