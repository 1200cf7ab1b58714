"""Trained folds of RecSleepNet as predictors: our own model folders, and the published TensorFlow-1 checkpoints."""

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
"""Of the ONNX files; a file of another format is written anew."""


@dataclass(frozen=True)
class RecSleepNetPredictor:
    """A network, or several whose probabilities are averaged; a :class:`staging.predictor.Predictor`.

    Attributes:
        network: one of them, or all as one graph.
        recipe: of the EEG channel that it takes.
        models: the folder of each network and the SHA-256 of its weights.
        transitions: how often each stage followed each in the training nights of all of them, if it is known.
        metadata: of one of our own models, as training left them; else empty.
    """

    network: InferenceNetwork
    recipe: Recipe
    models: list[dict[str, str]] = field(default_factory=list)
    transitions: np.ndarray | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    task: str = "sleep_stage"
    variant: str = ""

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, 5) of a night, whose ``eeg`` is float32 (epochs, 3000).

        Of several channels, ``eeg`` float32 (channels, epochs, 3000), they are (channels, epochs, 5).
        """
        eeg = signals["eeg"]
        return self.network.probabilities(eeg) if eeg.ndim == 3 else self.network.probabilities(eeg[None])[0]


@dataclass(frozen=True)
class SavedFold:
    """What the folder of a fold says of its network, which is not loaded yet.

    Attributes:
        folder: holds a model of ours or a TensorFlow-1 checkpoint.
        recipe: of the EEG channel that the network takes.
        hashes: the SHA-256 of the files that make the network, by name; that of the weights comes first.
        db: the database that it was trained on.
        metadata: of a model of ours; else empty.
    """

    folder: Path
    recipe: Recipe
    hashes: dict[str, str]
    db: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, db: str | None) -> "SavedFold":
        """What ``folder`` says; InputError if it holds no model, or does not say its database and ``db`` is None."""
        if (folder / METADATA).is_file():
            metadata = read_metadata(folder)
            recipe = saved.read_recipe(folder, metadata)
            if recipe.channels.keys() != {"eeg"}:
                raise InputError(
                    f"{folder / METADATA}: a RecSleepNet takes one EEG channel; its recipe says otherwise."
                )
            hashes = {name: metadata["sha256"][name] for name in (WEIGHTS, CONFIG)}
            return cls(folder, recipe, hashes, metadata["db"], metadata)
        if db is None:
            raise InputError(f"{folder} does not say which database it was trained on: name it with --db.")
        from recsleep.tensorflow1 import checkpoint_data

        # Of a checkpoint that is none of the published ones the level is not known.
        spec = database(db)
        recipe = PUBLISHED.get(spec.db) or Recipe.of_nights(spec, {"eeg": spec.channel}, {})
        weights = checkpoint_data(folder)
        return cls(folder, recipe, {weights.name: sha256(weights)}, spec.db)

    def load(self) -> "RecSleepNet":
        """The network itself, by Keras; InputError if it is damaged."""
        if self.metadata:
            from recsleep.model import RecSleepNet
            from runs.networks import load_model

            return load_model(self.folder, [RecSleepNet])
        from recsleep.tensorflow1 import read_checkpoint

        return read_checkpoint(self.folder)


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` holds a complete model of ours or a TensorFlow-1 checkpoint."""
    return (folder / METADATA).is_file() or any(folder.glob("*.index"))


def load_fold(folder: Path, db: str | None = None) -> list[RecSleepNetPredictor]:
    """The one predictor of the fold in ``folder``.

    Args:
        folder: holds a model of ours or a TensorFlow-1 checkpoint.
        db: the database that a checkpoint was trained on, which it does not say.

    Raises:
        InputError: there is no model, it is damaged, or no database is given where one is needed.
    """
    return [_together(folder, [SavedFold.of(folder, db)])]


def _together(folder: Path, folds: Sequence[SavedFold], threads: int = 0) -> RecSleepNetPredictor:
    """One predictor of the mean probabilities and the median level of the ``folds`` in ``folder``.

    It computes them with the ONNX file in ``folder``, which is written where it is absent or of other weights.

    Raises:
        InputError: architectures or recipes differ.
    """
    first = folds[0]
    if any(replace(fold.recipe, level=None) != replace(first.recipe, level=None) for fold in folds):
        raise InputError("these models were trained on differently prepared channels, so they cannot be averaged.")
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
    """The metadata of a fold of ours; InputError if a file is missing or not the one that the metadata describe."""
    metadata = saved.read_metadata(folder)
    try:
        # Version 1 wrote the channel where the recipe is now.
        named = isinstance(metadata["db"], str) and ("recipe" in metadata or isinstance(metadata["channel"], str))
        well_formed = named and all(type(s) is int for s in metadata["split"]["test"])
    except (KeyError, TypeError, IndexError):
        well_formed = False
    if not well_formed:
        raise InputError(f"{folder / METADATA} does not describe a trained fold: train it again in another folder.")
    return metadata


def load_stager(folder: str | Path, db: str | None = None, threads: int = 0) -> Stager:
    """Load one model, or the folds of one database, from ``folder``; their probabilities will be averaged.

    Args:
        folder: a model of ours or a published TensorFlow-1 checkpoint, or a folder of such folds by number, or one that
            holds that folder under a database's name.
        db: the database that the models were trained on, where neither they nor the folders' names say.
        threads: how many threads compute; 0 for one on each core of the processor.

    Raises:
        InputError: there is no model, one is damaged, or they are of several databases or architectures.
    """
    folds = find_folds(location(folder), db, is_fold)
    folds.say_unfinished()
    found = [SavedFold.of(path, folds.db) for path in folds.folders]
    folds.require_one_database((fold.metadata.get("db", folds.db) for fold in found), db)
    if found[0].db == "isruc" and not found[0].metadata:
        print(
            f"{folds.root}: the published folds of isruc hardly carry over to other databases; those of sleepedfx do.",
            file=sys.stderr,
        )
    return Stager((_together(folds.root, found, threads),))


def median_level(levels: "Iterable[Level | NightFile]") -> Level:
    """The median amplitude and the median offset."""
    amplitude, offset = np.median([(level.amplitude, level.offset) for level in levels], axis=0)
    return Level(float(amplitude), float(offset))


def of_network(network: "RecSleepNet", recipe: Recipe) -> RecSleepNetPredictor:
    """The predictor of a network that Keras holds; weights that change afterwards do not count."""
    from recsleep.onnx import to_onnx

    return RecSleepNetPredictor(InferenceNetwork(to_onnx([network])), recipe)


def as_stager(model: "Stager | RecSleepNet | str | Path") -> Stager:
    """``model`` as a stager: one that was loaded, a folder to load, or a network whose training level is unknown."""
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
        recording: what MNE has opened, or a file in a format that it reads, or a night file.
        model: a folder of one model or of folds, or what :func:`load_stager` made of it, or a network.
        channels: the channel, or several whose probabilities are averaged; without it up to three of the best are.
        calibrate: whether the signal is brought to the level of the training data.
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
