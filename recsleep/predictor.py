"""Trained folds of RecSleepNet as predictors: our own model folders, and the published TensorFlow-1 checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from data.databases import ChannelSpec, database
from data.recipe import PUBLISHED, Level, Recipe
from data.recordings.channels import open_signals
from data.recordings.recording import Recording
from data.store import location
from data.terms import InputError
from recsleep.ensemble import Ensemble
from recsleep.model import RecSleepNet
from recsleep.tensorflow1 import checkpoint_data, read_checkpoint
from runs import saved
from runs.saved import METADATA, WEIGHTS, find_folds, sha256
from staging.stager import Stager

if TYPE_CHECKING:
    import mne

    from data.nights.index import NightFile
    from evaluation.hypnogram import Hypnogram

CHUNK_EPOCHS = 200
"""Epochs computed at once: enough to keep the processor busy, few enough for its caches."""


def stage_epochs(network: RecSleepNet | Ensemble, signals: np.ndarray) -> np.ndarray:
    """Probabilities of W, N1, N2, N3, REM, float32 (epochs, 5), of consecutive epochs of one night.

    Args:
        network: a trained network, or several as an ensemble.
        signals: float32 (epochs, 3000) at 100 Hz, in the units the network was trained with.
    """
    state, logits = network.initial_state(1), []
    for first in range(0, len(signals), CHUNK_EPOCHS):
        chunk = signals[first : first + CHUNK_EPOCHS]
        # One shape for all chunks, so that the network is compiled once; what follows the night's end is cut off.
        padded = np.pad(chunk, ((0, CHUNK_EPOCHS - len(chunk)), (0, 0)))
        output, state = network.predict_on_batch({"signals": padded[None], "state": state})
        logits.append(output[0, : len(chunk)])
    return keras.ops.convert_to_numpy(keras.ops.softmax(np.concatenate(logits)))


@dataclass(frozen=True)
class RecSleepNetPredictor:
    """A network, or several whose probabilities are averaged; a :class:`staging.predictor.Predictor`.

    Attributes:
        network: one of them, or all as an ensemble.
        recipe: of the EEG channel that it takes.
        models: the folder of each network and the SHA-256 of its weights.
        metadata: of one of our own models, as training left them; else empty.
    """

    network: RecSleepNet | Ensemble
    recipe: Recipe
    models: list[dict[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    task: str = "sleep_stage"
    variant: str = ""

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities float32 (epochs, 5) of a night, whose ``eeg`` is float32 (epochs, 3000)."""
        return stage_epochs(self.network, signals["eeg"])


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
    if (folder / METADATA).is_file():
        metadata = read_metadata(folder)
        try:
            recipe = Recipe.of_metadata(metadata)
        except InputError as error:
            raise InputError(f"{folder / METADATA}: {error}") from None
        if recipe.channels.keys() != {"eeg"}:
            raise InputError(f"{folder / METADATA}: a RecSleepNet takes one EEG channel; its recipe says otherwise.")
        network = saved.load_model(folder, [RecSleepNet])
        model = {"folder": str(folder), "sha256": metadata["sha256"][WEIGHTS]}
        return [RecSleepNetPredictor(network, recipe, [model], metadata)]
    network = read_checkpoint(folder)
    if db is None:
        raise InputError(f"{folder} does not say which database it was trained on: name it with --db.")
    # Of a checkpoint that is none of the published ones the level is not known.
    spec = database(db)
    recipe = PUBLISHED.get(spec.db) or Recipe.of_nights(spec, {"eeg": spec.channel}, {})
    model = {"folder": str(folder), "sha256": sha256(checkpoint_data(folder))}
    return [RecSleepNetPredictor(network, recipe, [model])]


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


def load_stager(folder: str | Path, db: str | None = None) -> Stager:
    """Load one model, or the folds of one database, from ``folder``; their probabilities will be averaged.

    Args:
        folder: a model of ours or a published TensorFlow-1 checkpoint, or a folder of such folds by number, or one that
            holds that folder under a database's name.
        db: the database that the models were trained on, where neither they nor the folders' names say.

    Raises:
        InputError: there is no model, one is damaged, or they are of several databases or architectures.
    """
    folds = find_folds(location(folder), db, is_fold)
    folds.say_unfinished()
    loaded = [predictor for path in folds.folders for predictor in load_fold(path, folds.db)]
    folds.require_one_database((predictor.metadata.get("db", folds.db) for predictor in loaded), db)
    return Stager((together(loaded),))


def together(predictors: Sequence[RecSleepNetPredictor]) -> RecSleepNetPredictor:
    """One predictor of their mean probabilities and median level; InputError if architectures or recipes differ."""
    if len(predictors) == 1:
        return predictors[0]
    if any(replace(p.recipe, level=None) != replace(predictors[0].recipe, level=None) for p in predictors):
        raise InputError("these models were trained on differently prepared channels, so they cannot be averaged.")
    known = [predictor.recipe.level for predictor in predictors if predictor.recipe.level]
    recipe = replace(predictors[0].recipe, level=median_level(known) if len(known) == len(predictors) else None)
    models = [model for predictor in predictors for model in predictor.models]
    return RecSleepNetPredictor(Ensemble([predictor.network for predictor in predictors]), recipe, models)


def median_level(levels: "Iterable[Level | NightFile]") -> Level:
    """The median amplitude and the median offset."""
    amplitude, offset = np.median([(level.amplitude, level.offset) for level in levels], axis=0)
    return Level(float(amplitude), float(offset))


def as_stager(model: Stager | RecSleepNet | Ensemble | str | Path) -> Stager:
    """``model`` as a stager: one that was loaded, a folder to load, or a network whose training level is unknown."""
    if isinstance(model, (RecSleepNet, Ensemble)):
        return Stager((RecSleepNetPredictor(model, Recipe({"eeg": ChannelSpec("")})),))
    return model if isinstance(model, Stager) else load_stager(model)


def stage(
    recording: "mne.io.BaseRaw | str | Path",
    model: Stager | RecSleepNet | str | Path,
    channels: str | Sequence[str] = (),
    calibrate: bool = True,
) -> "Hypnogram":
    """The hypnogram of a recording.

    Args:
        recording: what MNE has opened, or a file in a format that it reads, or a night file.
        model: a folder of one model or of folds, or what :func:`load_stager` made of it, or a network.
        channels: the channel, or several whose probabilities are averaged; without it the best one is chosen.
        calibrate: whether the signal is brought to the level of the training data.

    Raises:
        InputError: the recording, a channel or the model cannot be used.

    Example:

    >>> hypnogram = stage(mne.io.read_raw("night.edf"), "pretrained_model/sleepedfx", "C3-A2")
    >>> hypnogram.to_frame(), hypnogram.plot(), hypnogram.statistics()
    """
    stager = as_stager(model)
    wanted = [name for name in ([channels] if isinstance(channels, str) else channels) if name]
    if not isinstance(recording, (str, Path)):
        path = Path(next((str(name) for name in recording.filenames if name), "recording"))
        return stager.stage(Recording(path, None, recording), wanted, calibrate)
    with open_signals(location(recording), wanted) as opened:
        return stager.stage(opened, wanted, calibrate)
