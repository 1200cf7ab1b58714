"""The spectrogram of a night."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from data.terms import SAMPLING_RATE

HIGHEST_FREQUENCY = 30
"""In Hz."""


def spectra(signals: np.ndarray) -> np.ndarray:
    """Power of ``signals`` (epochs, 3000) at 0, 0.5, … 30 Hz, in dB of the night's median: float32 (epochs, 61).

    Welch's method (IEEE Trans. Audio Electroacoust. 15, 1967) with Hann windows of two seconds that begin every second,
    as ``scipy.signal.welch`` computes it; loading SciPy's signal package takes longer than computing the spectra.
    """
    size, bins = 2 * SAMPLING_RATE, 2 * HIGHEST_FREQUENCY + 1
    hann = np.hanning(size + 1)[:-1]
    power = np.empty((len(signals), bins))
    for epoch, signal in enumerate(signals):
        windows = sliding_window_view(signal, size)[::SAMPLING_RATE]
        centred = windows - windows.mean(axis=1, keepdims=True)
        power[epoch] = np.mean(np.abs(np.fft.rfft(centred * hann)[:, :bins]) ** 2, axis=0)
    # Every frequency except 0 also exists as a negative one, with the same power.
    power[:, 1:] *= 2
    median = np.median(power[power > 0]) if (power > 0).any() else 1.0
    return (10 * np.log10(np.maximum(power / median, 1e-6))).astype(np.float32)
