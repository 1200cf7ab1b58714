"""Staging whole nights with a trained network, and scoring the result."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from data.nights.night import Night, read_night
from data.store import written_aside
from data.terms import STAGES, UNSCORED, InputError
from evaluation.stages import Scores
from recsleep.ensemble import Ensemble
from recsleep.model import RecSleepNet

CHUNK_EPOCHS = 200
"""Epochs computed at once: enough to keep the processor busy, few enough for its caches."""


@dataclass(frozen=True)
class StagedNight:
    """A night's name, its scored stages (epochs,), and its hypnodensity: probabilities (epochs, 5)."""

    name: str
    stages: np.ndarray
    probabilities: np.ndarray

    @property
    def scores(self) -> Scores:
        """Agreement over the scored epochs."""
        scored = self.stages != UNSCORED
        return Scores.of(self.stages[scored], self.probabilities[scored].argmax(axis=1))

    def save(self, path: Path) -> None:
        """Write a CSV row per epoch: number, scored and predicted stage by name, the five probabilities."""
        names = np.array([*STAGES, "unscored"])
        table = pd.DataFrame({"epoch": np.arange(len(self.stages)), "scored": names[self.stages]})
        table["predicted"] = names[self.probabilities.argmax(axis=1)]
        table[list(STAGES)] = self.probabilities
        with written_aside(path) as aside:
            table.to_csv(aside, index=False, float_format="%.6f")


def stage_epochs(network: RecSleepNet | Ensemble, signals: np.ndarray) -> np.ndarray:
    """Stage consecutive epochs of one night.

    Args:
        network: a trained network, or several as an ensemble.
        signals: float32 (epochs, 3000) at 100 Hz, in the units the network was trained with.

    Returns:
        Probabilities of W, N1, N2, N3, REM, float32 (epochs, 5).
    """
    state, logits = network.initial_state(1), []
    for first in range(0, len(signals), CHUNK_EPOCHS):
        chunk = signals[first : first + CHUNK_EPOCHS]
        # One shape for all chunks, so that the network is compiled once; what follows the night's end is cut off.
        padded = np.pad(chunk, ((0, CHUNK_EPOCHS - len(chunk)), (0, 0)))
        output, state = network.predict_on_batch({"signals": padded[None], "state": state})
        logits.append(output[0, : len(chunk)])
    return keras.ops.convert_to_numpy(keras.ops.softmax(np.concatenate(logits)))


def stage_nights(network: RecSleepNet, nights: Iterable[Path], channel: str) -> Iterator[StagedNight]:
    """Read and stage night files one after another.

    Raises:
        InputError: a file is not such a night.
    """
    for path in nights:
        night: Night = read_night(path, (channel,))
        probabilities = stage_epochs(network, night.signals[:, 0])
        if not np.isfinite(probabilities).all():
            raise InputError(f"{path}: the network's output is not finite on this night: look at the signal's units.")
        yield StagedNight(night.name, night.stages, probabilities)
