"""Stage while the sleeper sleeps: a stage as soon as 30 s of signal are complete."""

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
        stage: the stage's name.
        probabilities: those of W, N1, N2, N3, REM, float32 (5,), as the models give them.
        smoothed: the probabilities that decide the stage, float32 (5,), which also use the epochs before.
    """

    stage: str
    probabilities: np.ndarray
    smoothed: np.ndarray


class LiveStager:
    """Stages a signal that arrives in pieces. The models' probabilities are those that the whole night would get.

    The stages may differ from those of the whole night, because some things are known only at its end: the limits of
    the amplifier's range, which long stretches without a signal are not to be scored, and the epochs after an epoch.
    The probabilities are smoothed with the epochs before only.

    Args:
        model: a folder of one model or of folds, a stager that :func:`recsleep.load_stager` loaded, or a network.
        amplitude: the signal's own level in its own unit, from which it is calibrated: ``amplitude`` in the JSON file
            of an earlier night, or of a first hour, from the same amplifier. Without it, the signal is not calibrated,
            and must be in the unit of the network's training.

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
            raise InputError("live staging needs a RecSleepNet, because no other model stages epoch by epoch.")
        if any(channel.band for channel in predictor.recipe.channels.values()):
            raise InputError(
                "this model needs filtered EEG, and the filter needs the whole night: use recsleep.stage instead."
            )
        self.network, self.level, self._transitions = predictor.network, predictor.recipe.level, predictor.transitions
        if amplitude is not None and self.level is None:
            raise InputError(
                "the model does not say its training level: leave amplitude out, and calibrate the signal."
            )
        if amplitude is not None and not 0 < amplitude < np.inf:
            raise InputError(f"amplitude is {amplitude}: give a number above 0.")
        self.amplitude = amplitude
        self.reset()

    def reset(self) -> None:
        """Forget everything that was pushed, to begin another night."""
        self._state, self._filter = self.network.initial_state(), ForwardFilter(self._transitions)
        self._rest = np.empty(0, np.float32)

    def push(self, samples: np.ndarray) -> list[StagedEpoch]:
        """Take the next samples and return the epochs that they complete, often none.

        Args:
            samples: (samples,) at 100 Hz, as many as there are.

        Raises:
            InputError: ``samples`` is not a one-dimensional array of finite numbers.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind not in "fiu" or not np.isfinite(samples).all():
            raise InputError("push() takes a one-dimensional array of finite numbers: one channel's samples at 100 Hz.")
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
        # As for a whole night: without a signal, all stages are equally likely.
        probabilities = found[:, 0].mean(axis=0) if heard else np.full(len(STAGES), 1 / len(STAGES), np.float32)
        smoothed = self._filter.step(probabilities, heard)
        return StagedEpoch(STAGES[smoothed.argmax()], probabilities, smoothed)
