"""Embeddings of whole nights by a frozen encoder: computed once, then read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.nights.index import NightFile
from data.nights.night import read_night
from data.recipe import Recipe
from data.store import written_aside
from data.terms import TASKS, UNSCORED, InputError
from runs.networks import load_model
from runs.saved import WEIGHTS, read_metadata
from synth.in_training import compiled, embed_epochs
from synth.models.fusion import SynthSleepNetEncoder


@dataclass(frozen=True)
class EmbeddedNight:
    """A night's embeddings (epochs, features), and its labels (epochs,) for each task that it was scored for."""

    name: str
    embeddings: np.ndarray
    labels: dict[str, np.ndarray]

    def labels_for(self, task: str) -> np.ndarray:
        """The labels (epochs,) for ``task``, -1 where unscored; InputError if the night was not scored for it."""
        if task not in self.labels:
            raise InputError(
                f"night {self.name} holds no breathing events, from which to learn {task}: prepare it again."
            )
        return self.labels[task]


class Embedder:
    """Embeds nights by a pretrained fusion encoder, in float32, and keeps the embeddings.

    Args:
        folder: of the encoder.
        recipe: of the nights' signals, with how much wake before and after sleep has labels.
        kept: the folder for the embeddings.

    Raises:
        InputError: the folder holds no such encoder.
    """

    def __init__(self, folder: Path, recipe: Recipe, kept: Path) -> None:
        self.recipe, self.kept = recipe, kept
        self.weights = read_metadata(folder)["sha256"][WEIGHTS]
        self.embed = compiled(load_model(folder, [SynthSleepNetEncoder]))

    def nights(self, files: Iterable[NightFile], which: str, bar: bool) -> Iterator[EmbeddedNight]:
        """The nights, one after another; the progress bar says ``which`` they are."""
        for file in tqdm(list(files), desc=f"embedding {which}", unit="night", disable=not bar, leave=False):
            yield self._night(file)

    def _night(self, file: NightFile) -> EmbeddedNight:
        kept = self.kept / f"{file.path.stem}.npz"
        found = self._found(kept, file)
        if found is not None:
            return found
        night = read_night(file.path, self.recipe.names)
        embeddings = embed_epochs(self.embed, night.inputs(self.recipe))
        known = {task: night.labels(task, self.recipe.wake_minutes) for task in TASKS}
        labels = {task: values for task, values in known.items() if values is not None}
        self.kept.mkdir(parents=True, exist_ok=True)
        with written_aside(kept) as aside:
            made_of = {"weights": self.weights, "checksum": file.checksum, "wake_minutes": self.recipe.wake_minutes}
            np.savez(aside, **made_of, all_epochs=embeddings, **labels)
        return EmbeddedNight(file.path.stem, embeddings, labels)

    def _found(self, kept: Path, file: NightFile) -> EmbeddedNight | None:
        """What was kept of a night; None if nothing was, or what is damaged, another encoder's or another night's."""
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                if str(arrays["weights"]) != self.weights or int(arrays["checksum"]) != file.checksum:
                    return None
                if float(arrays["wake_minutes"]) != self.recipe.wake_minutes:
                    return None
                labels = {task: arrays[task] for task in TASKS if task in arrays.files}
                return EmbeddedNight(file.path.stem, arrays["all_epochs"], labels)
        # NumPy and zipfile meet a damaged file with almost any exception; it is then made anew. So are the files of
        # version 1, which held the scored epochs alone.
        except Exception:
            return None


def scored_together(nights: Iterable[EmbeddedNight], task: str) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels for ``task`` of all scored epochs; InputError if a night was not scored for it."""
    pairs = [(night.embeddings, night.labels_for(task)) for night in nights]
    embeddings, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return embeddings[labels != UNSCORED], labels[labels != UNSCORED]
