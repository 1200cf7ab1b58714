"""Embeddings of whole nights by a frozen encoder, which are computed once and then read from files."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.nights.index import NightFile
from data.nights.night import read_night
from data.recipe import Recipe
from data.terms import TASKS, UNSCORED
from data.writing import written_aside
from runs.networks import load_model
from runs.saved import WEIGHTS, read_metadata
from synth.in_training import compiled, embed_epochs
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetEncoder

ENCODERS: tuple[type, ...] = (SynthSleepNetEncoder, NeuroNetEncoder)
"""The encoders that a step that learns from labels may use."""
WAKE = "labelled_wake_minutes"
"""The name, in a file of embeddings, for the minutes of wake around sleep that have labels there."""


@dataclass(frozen=True)
class EmbeddedNight:
    """A night's embeddings (epochs, features), and its labels (epochs,) for each task that it was scored for, with -1
    for unscored epochs."""

    name: str
    embeddings: np.ndarray
    labels: dict[str, np.ndarray]


def describing(encoder: Any) -> Callable[[dict[str, Any]], Any]:
    """The function from signals (B, 3000) of each stream to embeddings (B, D): a fusion's, or NeuroNet's cls token."""
    if isinstance(encoder, NeuroNetEncoder):
        return lambda signals: encoder(*signals.values())[:, 0]
    return encoder


class Embedder:
    """Embeds nights with a pretrained encoder, in float32, and keeps the embeddings.

    Args:
        folder: the folder of the encoder.
        recipe: the recipe of the nights' signals, which also says how much wake before and after sleep has labels.
        kept: the folder for the embeddings.

    Raises:
        InputError: the folder holds no such encoder.
    """

    def __init__(self, folder: Path, recipe: Recipe, kept: Path) -> None:
        self.recipe, self.kept = recipe, kept
        self.weights = read_metadata(folder)["sha256"][WEIGHTS]
        self.embed = compiled(describing(load_model(folder, ENCODERS)))

    def nights(self, files: Iterable[NightFile], which: str, bar: bool) -> Iterator[EmbeddedNight]:
        """The nights, one after another; ``which`` names them in the progress bar."""
        for file in tqdm(list(files), desc=f"embedding {which}", unit="night", disable=not bar, leave=False):
            yield self._night(file)

    def _night(self, file: NightFile) -> EmbeddedNight:
        kept = self.kept / f"{file.path.stem}.npz"
        embeddings, labels = self._found(kept, file)
        if embeddings is None or labels is None:
            night = read_night(file.path, self.recipe.names)
            if embeddings is None:
                embeddings = embed_epochs(self.embed, night.inputs(self.recipe))
            minutes = self.recipe.labelled_wake_minutes
            known = {task: night.labels(task, minutes) for task in TASKS}
            labels = {task: values for task, values in known.items() if values is not None}
            self.kept.mkdir(parents=True, exist_ok=True)
            made_of = {"weights": self.weights, "checksum": file.checksum, WAKE: minutes}
            with written_aside(kept) as aside:
                np.savez(aside, **made_of, all_epochs=embeddings, **labels)
        return EmbeddedNight(file.path.stem, embeddings, labels)

    def _found(self, kept: Path, file: NightFile) -> tuple[np.ndarray | None, dict[str, np.ndarray] | None]:
        """A night's embeddings and labels that were kept; the labels are None if another amount of wake has labels.

        Both are None if nothing was kept, or if it is damaged, of another encoder, or of another night.
        """
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                if str(arrays["weights"]) != self.weights or int(arrays["checksum"]) != file.checksum:
                    return None, None
                same_wake = WAKE in arrays.files and float(arrays[WAKE]) == self.recipe.labelled_wake_minutes
                labels = {task: arrays[task] for task in TASKS if task in arrays.files} if same_wake else None
                return arrays["all_epochs"], labels
        # NumPy and zipfile raise almost any exception on a damaged file, which is then made again. So are the files of
        # version 1, which held only the scored epochs.
        except Exception:
            return None, None


def scored_together(nights: Iterable[EmbeddedNight], task: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels of the scored epochs of ``nights``, which must all be scored for ``task``."""
    pairs = [(night.embeddings, night.labels[task]) for night in nights]
    embeddings, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return embeddings[labels != UNSCORED], labels[labels != UNSCORED]
