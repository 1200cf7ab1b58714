"""Embeddings of whole nights by a frozen encoder: computed once, then read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data.nights.index import NightFile
from data.nights.night import Night, read_night
from data.store import written_aside
from data.streams.epochs import scaled
from data.terms import TASKS, UNSCORED, InputError
from runs.saved import load_model, read_metadata
from synth.models.fusion import SynthSleepNetEncoder

EPOCHS_AT_ONCE = 64
"""Of whole nights, whatever the batch is in training: memory then does not grow with that batch."""


@dataclass(frozen=True)
class EmbeddedNight:
    """The scored epochs of one night: embeddings (epochs, features) and, for each task, its labels (epochs,)."""

    name: str
    embeddings: np.ndarray
    labels: dict[str, np.ndarray]


class Embedder:
    """Embeds nights by a pretrained fusion encoder, in float32, and keeps the embeddings beside the encoder.

    Args:
        folder: of the encoder.
        scale: whether nights are to be scaled first, if they were not when they were prepared.

    Raises:
        InputError: the folder holds no such encoder.
    """

    def __init__(self, folder: Path, scale: bool) -> None:
        metadata = read_metadata(folder)
        self.encoder = load_model(folder, [SynthSleepNetEncoder])
        self.channels, self.scale = metadata["channels"], scale
        self.weights = metadata["sha256"]["model.weights.h5"]
        self.kept = folder / "embeddings"
        self.embed = tf.function(self.encoder)

    def nights(self, files: Iterable[NightFile], told: str, bar: bool) -> Iterator[EmbeddedNight]:
        """The nights, one after another; ``told`` names them on the progress bar."""
        for file in tqdm(list(files), desc=f"embedding {told}", unit="night", disable=not bar, leave=False):
            yield self._night(file)

    def _night(self, file: NightFile) -> EmbeddedNight:
        kept = self.kept / f"{file.path.stem}.npz"
        found = self._found(kept, file)
        if found is not None:
            return found
        night = read_night(file.path, tuple(self.channels.values()))
        scored = night.stages != UNSCORED
        found = embed_night(self.embed, night, self.channels, self.scale)[scored]
        labels = {task: values[scored] for task, values in labels_of(night).items()}
        self.kept.mkdir(exist_ok=True)
        with written_aside(kept) as aside:
            np.savez(aside, weights=self.weights, checksum=file.checksum, embeddings=found, **labels)
        return EmbeddedNight(file.path.stem, found, labels)

    def _found(self, kept: Path, file: NightFile) -> EmbeddedNight | None:
        """What was kept of a night; None if nothing was, or what is damaged, another encoder's or another night's."""
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                if str(arrays["weights"]) != self.weights or int(arrays["checksum"]) != file.checksum:
                    return None
                labels = {task: arrays[task] for task in TASKS if task in arrays.files}
                return EmbeddedNight(file.path.stem, arrays["embeddings"], labels)
        # NumPy and zipfile meet a damaged file with almost any exception; it is then made anew.
        except Exception:
            return None


def labels_of(night: Night) -> dict[str, np.ndarray]:
    """The labels (epochs,) of each task that the night was scored for: stages, or whether there is such an event."""
    found = {"sleep_stage": night.stages}
    for task, events in TASKS.items():
        if events and all(name in night.events for name in events):
            found[task] = np.any([night.events[name] for name in events], axis=0).astype("int32")
    return found


def embed_night(
    embed: Callable[[dict[str, Any]], Any], night: Night, channels: Mapping[str, str], scale: bool
) -> np.ndarray:
    """Embeddings (epochs, features), float32, of all epochs of ``night``, whose channels are those of ``channels``."""
    signals = scaled(night.signals) if scale else night.signals
    return embed_epochs(embed, {name: signals[:, number] for number, name in enumerate(channels)})


def embed_epochs(embed: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Embeddings (epochs, features), float32, of the epochs of ``signals``, :data:`EPOCHS_AT_ONCE` at a time.

    Args:
        embed: from a batch of each modality's signals to the batch's embeddings.
        signals: of each modality (epochs, ...), as ``embed`` takes them.
    """
    epochs, found = len(next(iter(signals.values()))), []
    for first in range(0, epochs, EPOCHS_AT_ONCE):
        count = min(EPOCHS_AT_ONCE, epochs - first)
        batch = {}
        for name, values in signals.items():
            # To the one size that is compiled.
            batch[name] = np.zeros((EPOCHS_AT_ONCE, *values.shape[1:]), "float32")
            batch[name][:count] = values[first : first + count]
        found.append(keras.ops.convert_to_numpy(keras.ops.cast(embed(batch), "float32"))[:count])
    return np.concatenate(found)


def together(nights: Iterable[EmbeddedNight], task: str) -> tuple[np.ndarray, np.ndarray]:
    """All nights' embeddings and labels for ``task``, one after another.

    Raises:
        InputError: a night was not scored for it.
    """
    nights = list(nights)
    for night in nights:
        _require(task, night.labels, night.name)
    return np.concatenate([n.embeddings for n in nights]), np.concatenate([n.labels[task] for n in nights])


def labels_for(night: Night, task: str) -> np.ndarray:
    """The labels (epochs,) of ``night`` for ``task``.

    Raises:
        InputError: it was not scored for it.
    """
    labels = labels_of(night)
    _require(task, labels, night.name)
    return labels[task]


def _require(task: str, labels: dict[str, np.ndarray], name: str) -> None:
    if task not in labels:
        raise InputError(f"night {name} holds no breathing events, from which to learn {task}: prepare it again.")
