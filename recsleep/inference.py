"""RecSleepNet in ONNX Runtime: one network, or several whose probabilities are averaged."""

from pathlib import Path
from typing import Any

import numpy as np

from data.terms import InputError
from staging.engine import metadata_of, open_session

CHUNK_EPOCHS = 32
"""How many epochs are computed at once: enough to keep the processor busy, few enough for its caches."""

State = tuple[np.ndarray, np.ndarray]
"""Hidden and cell state of each member's LSTM, float32 (members, units) each."""


class InferenceNetwork:
    """One or several RecSleepNets (its members), as :func:`recsleep.onnx.to_onnx` wrote them.

    Args:
        model: an ONNX file, or its content.
        threads: how many threads compute; 0 for one on each core.

    Attributes:
        about: what the file says about the networks, as JSON values.

    Raises:
        InputError: it is not such a file.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        self._session = open_session(model, threads)
        inputs = {each.name: each.shape for each in self._session.get_inputs()}
        if inputs.keys() != {"signals", "hidden", "cell"}:
            raise InputError(f"{model if isinstance(model, Path) else 'the model'} is not a RecSleepNet: name another.")
        self._state_shape = inputs["hidden"]
        self.about: dict[str, Any] = metadata_of(self._session)

    def initial_state(self) -> State:
        """The state before a night: zeros."""
        return np.zeros(self._state_shape, np.float32), np.zeros(self._state_shape, np.float32)

    def step(self, signals: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """The next epochs of a night, few enough to be computed at once.

        Args:
            signals: float32 (channels, epochs, samples); member ``k`` takes channel ``k`` modulo their number.
            state: the state after the epochs before, or :meth:`initial_state`.

        Returns:
            Each member's probabilities float32 (members, epochs, classes), and the state after the last epoch.
        """
        inputs = {"signals": signals, "hidden": state[0], "cell": state[1]}
        logits, hidden, cell = self._session.run(["logits", "next_hidden", "next_cell"], inputs)
        likelihoods = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return likelihoods / likelihoods.sum(axis=-1, keepdims=True), (hidden, cell)

    def probabilities(self, signals: np.ndarray) -> np.ndarray:
        """The members' mean probabilities for each channel of a night.

        The members are divided among the channels, so that several channels take no longer than one if there are at
        least as many members.

        Args:
            signals: float32 (channels, epochs, samples), consecutive epochs.

        Returns:
            float32 (channels, epochs, classes).
        """
        channels, members = len(signals), self._state_shape[0]
        found: list[list[np.ndarray]] = [[] for _ in range(channels)]
        for first in range(0, channels, members):
            for member, probabilities in enumerate(self._members(np.roll(signals, -first, axis=0))):
                # With more channels than members, the last round may come to channels that were computed before.
                if first + member < max(channels, members):
                    found[(first + member) % channels].append(probabilities)
        return np.stack([np.mean(each, axis=0) for each in found])

    def _members(self, signals: np.ndarray) -> np.ndarray:
        """Each member's probabilities (members, epochs, classes) of a night (channels, epochs, samples)."""
        state, found = self.initial_state(), []
        for first in range(0, signals.shape[1], CHUNK_EPOCHS):
            probabilities, state = self.step(signals[:, first : first + CHUNK_EPOCHS], state)
            found.append(probabilities)
        return np.concatenate(found, axis=1)
