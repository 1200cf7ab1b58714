"""Staging while the sleeper sleeps: a stage whenever 30 s of signal are complete."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.recordings.quality import Quality, calibrated, flat
from data.terms import EPOCH_SAMPLES, STAGES, InputError
from recsleep.predictor import RecSleepNetPredictor, as_stager
from staging.smoothing import ForwardFilter
from staging.stager import Stager

if TYPE_CHECKING:
    from recsleep.model import RecSleepNet


class StagedEpoch(NamedTuple):
    """An epoch's stage.

    Attributes:
        stage: its name.
        probabilities: of W, N1, N2, N3, REM, float32 (5,), as the models see it.
        smoothed: those that decide, float32 (5,): given the epochs before as well.
    """

    stage: str
    probabilities: np.ndarray
    smoothed: np.ndarray


class LiveStager:
    """Stages a signal that arrives in pieces; the models' probabilities are those that the whole night would get.

    What takes the whole night to know differs: where the amplifier ends, that long stretches without a signal are not
    to be scored, and what the epochs after an epoch say of it. The probabilities are smoothed by the epochs before
    alone, so a stage may differ from that of the whole night.

    Args:
        model: a folder of one model or of folds, or what :func:`recsleep.load_stager` made of it, or a network.
        amplitude: the signal's level in its own unit, to which it is calibrated: ``amplitude`` in the JSON of an
            earlier night of the same amplifier, or of a first hour. Without it the signal goes into the network as it
            comes, and must be in the unit that the network was trained with.

    Raises:
        InputError: there is no such model, or it does not say its training level.

    Example:

    >>> live = LiveStager("pretrained_model/sleepedfx", amplitude=11.3)
    >>> amplifier = np.random.default_rng(0).normal(0, 17, (70, 100))  # Pieces of a second.
    >>> [len(live.push(piece)) for piece in amplifier].count(1)  # 70 s complete two epochs.
    2
    """

    def __init__(self, model: "Stager | RecSleepNet | str | Path", amplitude: float | None = None) -> None:
        predictor = as_stager(model).predictors[0]
        if not isinstance(predictor, RecSleepNetPredictor):
            raise InputError("live staging takes a RecSleepNet, for no other model stages epoch by epoch.")
        if any(channel.band for channel in predictor.recipe.channels.values()):
            raise InputError(
                "this model takes filtered EEG, and its filter needs the whole night: stage it with recsleep.stage."
            )
        self.network, self.level, self._transitions = predictor.network, predictor.recipe.level, predictor.transitions
        if amplitude is not None and self.level is None:
            raise InputError("the model does not say its training level: calibrate the signal yourself.")
        if amplitude is not None and not 0 < amplitude < np.inf:
            raise InputError(f"an amplitude of {amplitude} is none: a number above 0 is wanted.")
        self.amplitude = amplitude
        self.reset()

    def reset(self) -> None:
        """Forget what was pushed: another night begins."""
        self._state, self._filter = self.network.initial_state(), ForwardFilter(self._transitions)
        self._rest = np.empty(0, np.float32)

    def push(self, samples: np.ndarray) -> list[StagedEpoch]:
        """Take the next samples and return the epochs that they complete, often none.

        Args:
            samples: (samples,) at 100 Hz, as many as there are.

        Raises:
            InputError: they are no row of finite numbers.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind not in "fiu" or not np.isfinite(samples).all():
            raise InputError("push() takes a row of finite numbers, samples of one channel at 100 Hz.")
        self._rest = np.concatenate([self._rest, samples.astype(np.float32)])
        whole = len(self._rest) // EPOCH_SAMPLES * EPOCH_SAMPLES
        epochs, self._rest = self._rest[:whole].reshape(-1, EPOCH_SAMPLES), self._rest[whole:]
        return [self._stage(epoch) for epoch in epochs]

    def _stage(self, epoch: np.ndarray) -> StagedEpoch:
        signals, heard = epoch[None], True
        if self.amplitude is not None and self.level is not None:
            silent = flat(signals, self.amplitude)
            quality = Quality(self.amplitude, silent, np.zeros(1, bool), 0.0, np.zeros(1))
            signals, heard = calibrated(signals, quality, self.level), not silent[0]
        found, self._state = self.network.step(signals[None], self._state)
        # As of a whole night: where there is no signal, all stages are as likely.
        probabilities = found[:, 0].mean(axis=0) if heard else np.full(len(STAGES), 1 / len(STAGES), np.float32)
        smoothed = self._filter.step(probabilities, heard)
        return StagedEpoch(STAGES[smoothed.argmax()], probabilities, smoothed)
