"""Predictors of SynthSleepNet or NeuroNet: a network in memory, a saved one, or the mean of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.recipe import Recipe
from data.store import location
from data.terms import TASKS, InputError
from evaluation.predictions import classes
from runs.saved import CONFIG, METADATA, WEIGHTS, find_folds, read_metadata, read_recipe
from staging.engine import kept_or_made
from staging.smoothing import counted_in
from staging.stager import Stager
from synth.inference import InferenceNetwork
from synth.terms import TCMS

if TYPE_CHECKING:
    from synth.models.classifier import FineTuned

FORMAT = 1
"""The format's number in the ONNX files; a file of another format is written again."""

MODELS = f"fine_tuning/*/*/*/{METADATA}"
"""Where a fold holds its fine-tuned models: one for each task with share of labels, set of streams, and module."""


@dataclass(frozen=True)
class NetworkPredictor:
    """A network in memory; a :class:`staging.predictor.Predictor`.

    Attributes:
        network: a network that was fine-tuned for the task.
        stretch_epochs: how many consecutive epochs its temporal context module sees at once.
    """

    network: InferenceNetwork
    recipe: Recipe
    task: str
    stretch_epochs: int
    variant: str = ""
    models: list[dict[str, str]] = field(default_factory=list)
    transitions: np.ndarray | None = None

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probabilities float32 (epochs, classes) of a night, from each stream's ``signals`` (epochs, 3000)."""
        return self.network.probabilities(signals, self.stretch_epochs)


class FineTunedPredictor:
    """A fine-tuned model in ``folder``, whose network is loaded when it is needed.

    It is a :class:`staging.predictor.Predictor`.

    Args:
        folder: the folder of the model.
        threads: how many threads compute; 0 for one on each core of the processor.

    Attributes:
        metadata: the metadata that training wrote.
        variant: what distinguishes it from others for the same task: streams, module, and share of the labels.
        rank: the best of a fold's models has the highest rank: its share of labels, then its figure on the validation
            subjects.

    Raises:
        InputError: there is no such model, or it is damaged.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder, self.threads, self.metadata = folder, threads, read_metadata(folder)
        self.recipe = read_recipe(folder, self.metadata)
        try:
            self.task, tcm = self.metadata["task"], self.metadata["tcm"]
            self.stretch_epochs = self.metadata["config"]["training"]["stretch_epochs"]
            best, share = self.metadata["best"], float(self.metadata["label_fraction"])
            figure = best.get("average_precision", best.get("macro_f1"))
            self.rank = (share, -1.0 if figure is None else float(figure))
            known = self.task in TASKS and tcm in TCMS and isinstance(self.metadata["db"], str)
            known = known and isinstance(self.stretch_epochs, int) and self.stretch_epochs > 0
            known = known and all(type(subject) is int for subject in self.metadata["split"]["test"])
        except (KeyError, TypeError, ValueError, AttributeError):
            known = False
        if not known:
            raise InputError(f"{folder / METADATA} does not describe a fine-tuned model: train it again.")
        self.variant = f"{'-'.join(self.recipe.channels)} {tcm}, {share:.3g} of the labels"
        model = {"folder": str(folder), "sha256": self.metadata["sha256"][WEIGHTS], "variant": self.variant}
        self.models, self.transitions = [model], counted_in([self.metadata])

    @cached_property
    def network(self) -> InferenceNetwork:
        """The network in the folder's ONNX file, which is written if it is absent or holds other weights.

        Raises:
            InputError: the weights are damaged, belong to other streams than the recipe, or are too many for such a
                file.
        """
        about = {
            "format": FORMAT,
            "db": self.metadata["db"],
            "task": self.task,
            "classes": list(classes(self.task)),
            "recipe": self.recipe.to_json(),
            "stretch_epochs": self.stretch_epochs,
            "models": [{name: self.metadata["sha256"][name] for name in (WEIGHTS, CONFIG)}],
        }
        opened = partial(InferenceNetwork, threads=self.threads)
        return kept_or_made(self.folder, self.metadata, about, lambda: self._made(about), opened)

    def _made(self, about: Mapping[str, Any]) -> bytes:
        from runs.networks import load_model
        from synth.models.classifier import FineTuned, FineTuning, NeuroNetFineTuning
        from synth.onnx import to_onnx

        kinds: tuple[type[FineTuned], ...] = (FineTuning, NeuroNetFineTuning)
        network = load_model(self.folder, kinds)
        if set(network.encoder.modalities) != self.recipe.channels.keys():
            raise InputError(
                f"{self.folder / METADATA}: the recipe there does not fit the network's streams: train it again."
            )
        return to_onnx(network, about)

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As :meth:`NetworkPredictor.probabilities`."""
        return self.network.probabilities(signals, self.stretch_epochs)


class MeanPredictor:
    """The mean of the probabilities of several folds' models for the same task and streams."""

    def __init__(self, members: Sequence[FineTunedPredictor]) -> None:
        self.members, first = members, members[0]
        self.task, self.recipe, self.variant = first.task, first.recipe, first.variant
        self.models = [model for member in members for model in member.models]
        self.transitions = counted_in([member.metadata for member in members])

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As :meth:`staging.predictor.Predictor.probabilities`; the members are divided among several channels."""
        several = next(iter(signals.values())).ndim == 3
        each = zip(*signals.values(), strict=True) if several else [signals.values()]
        channels = [dict(zip(signals, channel, strict=True)) for channel in each]
        found: list[list[np.ndarray]] = [[] for _ in channels]
        for turn in range(max(len(channels), len(self.members))):
            channel, member = turn % len(channels), self.members[turn % len(self.members)]
            found[channel].append(member.probabilities(channels[channel]))
        means = np.stack([np.mean(own, axis=0) for own in found])
        return means if several else means[0]


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` is a fold that holds a fine-tuned model."""
    return any(folder.glob(MODELS))


def of_network(network: "FineTuned", recipe: Recipe, task: str, stretch_epochs: int) -> NetworkPredictor:
    """The predictor of a Keras model, with the weights that it has now."""
    from synth.onnx import to_onnx

    return NetworkPredictor(InferenceNetwork(to_onnx(network)), recipe, task, stretch_epochs)


def load_fold(folder: Path, db: str | None = None, threads: int = 0) -> list[FineTunedPredictor]:  # noqa: ARG001
    """All fine-tuned models of a fold; InputError if one is damaged. ``db`` is ignored: they know their database."""
    return [FineTunedPredictor(path.parent, threads) for path in sorted(folder.glob(MODELS))]


def load_stager(folder: str | Path, db: str | None = None, threads: int = 0) -> Stager:
    """The fine-tuned models of one fold, or of the folds of one database, in ``folder``.

    Among a fold's models for the same task and streams, the one trained on most labels is taken; among equals, the one
    that did best on its validation subjects.

    Args:
        folder: a fold; or a folder that holds folds by their numbers; or one that holds the latter by the name of its
            database.
        db: the database that the models were trained on, if there are several.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: there is no model, a model is damaged, or there are several databases.
    """
    folds = find_folds(location(folder), db, is_fold, "synthsleepnet")
    folds.say_unfinished()
    loaded = [load_fold(path, threads=threads) for path in folds.folders]
    folds.require_one_database((model.metadata["db"] for fold in loaded for model in fold), db)
    groups = list(_by_task_and_streams(loaded).values())
    for members in groups:
        if any(member.recipe != members[0].recipe for member in members):
            raise InputError(
                f"{folder} holds models that were trained on differently prepared channels: name one fold."
            )
    # If two groups fit a recording equally well, the stager takes the first one.
    groups.sort(key=lambda members: max(member.rank for member in members), reverse=True)
    return Stager(tuple(MeanPredictor(members) for members in groups))


def _by_task_and_streams(
    folds: Sequence[Sequence[FineTunedPredictor]],
) -> dict[tuple[str, ...], list[FineTunedPredictor]]:
    """The best model of each fold for each task and set of streams."""
    found: dict[tuple[str, ...], list[FineTunedPredictor]] = {}
    for fold in folds:
        best: dict[tuple[str, ...], FineTunedPredictor] = {}
        for model in fold:
            key = (model.task, *model.recipe.channels)
            best[key] = max(best.get(key, model), model, key=lambda each: each.rank)
        for key, model in best.items():
            found.setdefault(key, []).append(model)
    return found
