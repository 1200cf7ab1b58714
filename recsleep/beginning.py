"""Trained networks with which RecSleepNet's training begins (``trainer.py --init``), ours or published ones."""

from pathlib import Path

from data.store import read_json
from data.terms import InputError
from recsleep.predictor import SavedFold, is_fold
from runs.saved import CONFIG, METADATA, find_folds
from runs.settings import RECSLEEPNET_SECTIONS, names_in


def folds_in(folder: Path) -> list[SavedFold]:
    """The folds in ``folder``: itself, or those of one database; InputError if there are none, or of several."""
    try:
        found = find_folds(folder, None, is_fold)
    except InputError:
        wanted = "name a fold, or the folder of one database's folds, such as pretrained_model/sleepedfx"
        raise InputError(
            f"--init {folder} holds no trained RecSleepNet, or those of several databases: {wanted}."
        ) from None
    found.say_unfinished()
    unnamed = [path for path in found.folders if found.db is None and not (path / METADATA).is_file()]
    if unnamed:
        named = "move it into a folder that is called as that database"
        raise InputError(f"--init {unnamed[0]} does not say which database it was trained on: {named}.")
    return [SavedFold.of(path, found.db) for path in found.folders]


def sizes(trained: SavedFold) -> list[str]:
    """The ``name=value`` assignments by which a new network is as large as the trained one; dropout is no size."""
    arguments = read_json(trained.folder / CONFIG)["arguments"] if trained.metadata else {}
    names = [name for name in names_in(RECSLEEPNET_SECTIONS[:1]) if name in arguments and name != "dropout"]
    return [f"{name}={arguments[name]}" for name in names]
