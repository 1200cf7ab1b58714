"""What a frozen encoder's convolutions make of whole nights: computed once, kept on disk, read as it is needed."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data.store import written_aside
from synth.embeddings import EPOCHS_AT_ONCE
from synth.fine_tuned import convolutions
from synth.models.fusion import SynthSleepNetEncoder


class FrozenConvolutions:
    """The convolutions of a frozen encoder, of each night once, in a folder of their own.

    Args:
        encoder: whose convolutions do not learn.
        folder: for the files, to be removed when they are not needed any more.
        name: tells the encoder from others whose convolutions may have been left in the folder.
    """

    def __init__(self, encoder: SynthSleepNetEncoder, folder: Path, name: str) -> None:
        self.folder, self.encoder = folder / name, encoder
        self.convolve = convolutions(encoder)

    @property
    def bytes_per_epoch(self) -> int:
        """What an epoch of all modalities takes on disk."""
        return 4 * sum(encoder.frames * encoder.backbone.flat for encoder in self.encoder.backbones.values())

    def of(self, night: str, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The convolutions (epochs, frames, flat) of a night's ``signals`` (epochs, 3000), by modality, read lazily.

        Args:
            night: a name that tells the night and its content.
            signals: of each modality, scaled.
        """
        found = {}
        for name, epochs in signals.items():
            path = self.folder / f"{night}-{name}.npy"
            if not path.exists():
                self._store(path, self.convolve[name], epochs)
            found[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found

    def _store(self, path: Path, convolve: Any, epochs: np.ndarray) -> None:
        first = convolve(tf.constant(epochs[:EPOCHS_AT_ONCE])).numpy()
        with written_aside(path) as aside:
            stored = np.lib.format.open_memmap(aside, "w+", "float32", (len(epochs), *first.shape[1:]))
            stored[: len(first)] = first
            for start in range(EPOCHS_AT_ONCE, len(epochs), EPOCHS_AT_ONCE):
                part = epochs[start : start + EPOCHS_AT_ONCE]
                stored[start : start + len(part)] = convolve(tf.constant(part)).numpy()
            stored.flush()
