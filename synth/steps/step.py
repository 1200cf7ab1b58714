"""What all steps of a fold share: the fold itself, random draws, and a learner's state for continuing after a kill."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from data.nights.folds import Split
from data.nights.index import NightFile
from data.recipe import Recipe
from runs.identity import seed_of
from runs.networks import save_model
from runs.resumable import ResumableRun, arrays_in
from runs.saved import METADATA
from runs.settings import recorded
from synth.learner import Learner, scheduled
from synth.replicas import Replicas

if TYPE_CHECKING:
    from runs.settings import Config


@dataclass(frozen=True)
class Fold:
    """A fold: its settings, its subjects, their checked night files, the folder of its results, the devices that share
    its batches, and, as ``init``, the fold of another run whose pretrained networks it uses, if any."""

    config: "Config"
    split: Split
    labelled: tuple[int, ...]
    """The training subjects whose scoring may be used."""
    nights: dict[int, list[NightFile]]
    folder: Path
    replicas: Replicas
    bar: bool = True
    init: Path | None = None

    def taken_over(self, *parts: str) -> bool:
        """Whether the pretrained network in the folder ``parts`` of a fold is taken from the other run."""
        return self.init is not None and (self.init.joinpath(*parts) / METADATA).is_file()

    def pretrained(self, *parts: str) -> Path:
        """The folder ``parts`` with a pretrained network, in the other run's fold if that has one, else in this one."""
        return (self.init if self.init and self.taken_over(*parts) else self.folder).joinpath(*parts)

    def files(self, subjects: tuple[int, ...]) -> list[NightFile]:
        return [night for subject in subjects for night in self.nights[subject]]

    def draw_first_weights(self) -> None:
        """Set the random seed, so that the layers made next draw their weights from the fold's seed."""
        keras.utils.set_random_seed(self.config.training.seed + self.split.fold)


class Step(ResumableRun):
    """A step of a fold, whose ``network`` learns from its ``losses`` of a batch of inputs.

    Args:
        fold: the fold to train.
        folder: the folder of the results.
        name: the name of the step, which decides its random draws.
        title: the name of the step in messages.
        about: what is recorded about the run besides its configuration and its subjects.
    """

    network: keras.Model

    def __init__(self, fold: Fold, folder: Path, name: str, title: str, about: dict[str, Any]) -> None:
        split = {**fold.split.to_json(), "labelled": list(fold.labelled)}
        record = {"config": recorded(fold.config), "split": split, **about}
        title = f"fold {fold.split.fold} {title}"
        super().__init__(folder, title, fold.config, record, fold.bar, fold.replicas.chief)
        self.fold, self.training = fold, fold.config.training
        self.seed = seed_of(self.training.seed, fold.split.fold, name)

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The recipe of the signals that the network takes."""

    def chosen_nights(self, subjects: tuple[int, ...], count: int) -> list[NightFile]:
        """At most ``count`` nights of ``subjects``, the same in every run."""
        nights = self.fold.files(subjects)
        drawn = np.random.default_rng((self.training.seed, self.fold.split.fold)).permutation(len(nights))
        return [nights[i] for i in sorted(drawn[:count])]

    @abstractmethod
    def losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The losses of a batch of inputs; the one called ``loss`` is minimised."""

    def begin(
        self, size: int, schedule: str, updates: Sequence[int], accumulation: int = 1, clipped: bool = True
    ) -> None:
        """Make the learner, for updates with ``size`` examples each.

        ``schedule`` and ``updates`` are those of :func:`synth.learner.scheduled`, ``accumulation`` is that of
        :class:`synth.learner.Learner`; ``clipped`` says whether the gradient's norm is bounded.
        """
        self.learner = Learner(
            self.network,
            self.losses,
            rate=scheduled(schedule, getattr(self.training, self.rate) * size / 256, updates),
            weight_decay=self.training.weight_decay,
            clip_norm=self.training.clip_norm if clipped else None,
            accumulation=accumulation,
            replicas=self.fold.replicas,
        )

    def draws_of(self, number: int) -> np.random.Generator:
        """The random generator of a unit; the network's dropout is seeded from the same seed."""
        seed = np.random.SeedSequence((*self.seed, number))
        self.learner.reseed_dropout(seed)
        return np.random.default_rng(seed.spawn(1)[0])

    def save_state(self, folder: Path) -> None:
        np.savez(folder / "training.npz", *self.learner.state())

    def load_state(self, folder: Path) -> None:
        self.learner.restore(arrays_in(folder / "training.npz"))

    def wait(self) -> None:
        self.fold.replicas.wait()

    def save(self, **found: Any) -> None:
        """Save the best network, with ``found`` among its metadata."""
        if self.chief:
            about = {"db": self.config.database.db, "recipe": self.recipe.to_json()}
            save_model(self.folder, self.judged, {**self.record, **about, "best": self.best, **found})
