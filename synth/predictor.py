"""Fine-tuned models of SynthSleepNet as predictors: one of a fold, or the mean of several folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from data.databases import database
from data.recipe import Recipe
from data.store import location
from data.terms import TASKS, InputError
from runs.saved import METADATA, WEIGHTS, find_folds, load_model, read_metadata
from staging.stager import Stager
from synth.fine_tuned import whole_night
from synth.models.classifier import FineTuning
from synth.terms import TCMS


@dataclass(frozen=True)
class FineTunedPredictor:
    """A fine-tuned model in its folder, whose network is loaded when it is needed; a
    :class:`staging.predictor.Predictor`.

    Attributes:
        folder: of the model.
        metadata: as training left them.
        recipe: of the signals that it takes.
    """

    folder: Path
    metadata: dict[str, Any]
    recipe: Recipe

    @classmethod
    def of(cls, folder: Path) -> "FineTunedPredictor":
        """The model in ``folder``.

        Raises:
            InputError: there is none, or it is damaged.
        """
        metadata = read_metadata(folder)
        try:
            predictor = cls(folder, metadata, Recipe.of_metadata(metadata))
            sizes = (predictor.training.stretch_epochs, predictor.training.fine_tuning_batch)
            known = predictor.task in TASKS and metadata["tcm"] in TCMS and isinstance(metadata["db"], str)
            known = known and isinstance(predictor.rank, tuple) and all(type(s) is int for s in predictor.subjects)
        except (KeyError, TypeError, ValueError, AttributeError):
            known = False
        if not known or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise InputError(f"{folder / METADATA} does not describe a fine-tuned model: train it again.")
        return predictor

    @property
    def task(self) -> str:
        return self.metadata["task"]

    @property
    def training(self) -> SimpleNamespace:
        """The values of ``config.SynthSleepNetTraining`` that it was trained with."""
        return SimpleNamespace(**self.metadata["config"]["training"])

    @property
    def subjects(self) -> tuple[int, ...]:
        """Whom it was tested on, and never saw."""
        return tuple(self.metadata["split"]["test"])

    @property
    def variant(self) -> str:
        """What distinguishes it from others for the same task: modalities, module, and share of the labels."""
        share = float(self.metadata["label_fraction"])
        return f"{'-'.join(self.recipe.channels)} {self.metadata['tcm']}, {share:.3g} of the labels"

    @property
    def rank(self) -> tuple[float, float]:
        """By which the best of a fold's models is chosen: most labels, then the best figure on validation subjects."""
        best = self.metadata["best"]
        figure = best.get("average_precision", best.get("macro_f1"))
        return float(self.metadata["label_fraction"]), -1.0 if figure is None else float(figure)

    @property
    def models(self) -> list[dict[str, str]]:
        return [{"folder": str(self.folder), "sha256": self.metadata["sha256"][WEIGHTS]}]

    @cached_property
    def _probabilities(self) -> Any:
        import tensorflow as tf

        network = load_model(self.folder, [FineTuning])
        return tf.function(lambda inputs: tf.nn.softmax(network(inputs)))

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, classes) of a night's epochs (epochs, 3000) of each modality."""
        return whole_night(self._probabilities, dict(signals), self.training)


@dataclass(frozen=True)
class MeanPredictor:
    """The mean of the probabilities of several folds' models for the same task and modalities."""

    members: tuple[FineTunedPredictor, ...]

    @property
    def task(self) -> str:
        return self.members[0].task

    @property
    def recipe(self) -> Recipe:
        return self.members[0].recipe

    @property
    def variant(self) -> str:
        return self.members[0].variant

    @property
    def models(self) -> list[dict[str, str]]:
        return [model for member in self.members for model in member.models]

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As of :meth:`FineTunedPredictor.probabilities`."""
        return np.mean([member.probabilities(signals) for member in self.members], axis=0)


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` is a fold that holds a fine-tuned model."""
    return any(_folders(folder))


def load_fold(folder: Path, db: str | None = None) -> list[FineTunedPredictor]:  # noqa: ARG001
    """All fine-tuned models of a fold; they say themselves which database they were trained on.

    Raises:
        InputError: one is damaged.
    """
    return [FineTunedPredictor.of(path) for path in sorted(_folders(folder))]


def _folders(fold: Path) -> list[Path]:
    return [path.parent for path in fold.glob(f"fine_tuning/*/*/*/{METADATA}")]


def load_stager(folder: str | Path, db: str | None = None) -> Stager:
    """The fine-tuned models of one fold, or of the folds of one database, in ``folder``.

    Of a fold's models for the same task and modalities the one with most labels is taken, then the one that did best on
    its validation subjects.

    Raises:
        InputError: there is none, one is damaged, or they are of several databases.
    """
    folds = find_folds(location(folder), db, is_fold)
    folds.say_unfinished()
    loaded = [load_fold(path) for path in folds.folders]
    databases = sorted({model.metadata["db"] for fold in loaded for model in fold})
    if len(databases) > 1:
        raise InputError(f"{folder} holds models of {' and '.join(databases)}: name the folder of one.")
    if db is not None and database(db).db != databases[0]:
        raise InputError(f"{folder} was trained on {databases[0]}, not {db}: choose with --db.")
    return Stager(tuple(MeanPredictor(tuple(members)) for members in _by_task_and_modalities(loaded).values()))


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
