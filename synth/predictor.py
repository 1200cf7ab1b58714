"""Fine-tuned networks of SynthSleepNet or NeuroNet as predictors: one at hand, a saved one, or the mean of several."""

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
"""Of the ONNX files; a file of another format is written anew."""

MODELS = f"fine_tuning/*/*/*/{METADATA}"
"""Where a fold holds its fine-tuned models: one for each task and share of labels, set of streams, and module."""


@dataclass(frozen=True)
class NetworkPredictor:
    """A network at hand; a :class:`staging.predictor.Predictor`.

    Attributes:
        network: fine-tuned for the task.
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
        """Probabilities float32 (epochs, classes) of a night's epochs (epochs, 3000) of each stream."""
        return self.network.probabilities(signals, self.stretch_epochs)


class FineTunedPredictor:
    """A fine-tuned model in ``folder``, whose network is loaded when it is needed.

    It is a :class:`staging.predictor.Predictor`.

    Args:
        folder: of the model.
        threads: how many threads compute; 0 for one on each core of the processor.

    Attributes:
        metadata: as training left them.
        variant: what distinguishes it from others for the same task: streams, module, and share of the labels.
        rank: by which the best of a fold's models is chosen: most labels, then the best figure on validation subjects.

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
        """The network of the folder's ONNX file, which is written where it is absent or of other weights.

        Raises:
            InputError: the weights are damaged, not of the modalities of the recipe, or too many for such a file.
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
            raise InputError(f"{self.folder / METADATA}: its recipe is not that of the network's streams.")
        return to_onnx(network, about)

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As of :meth:`NetworkPredictor.probabilities`."""
        return self.network.probabilities(signals, self.stretch_epochs)


class MeanPredictor:
    """The mean of the probabilities of several folds' models for the same task and streams."""

    def __init__(self, members: Sequence[FineTunedPredictor]) -> None:
        self.members, first = members, members[0]
        self.task, self.recipe, self.variant = first.task, first.recipe, first.variant
        self.models = [model for member in members for model in member.models]
        self.transitions = counted_in([member.metadata for member in members])

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """As of :meth:`staging.predictor.Predictor.probabilities`; several channels share the members."""
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
    """The predictor of a network that Keras holds; weights that change afterwards do not count."""
    from synth.onnx import to_onnx

    return NetworkPredictor(InferenceNetwork(to_onnx(network)), recipe, task, stretch_epochs)


def load_fold(folder: Path, db: str | None = None, threads: int = 0) -> list[FineTunedPredictor]:  # noqa: ARG001
    """All fine-tuned models of a fold, which know their database; InputError if one is damaged."""
    return [FineTunedPredictor(path.parent, threads) for path in sorted(folder.glob(MODELS))]


def load_stager(folder: str | Path, db: str | None = None, threads: int = 0) -> Stager:
    """The fine-tuned models of one fold, or of the folds of one database, in ``folder``.

    Of a fold's models for the same task and streams the one with most labels is taken, then the one that did best on
    its validation subjects.

    Args:
        folder: a fold, or a folder of folds by number, or one that holds that folder under a database's name.
        db: the database that the models were trained on, where several are at hand.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: there is none, one is damaged, or they are of several databases.
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
    # Where two groups suit a recording equally well, the stager takes the first.
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
