"""A fine-tuned SynthSleepNet, or a pretrained encoder, in ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.terms import InputError
from staging.engine import metadata_of, open_session

PART_EPOCHS = 20
"""How many epochs are computed at once: enough to keep the processor busy, few enough for its caches."""


class InferenceNetwork:
    """A network, as :func:`synth.onnx.to_onnx` wrote it.

    Args:
        model: an ONNX file, or its content.
        threads: how many threads compute; 0 for one on each core.

    Attributes:
        about: what the file says about the network, as JSON values.

    Raises:
        InputError: it is not such a file.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        self._session = open_session(model, threads)
        inputs = {each.name: each.shape for each in self._session.get_inputs()}
        if "before" not in inputs:
            raise InputError(
                f"{model if isinstance(model, Path) else 'the model'} is not a fine-tuned SynthSleepNet: name another."
            )
        self._features = inputs["before"][1]
        self.about: dict[str, Any] = metadata_of(self._session)

    def probabilities(self, signals: Mapping[str, np.ndarray], stretch_epochs: int) -> np.ndarray:
        """The probabilities float32 (epochs, classes) of a night, in consecutive stretches that do not overlap.

        Args:
            signals: each stream's signals, float32 (epochs, 3000).
            stretch_epochs: how many consecutive epochs the temporal context module sees at once.
        """
        epochs = len(next(iter(signals.values())))
        stretches = (slice(first, first + stretch_epochs) for first in range(0, epochs, stretch_epochs))
        return np.concatenate([self._stretch({name: x[part] for name, x in signals.items()}) for part in stretches])

    def _stretch(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        embeddings = np.zeros((0, self._features), np.float32)
        for first in range(0, len(next(iter(signals.values()))), PART_EPOCHS):
            inputs = {f"signals_{name}": x[first : first + PART_EPOCHS] for name, x in signals.items()}
            probabilities, embeddings = self._session.run(
                ["probabilities", "embeddings"], {**inputs, "before": embeddings}
            )
        return probabilities


class InferenceEncoder:
    """An encoder, as :func:`synth.onnx.encoder_to_onnx` wrote it; see :class:`InferenceNetwork` for the arguments.

    Raises:
        InputError: it is not such a file.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        self._session = open_session(model, threads)
        if [each.name for each in self._session.get_outputs()] != ["embeddings"]:
            raise InputError(f"{model if isinstance(model, Path) else 'the model'} is not an encoder: name another.")
        self.about: dict[str, Any] = metadata_of(self._session)

    def embed(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Embeddings float32 (epochs, features) of a night's ``signals``, float32 (epochs, 3000) of each stream."""
        epochs = len(next(iter(signals.values())))
        parts = (slice(first, first + PART_EPOCHS) for first in range(0, epochs, PART_EPOCHS))
        batches = ({f"signals_{name}": x[part] for name, x in signals.items()} for part in parts)
        return np.concatenate([self._session.run(["embeddings"], batch)[0] for batch in batches])
