"""RecSleepNet in ONNX Runtime: one network, or several whose probabilities are averaged."""

from pathlib import Path
from typing import Any

import numpy as np

from data.terms import InputError
from staging.engine import metadata_of, open_session

CHUNK_EPOCHS = 32
"""Epochs computed at once: enough to keep the processor busy, few enough for its caches."""

State = tuple[np.ndarray, np.ndarray]
"""Hidden and cell of each member's LSTM, float32 (members, units) each."""


class InferenceNetwork:
    """One or several RecSleepNets, as :func:`recsleep.onnx.to_onnx` wrote them.

    Args:
        model: the ONNX file, or what it would hold.
        threads: how many threads compute; 0 for one on each core.

    Attributes:
        about: what the file says of the networks, as JSON values.

    Raises:
        InputError: it is no such file.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        self._session = open_session(model, threads)
        inputs = {each.name: each.shape for each in self._session.get_inputs()}
        if inputs.keys() != {"signals", "hidden", "cell"}:
            raise InputError(f"{model if isinstance(model, Path) else 'the model'} is no RecSleepNet.")
        self._state_shape = inputs["hidden"]
        self.about: dict[str, Any] = metadata_of(self._session)

    def initial_state(self) -> State:
        """The state before a night: zeros."""
        return np.zeros(self._state_shape, np.float32), np.zeros(self._state_shape, np.float32)

    def step(self, signals: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """The next epochs of a night, few enough to be computed at once.

        Args:
            signals: float32 (epochs, samples).
            state: after the epochs before, or :meth:`initial_state`.

        Returns:
            The probabilities float32 (epochs, classes), and the state after the last epoch.
        """
        inputs = {"signals": signals, "hidden": state[0], "cell": state[1]}
        probabilities, hidden, cell = self._session.run(["probabilities", "next_hidden", "next_cell"], inputs)
        return probabilities, (hidden, cell)

    def probabilities(self, signals: np.ndarray) -> np.ndarray:
        """Probabilities float32 (epochs, classes) of one night's consecutive epochs, float32 (epochs, samples)."""
        state, found = self.initial_state(), []
        for first in range(0, len(signals), CHUNK_EPOCHS):
            probabilities, state = self.step(signals[first : first + CHUNK_EPOCHS], state)
            found.append(probabilities)
        return np.concatenate(found)
