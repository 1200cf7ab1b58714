"""The outputs of a frozen encoder's convolutions for whole nights: computed once, kept on disk, read when needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.writing import written_aside
from synth.in_training import in_batches
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetDescription


class FrozenConvolutions:
    """Computes the convolutions of a frozen encoder once for each night, and keeps them in a folder.

    Args:
        encoder: the encoder, whose convolutions do not learn.
        convolve: its compiled convolutions by stream; see :class:`synth.in_training.TrainingPredictor`.
        folder: the folder for the files, which the caller removes when they are not needed any more.
        name: a name for the encoder, because files of other encoders may be left in the folder.
    """

    def __init__(
        self,
        encoder: SynthSleepNetEncoder | NeuroNetDescription,
        convolve: dict[str, Callable],
        folder: Path,
        name: str,
    ) -> None:
        self.encoder, self.convolve, self.folder = encoder, convolve, folder / name

    @property
    def bytes_per_epoch(self) -> int:
        """The bytes on disk for an epoch of all streams."""
        return 4 * sum(encoder.frames * encoder.backbone.flat for encoder in self.encoder.backbones.values())

    def of(self, night: str, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The convolutions (epochs, frames, flat) of a night's ``signals`` (epochs, 3000), by stream, read lazily.

        Args:
            night: a name that is unique for the night and its content.
            signals: the scaled signals of each stream.
        """
        found = {}
        for name, epochs in signals.items():
            path = self.folder / f"{night}-{name}.npy"
            if not path.exists():
                self._store(path, name, epochs)
            found[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found

    def _store(self, path: Path, name: str, epochs: np.ndarray) -> None:
        backbone, convolve, first = self.encoder.backbones[name], self.convolve[name], 0
        with written_aside(path) as aside:
            shape = (len(epochs), backbone.frames, backbone.backbone.flat)
            stored = np.lib.format.open_memmap(aside, "w+", "float32", shape)
            for part in in_batches(lambda signals: convolve(signals[name]), {name: epochs}):
                stored[first : first + len(part)] = part
                first += len(part)
            stored.flush()
