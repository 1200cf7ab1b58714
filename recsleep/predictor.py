"""Load trained folds of RecSleepNet: our own model folders, or the published TensorFlow 1 checkpoints."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.databases import ChannelSpec, database
from data.recipe import PUBLISHED, Level, Recipe
from data.recordings.channels import open_any
from data.store import location
from data.terms import STAGES, InputError
from recsleep.inference import InferenceNetwork
from runs import saved
from runs.saved import CONFIG, METADATA, WEIGHTS, find_folds, sha256
from staging.engine import kept_or_made
from staging.smoothing import counted_in
from staging.stager import Stager

if TYPE_CHECKING:
    import mne

    from data.nights.index import NightFile
    from evaluation.hypnogram import Hypnogram
    from recsleep.model import RecSleepNet

FORMAT = 2
"""The format's number in the ONNX files; a file of another format is written again."""


@dataclass(frozen=True)
class RecSleepNetPredictor:
    """A network, or several whose probabilities are averaged; a :class:`staging.predictor.Predictor`.

    Attributes:
        network: the network, or all of them as one graph.
        recipe: the recipe of the EEG channel that it takes.
        models: the folder of each network and the SHA-256 of its weights.
        transitions: how often each stage followed each in the training nights of all networks, if known.
        metadata: the metadata of a single model of ours, as training wrote them; else empty.
    """

    network: InferenceNetwork
    recipe: Recipe
    models: list[dict[str, str]] = field(default_factory=list)
    transitions: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    task: str = "sleep_stage"
    variant: str = ""

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probabilities float32 (epochs, 5) of a night whose ``eeg`` is float32 (epochs, 3000).

        For several channels, ``eeg`` is float32 (channels, epochs, 3000), and the result is (channels, epochs, 5).
        """
        eeg = signals["eeg"]
        return self.network.probabilities(eeg) if eeg.ndim == 3 else self.network.probabilities(eeg[None])[0]


@dataclass(frozen=True)
class SavedFold:
    """What the folder of a fold says about its network, which is not loaded yet.

    Attributes:
        folder: the folder, which holds a model of ours or a TensorFlow 1 checkpoint.
        recipe: the recipe of the EEG channel that the network takes.
        hashes: the SHA-256 of each of the network's files, by name; that of the weights comes first.
        db: the database that it was trained on.
        metadata: the metadata of a model of ours; else empty.
    """

    folder: Path
    recipe: Recipe
    hashes: dict[str, str]
    db: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, db: str | None) -> "SavedFold":
        """The fold in ``folder``; InputError if it holds no model, or neither it nor ``db`` tells its database."""
        if (folder / METADATA).is_file():
            metadata = read_metadata(folder)
            recipe = saved.read_recipe(folder, metadata)
            if recipe.channels.keys() != {"eeg"}:
                raise InputError(
                    f"{folder / METADATA}: a RecSleepNet takes one EEG channel, but the recipe there says otherwise: "
                    "train it again."
                )
            hashes = {name: metadata["sha256"][name] for name in (WEIGHTS, CONFIG)}
            return cls(folder, recipe, hashes, metadata["db"], metadata)
        if db is None:
            raise InputError(f"{folder} does not say which database it was trained on: name it with --db.")
        from recsleep.tensorflow1 import checkpoint_data

        # If a checkpoint is not one of the published ones, its level is not known.
        spec = database(db)
        recipe = PUBLISHED.get(spec.db) or Recipe.of_nights(spec, {"eeg": spec.channel}, {})
        weights = checkpoint_data(folder)
        return cls(folder, recipe, {weights.name: sha256(weights)}, spec.db)

    def load(self) -> "RecSleepNet":
        """The network as a Keras model; InputError if it is damaged."""
        if self.metadata:
            from recsleep.model import RecSleepNet
            from runs.networks import load_model

            return load_model(self.folder, [RecSleepNet])
        from recsleep.tensorflow1 import read_checkpoint

        return read_checkpoint(self.folder)


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` holds a complete model of ours or a TensorFlow 1 checkpoint."""
    return (folder / METADATA).is_file() or any(folder.glob("*.index"))


def load_fold(folder: Path, db: str | None = None) -> list[RecSleepNetPredictor]:
    """The predictor of the fold in ``folder``, in a list, because a fold of other models may have several.

    Args:
        folder: a folder with a model of ours or a TensorFlow 1 checkpoint.
        db: the database that the checkpoint was trained on, because a checkpoint does not say it.

    Raises:
        InputError: there is no model, it is damaged, or ``db`` is needed and not given.
    """
    return [_together(folder, [SavedFold.of(folder, db)])]


def _together(folder: Path, folds: Sequence[SavedFold], threads: int = 0) -> RecSleepNetPredictor:
    """One predictor with the mean probabilities and the median level of the ``folds`` in ``folder``.

    It uses the ONNX file in ``folder``, which is written if it is absent or holds other weights.

    Raises:
        InputError: the folds differ in architecture or recipe.
    """
    first = folds[0]
    if any(replace(fold.recipe, level=None) != replace(first.recipe, level=None) for fold in folds):
        raise InputError(
            f"the models in {folder} were trained on differently prepared channels, so they cannot be averaged: name "
            "one of them."
        )
    known = [fold.recipe.level for fold in folds if fold.recipe.level]
    recipe = first.recipe.calibrated_to(median_level(known) if len(known) == len(folds) else None)
    about = {
        "format": FORMAT,
        "db": first.db,
        "stages": list(STAGES),
        "recipe": recipe.to_json(),
        "models": [fold.hashes for fold in folds],
    }

    def make() -> bytes:
        from recsleep.onnx import to_onnx

        return to_onnx([fold.load() for fold in folds], about)

    own = first.metadata if first.folder == folder else {}
    network = kept_or_made(folder, own, about, make, partial(InferenceNetwork, threads=threads))
    models = [{"folder": str(fold.folder), "sha256": next(iter(fold.hashes.values()))} for fold in folds]
    counted = counted_in([fold.metadata for fold in folds])
    return RecSleepNetPredictor(network, recipe, models, counted, first.metadata if len(folds) == 1 else {})


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a fold of ours; InputError if a file is missing, or is not the one that they describe."""
    metadata = saved.read_metadata(folder)
    try:
        # Version 1 wrote only the channel instead of the recipe.
        named = isinstance(metadata["db"], str) and ("recipe" in metadata or isinstance(metadata["channel"], str))
        well_formed = named and all(type(s) is int for s in metadata["split"]["test"])
    except (KeyError, TypeError, IndexError):
        well_formed = False
    if not well_formed:
        raise InputError(f"{folder / METADATA} does not describe a trained fold: train it again in another folder.")
    return metadata


def load_stager(folder: str | Path, db: str | None = None, threads: int = 0) -> Stager:
    """Load one model, or the folds of one database, whose probabilities will be averaged, from ``folder``.

    Args:
        folder: a folder with a model of ours or a published TensorFlow 1 checkpoint; or a folder that holds such folds
            by their numbers; or one that holds the latter by the name of its database.
        db: the database that the models were trained on, if neither their metadata nor the folders' names tell it.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: there is no model, a model is damaged, or there are several databases or architectures.
    """
    folds = find_folds(location(folder), db, is_fold)
    folds.say_unfinished()
    found = [SavedFold.of(path, folds.db) for path in folds.folders]
    folds.require_one_database((fold.metadata.get("db", folds.db) for fold in found), db)
    if found[0].db == "isruc" and not found[0].metadata:
        print(
            f"{folds.root}: the published folds of isruc stage other databases poorly; those of sleepedfx do it well.",
            file=sys.stderr,
        )
    return Stager((_together(folds.root, found, threads),))


def median_level(levels: "Iterable[Level | NightFile]") -> Level:
    """The median amplitude and the median offset."""
    amplitude, offset = np.median([(level.amplitude, level.offset) for level in levels], axis=0)
    return Level(float(amplitude), float(offset))


def of_network(network: "RecSleepNet", recipe: Recipe) -> RecSleepNetPredictor:
    """The predictor of a Keras model, with the weights that it has now."""
    from recsleep.onnx import to_onnx

    return RecSleepNetPredictor(InferenceNetwork(to_onnx([network])), recipe)


def as_stager(model: "Stager | RecSleepNet | str | Path") -> Stager:
    """The stager for ``model``: a loaded stager, a folder to load, or a network, whose training level is unknown."""
    if isinstance(model, (str, Path)):
        return load_stager(model)
    return model if isinstance(model, Stager) else Stager((of_network(model, Recipe({"eeg": ChannelSpec("")})),))


def stage(
    recording: "mne.io.BaseRaw | str | Path",
    model: "Stager | RecSleepNet | str | Path",
    channels: str | Sequence[str] = (),
    calibrate: bool = True,
    smooth: bool = True,
) -> "Hypnogram":
    """The hypnogram of a recording.

    Args:
        recording: a recording that MNE has opened, a file in a format that MNE reads, or a night file.
        model: a folder of one model or of folds, a stager from :func:`load_stager`, or a network.
        channels: the channel, or several whose probabilities are averaged; by default, up to three of the best ones.
        calibrate: whether to scale the signal to the level of the training data.
        smooth: whether the epochs before and after an epoch help to decide its stage.

    Raises:
        InputError: the recording, a channel or the model cannot be used.

    Example:

    >>> hypnogram = stage("night.edf", "pretrained_model/sleepedfx", "C3-A2")
    >>> hypnogram.to_frame().columns[:4].tolist()
    ['epoch', 'start_s', 'stage', 'W']
    >>> hypnogram.statistics()["TIB"]  # Minutes.
    6.0
    """
    stager = as_stager(model)
    wanted = [name for name in ([channels] if isinstance(channels, str) else channels) if name]
    with open_any(recording, wanted) as opened:
        return stager.stage(opened, wanted, calibrate, smooth)
