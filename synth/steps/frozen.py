"""What a frozen encoder's convolutions make of whole nights: computed once, kept on disk, read as it is needed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.writing import written_aside
from synth.in_training import in_batches
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetDescription


class FrozenConvolutions:
    """The convolutions of a frozen encoder, of each night once, in a folder of their own.

    Args:
        encoder: whose convolutions do not learn.
        convolve: its convolutions of each stream, compiled; see :class:`synth.in_training.TrainingPredictor`.
        folder: for the files, to be removed when they are not needed any more.
        name: tells the encoder from others whose convolutions may have been left in the folder.
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
        """What an epoch of all streams takes on disk."""
        return 4 * sum(encoder.frames * encoder.backbone.flat for encoder in self.encoder.backbones.values())

    def of(self, night: str, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The convolutions (epochs, frames, flat) of a night's ``signals`` (epochs, 3000), by stream, read lazily.

        Args:
            night: a name that tells the night and its content.
            signals: of each stream, scaled.
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
