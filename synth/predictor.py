"""Fine-tuned networks of SynthSleepNet as predictors: a network at hand, a saved one, or the mean of several folds'."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.recipe import Recipe
from data.store import location
from data.terms import TASKS, InputError
from runs.networks import load_model
from runs.saved import METADATA, WEIGHTS, find_folds, read_metadata
from staging.smoothing import counted_in
from staging.stager import Stager
from synth.models.classifier import FineTuning
from synth.terms import TCMS

EPOCHS_AT_ONCE = 64
"""Epochs that are embedded at once, whatever the batch is in training: memory does not grow with that batch."""
STRETCHES_AT_ONCE = 32
"""Stretches of embeddings that are classified at once."""
MODELS = f"fine_tuning/*/*/*/{METADATA}"
"""Where a fold holds its fine-tuned models: one for each task and share of labels, modalities, and module."""


def compiled(function: Callable) -> Callable:
    """``function`` as a graph where the backend is TensorFlow, which computes it many times faster then."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, autograph=False)


def in_batches(function: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """What ``function`` makes of the epochs of ``signals``, float32, :data:`EPOCHS_AT_ONCE` of them at a time.

    Args:
        function: from a batch of each modality's signals to an array with a row for each epoch.
        signals: of each modality (epochs, ...), as ``function`` takes them.
    """
    epochs = len(next(iter(signals.values())))
    for first in range(0, epochs, EPOCHS_AT_ONCE):
        count = min(EPOCHS_AT_ONCE, epochs - first)
        batch = {}
        for name, values in signals.items():
            # Filled up to the one size that is compiled.
            batch[name] = np.zeros((EPOCHS_AT_ONCE, *values.shape[1:]), "float32")
            batch[name][:count] = values[first : first + count]
        yield keras.ops.convert_to_numpy(keras.ops.cast(function(batch), "float32"))[:count]


def embed_epochs(embed: Callable[[dict[str, Any]], Any], signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Embeddings (epochs, features), float32; arguments as of :func:`in_batches`."""
    return np.concatenate([*in_batches(embed, signals)])


class NetworkPredictor:
    """A fine-tuned network; a :class:`staging.predictor.Predictor`.

    It is compiled in three parts, of which fine-tuning uses the first alone as well: the convolutions of each modality,
    from these to embeddings, and from stretches of embeddings to probabilities. Weights that change afterwards count.

    Args:
        network: fine-tuned, or being fine-tuned.
        recipe: of the signals that it takes.
        task: one of ``data.terms.TASKS``.
        stretch_epochs: how many consecutive epochs its temporal context module sees at once.

    Attributes:
        convolve: the convolutions of each modality, from (epochs, 3000) to (epochs, frames, flat).
    """

    variant, transitions = "", None

    def __init__(self, network: FineTuning, recipe: Recipe, task: str, stretch_epochs: int) -> None:
        self.recipe, self.task, self.stretch_epochs = recipe, task, stretch_epochs
        self.models: list[dict[str, str]] = []
        self.convolve = {name: compiled(part.convolve) for name, part in network.encoder.backbones.items()}
        self._describe = compiled(network.encoder)

        def classify(embeddings: Any, mask: Any) -> Any:
            return keras.ops.softmax(keras.ops.cast(network.classifier(embeddings, mask=mask), "float32"))

        self._classify = compiled(classify)

    def _embed(self, signals: dict[str, Any]) -> Any:
        # What the convolutions made of the signals has one axis more.
        return self._describe(
            {name: self.convolve[name](part) if part.ndim == 2 else part for name, part in signals.items()}
        )

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, classes) of a night, stretch after stretch, none overlapping.

        Args:
            signals: of each modality (epochs, 3000), or what the frozen convolutions made of them (epochs, frames,
                flat).
        """
        embeddings, found = embed_epochs(self._embed, signals), []
        length, batch = self.stretch_epochs, STRETCHES_AT_ONCE
        for first in range(0, len(embeddings), length * batch):
            part = embeddings[first : first + length * batch]
            padded = np.zeros((batch * length, part.shape[1]), "float32")
            padded[: len(part)] = part
            mask = (np.arange(batch * length) < len(part)).reshape(batch, length)
            # A stretch of padding alone, which is cut off, must not attend to nothing at all.
            mask = mask | ~mask.any(axis=1, keepdims=True)
            outputs = keras.ops.convert_to_numpy(
                self._classify(keras.ops.convert_to_tensor(padded.reshape(batch, length, -1)), mask)
            )
            found.append(outputs.reshape(batch * length, -1)[: len(part)])
        return np.concatenate(found)


class FineTunedPredictor:
    """A fine-tuned model in ``folder``, whose network is loaded when it is needed.

    It is a :class:`staging.predictor.Predictor`.

    Attributes:
        metadata: as training left them.
        variant: what distinguishes it from others for the same task: modalities, module, and share of the labels.
        rank: by which the best of a fold's models is chosen: most labels, then the best figure on validation subjects.

    Raises:
        InputError: there is no such model, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.metadata = folder, read_metadata(folder)
        try:
            self.recipe = Recipe.of_metadata(self.metadata)
            self.task, tcm = self.metadata["task"], self.metadata["tcm"]
            self.stretch_epochs = self.metadata["config"]["training"]["stretch_epochs"]
            best, share = self.metadata["best"], float(self.metadata["label_fraction"])
            figure = best.get("average_precision", best.get("macro_f1"))
            self.rank = (share, -1.0 if figure is None else float(figure))
            known = self.task in TASKS and tcm in TCMS and isinstance(self.metadata["db"], str)
            known = known and isinstance(self.stretch_epochs, int) and self.stretch_epochs > 0
            known = known and all(type(subject) is int for subject in self.metadata["split"]["test"])
        except InputError as error:
            raise InputError(f"{folder / METADATA}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError):
            known = False
        if not known:
            raise InputError(f"{folder / METADATA} does not describe a fine-tuned model: train it again.")
        self.variant = f"{'-'.join(self.recipe.channels)} {tcm}, {share:.3g} of the labels"
        model = {"folder": str(folder), "sha256": self.metadata["sha256"][WEIGHTS], "variant": self.variant}
        self.models, self.transitions = [model], counted_in([self.metadata])

    @cached_property
    def _network(self) -> NetworkPredictor:
        network = load_model(self.folder, [FineTuning])
        return NetworkPredictor(network, self.recipe, self.task, self.stretch_epochs)

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, classes) of a night's epochs (epochs, 3000) of each modality."""
        return self._network.probabilities(signals)


class MeanPredictor:
    """The mean of the probabilities of several folds' models for the same task and modalities."""

    def __init__(self, members: Sequence[FineTunedPredictor]) -> None:
        self.members, first = members, members[0]
        self.task, self.recipe, self.variant = first.task, first.recipe, first.variant
        self.models = [model for member in members for model in member.models]
        self.transitions = counted_in([member.metadata for member in members])

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As of :meth:`FineTunedPredictor.probabilities`."""
        return np.mean([member.probabilities(signals) for member in self.members], axis=0)


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` is a fold that holds a fine-tuned model."""
    return any(folder.glob(MODELS))


def load_fold(folder: Path, db: str | None = None) -> list[FineTunedPredictor]:  # noqa: ARG001
    """All fine-tuned models of a fold, which know their database; InputError if one is damaged."""
    return [FineTunedPredictor(path.parent) for path in sorted(folder.glob(MODELS))]


def load_stager(folder: str | Path, db: str | None = None, threads: int = 0) -> Stager:
    """The fine-tuned models of one fold, or of the folds of one database, in ``folder``.

    Of a fold's models for the same task and modalities the one with most labels is taken, then the one that did best on
    its validation subjects.

    Args:
        folder: one fold, or a folder of folds by number, or one that holds that folder under a database's name.
        db: the database that is wanted; None for the only one there is.
        threads: how many threads compute, if TensorFlow has not started yet; 0 for one on each core of the processor.

    Raises:
        InputError: there is none, one is damaged, or they are of several databases.
    """
    folds = find_folds(location(folder), db, is_fold)
    folds.say_unfinished()
    if threads:
        # TensorFlow reads it when it computes for the first time.
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
    loaded = [load_fold(path) for path in folds.folders]
    folds.require_one_database((model.metadata["db"] for fold in loaded for model in fold), db)
    groups = list(_by_task_and_modalities(loaded).values())
    for members in groups:
        if any(member.recipe != members[0].recipe for member in members):
            raise InputError(
                f"{folder} holds models that were trained on differently prepared channels: name one fold."
            )
    # Where two groups suit a recording equally well, the stager takes the first.
    groups.sort(key=lambda members: max(member.rank for member in members), reverse=True)
    return Stager(tuple(MeanPredictor(members) for members in groups))


def _by_task_and_modalities(
    folds: Sequence[Sequence[FineTunedPredictor]],
) -> dict[tuple[str, ...], list[FineTunedPredictor]]:
    """The best model of each fold for each task and set of modalities."""
    found: dict[tuple[str, ...], list[FineTunedPredictor]] = {}
    for fold in folds:
        best: dict[tuple[str, ...], FineTunedPredictor] = {}
        for model in fold:
            key = (model.task, *model.recipe.channels)
            best[key] = max(best.get(key, model), model, key=lambda each: each.rank)
        for key, model in best.items():
            found.setdefault(key, []).append(model)
    return found
