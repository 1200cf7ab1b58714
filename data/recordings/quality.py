"""Scale a night to the amplitude that a network was trained with, and warn where that would not help.

A network trained on EEG in µV fails silently on the same EEG in volts, or from an amplifier with another gain. So each
night is scaled until its level equals that of the training nights. The level is the median, over the epochs that hold a
signal, of each epoch's median absolute deviation from its own median:

- from the epoch's median, not the night's, because the offset of a DC-coupled amplifier drifts and jumps;
- a median within the epoch, which a movement of a few seconds does not change;
- a median over epochs, which an hour of artefacts hardly changes. Epochs without a signal, or above ten times the
  level, do not count, so an electrode that falls off changes nothing.

Training nights are trimmed to half an hour of wake around sleep. So the level of a long recording is measured there
too, after a first pass has found sleep (:func:`near_sleep`).

On ``ucddb018``, with the ten published ``sleepedfx`` folds, this gives an accuracy of 0.90 at 12.5 µV, 0.91 at 14 µV,
0.88 at 10 µV, 0.73 at 6 µV and still 0.91 at 22 µV: a level too low does more harm than a level too high.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.recipe import Level
from data.terms import EPOCH_SECONDS, SAMPLING_RATE, STAGES, InputError

LIMIT = 16
"""Calibrated signals are cut off at so many levels: Sleep-EDF's recorder ends at ±192 µV, so no network saw more."""
OUTLYING = 10
"""An epoch of more than so many levels is an artefact, and is left out when the level is measured."""
STILL = 0.2
"""A second whose values stay within this part of a level holds no EEG."""
RAIL = 0.05
"""A sample counts as clipped if it is within this part of a level of an end of the signal's range."""
CLIPPED = 0.01
"""Warn if more than this share of the samples is clipped."""
NOISY = 0.35
"""Warn if more than this share of the power is above 20 Hz."""
PLAUSIBLE = (2, 60)
"""In µV: sleep EEG has a level well within these limits."""


@dataclass(frozen=True)
class Quality:
    """What is known about a signal before it is staged.

    Attributes:
        amplitude: its level, in its own unit.
        silent: bool (epochs,), epochs without a signal for at least half their length: missing, flat, or at an end of
            the range.
        outlying: bool (epochs,), epochs above :data:`OUTLYING` levels.
        clipped: share of the other epochs' samples at the ends of the signal's range; almost 0 without clipping.
        noise: float (epochs,), share of each epoch's power from 0.5 to 45 Hz that is above 20 Hz; it is small for EEG,
            and 0.6 for white noise.
    """

    amplitude: float
    silent: np.ndarray
    outlying: np.ndarray
    clipped: float
    noise: np.ndarray

    @property
    def lost(self) -> np.ndarray:
        """bool (epochs,), epochs that cannot be staged."""
        return self.silent | self.outlying

    @property
    def weight(self) -> np.ndarray:
        """float (epochs,): how much this channel counts when several are staged together, from 0 to 1."""
        return np.where(self.lost, 0, np.clip(1 - self.noise / NOISY, 0, 1))

    def measured(self, signals: np.ndarray, where: np.ndarray) -> "Quality":
        """The same, but the amplitude of ``signals`` (epochs, 3000) only in the epochs ``where``, bool (epochs,)."""
        chosen = signals[where & ~self.silent & ~self.outlying]
        amplitude = float(np.median(deviations(chosen))) if len(chosen) else 0.0
        return replace(self, amplitude=amplitude) if amplitude > 0 else self


def assess(signals: np.ndarray, missing: np.ndarray) -> Quality:
    """The quality of ``signals`` (epochs, 3000) with ``missing``, bool (epochs,); InputError if none holds a signal."""
    spread = deviations(signals)
    # First leave out epochs that are almost constant, then those that are flat compared with the level found so.
    level = 1e-5 * np.ptp(signals)
    silent = missing.copy()
    for _ in range(3):
        silent |= flat(signals, level)
        if silent.all():
            raise InputError("it is flat or missing all night: no epoch holds a signal; use another channel.")
        level = np.median(spread[~silent])
    if level == 0:
        raise InputError("most of its samples have the same value, as if recorded too coarsely: use another channel.")
    # Clipped are samples among the 0.05 % at either end of the range, or close to these.
    low, high = np.percentile(signals[~silent], (0.05, 99.95))
    rails = (signals <= low + RAIL * level) | (signals >= high - RAIL * level)
    silent |= rails.mean(axis=1) >= 0.5
    good = ~silent & (spread <= OUTLYING * level)
    if not good.any():
        raise InputError("it is clipped all night: no epoch holds a signal; use another channel.")
    clipped, noise = float(rails[good].mean()), _noise(signals)
    return Quality(float(np.median(spread[good])), silent, ~silent & ~good, clipped, noise)


def _centred(signals: np.ndarray) -> np.ndarray:
    """``signals`` (epochs, 3000) minus each epoch's median."""
    return signals - np.median(signals, axis=1, keepdims=True)


def flat(signals: np.ndarray, level: float) -> np.ndarray:
    """bool (epochs,): whether at least half the seconds of an epoch (epochs, 3000) are flat compared with ``level``."""
    spans = np.ptp(signals.reshape(len(signals), EPOCH_SECONDS, SAMPLING_RATE), axis=2)
    return np.mean(spans <= STILL * level, axis=1) >= 0.5


def _noise(signals: np.ndarray) -> np.ndarray:
    """For each epoch of ``signals`` (epochs, 3000), the share above 20 Hz of its power from 0.5 to 45 Hz."""
    shares = np.ones(len(signals))
    for epoch, signal in enumerate(signals):
        power = np.abs(np.fft.rfft(signal)) ** 2
        fast, all_of_it = (power[low * EPOCH_SECONDS // 2 : 45 * EPOCH_SECONDS].sum() for low in (40, 1))
        if all_of_it > 0:
            shares[epoch] = fast / all_of_it
    return shares


def calibrated(signals: np.ndarray, quality: Quality, level: Level) -> np.ndarray:
    """``signals`` (epochs, 3000) at the level that the network was trained with, float32; silent epochs become 0."""
    factor = level.amplitude / quality.amplitude
    centred = _centred(signals) * factor
    centred[quality.silent] = 0
    limit = LIMIT * level.amplitude
    return (np.clip(centred, -limit, limit) + level.offset).astype(np.float32)


def at_level(signals: np.ndarray, level: Level) -> np.ndarray:
    """``signals`` (epochs, 3000) of a night file, calibrated like a recording; InputError if they are flat."""
    return calibrated(signals, assess(signals, np.zeros(len(signals), bool)), level)


def deviations(signals: np.ndarray) -> np.ndarray:
    """The median absolute deviation of each epoch from its own median, over the last axis of ``signals``."""
    return np.median(np.abs(signals - np.median(signals, axis=-1, keepdims=True)), axis=-1)


def unscored(lost: np.ndarray) -> np.ndarray:
    """bool (epochs,): epochs in stretches of more than ten minutes without EEG, which nobody can score.

    Shorter stretches are wake: by the AASM's manual, W is scored while a sleeper is disconnected.
    """
    long = np.zeros(len(lost), bool)
    for first, end in stretches(lost):
        long[first:end] = (end - first) * EPOCH_SECONDS > 600
    return long


def near_sleep(stages: np.ndarray, minutes: float = 30) -> np.ndarray:
    """bool (epochs,): within ``minutes`` of an epoch of N2, N3 or REM; ``stages`` are those of a first pass.

    N1 does not count, because networks often take unusual wake for N1.
    """
    margin = round(minutes * 60 / EPOCH_SECONDS)
    asleep = stages >= STAGES.index("N2")
    return np.convolve(asleep, np.ones(2 * margin + 1))[margin : margin + len(stages)] > 0.5


def warnings(quality: Quality, unit: str, level: Level | None = None) -> list[str]:
    """What a user should know about a signal, one sentence for each problem.

    ``level`` is the level that the network expects; give it if the signal is staged without calibration.
    """
    told, epochs = [], len(quality.silent)
    for which, what in (
        (quality.silent, "hold no signal (not recorded, flat, or at an end of the range)"),
        (quality.outlying, f"are artefacts, more than {OUTLYING} times as large as usual"),
    ):
        if which.any():
            told.append(f"{which.sum()} of {epochs} epochs {what}: {spans(which)}.")
    if quality.clipped > CLIPPED:
        told.append(f"it is clipped: {quality.clipped:.1%} of its samples lie at the ends of its range.")
    noise = float(np.median(quality.noise[~quality.lost]))
    if noise > NOISY:
        share = f"{noise:.0%} of its power lies above 20 Hz"
        told.append(f"it is mostly noise: {share}, but only a few percent in sleep EEG.")
    if unit == "µV" and not PLAUSIBLE[0] <= quality.amplitude <= PLAUSIBLE[1]:
        levels = f"its level is {quality.amplitude:.3g} µV, but sleep EEG has {PLAUSIBLE[0]} to {PLAUSIBLE[1]} µV"
        told.append(f"its unit is probably wrong: {levels}.")
    ratio = quality.amplitude / level.amplitude if level else 1
    if not 1 / 3 <= ratio <= 3:
        told.append(
            f"its level is {ratio:.3g} times that of the training nights, and it is staged without calibration."
        )
    return told


def stretches(which: np.ndarray) -> list[tuple[int, int]]:
    """The first epoch, and the one after the last, of each run of True in ``which``, bool (epochs,)."""
    edges = np.flatnonzero(np.diff(which.astype(np.int8), prepend=0, append=0))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def spans(which: np.ndarray) -> str:
    """The epochs where ``which``, bool (epochs,), as text such as ``0-12, 40``; beyond five stretches, only a count."""
    edges = stretches(which)
    named = [f"{first}-{end - 1}" if end - first > 1 else f"{first}" for first, end in edges[:5]]
    return ", ".join(named) + (f" and {len(edges) - 5} more stretches" if len(edges) > 5 else "")
