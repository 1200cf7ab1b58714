"""Find the trained networks, ours or published ones, with which a training begins (``trainer.py --init``)."""

from pathlib import Path

from data.store import read_json
from data.terms import InputError
from recsleep.predictor import SavedFold, is_fold
from runs.saved import CONFIG, METADATA, find_folds
from runs.settings import RECSLEEPNET_SECTIONS, names_in


def folds_in(folder: Path) -> list[SavedFold]:
    """The folds in ``folder``, which is one fold or holds those of one database; InputError if it is neither."""
    if not folder.is_dir():
        raise InputError(f"--init {folder} does not exist or is not a folder: name a fold, or a folder of folds.")
    try:
        found = find_folds(folder, None, is_fold)
    except InputError:
        wanted = "name a fold, or the folder of one database's folds, such as pretrained_model/sleepedfx"
        raise InputError(
            f"--init {folder} holds no trained RecSleepNet, or folds of several databases: {wanted}."
        ) from None
    found.say_unfinished()
    unnamed = [path for path in found.folders if found.db is None and not (path / METADATA).is_file()]
    if unnamed:
        named = "move it into a folder with that database's name, such as sleepedfx"
        raise InputError(f"--init {unnamed[0]} does not say which database it was trained on: {named}.")
    return [SavedFold.of(path, found.db) for path in found.folders]


def sizes(trained: SavedFold) -> list[str]:
    """The ``name=value`` assignments that make a new network as large as the trained one, which leave dropout out."""
    arguments = read_json(trained.folder / CONFIG)["arguments"] if trained.metadata else {}
    names = [name for name in names_in(RECSLEEPNET_SECTIONS[:1]) if name in arguments and name != "dropout"]
    return [f"{name}={arguments[name]}" for name in names]
