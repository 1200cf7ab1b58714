"""A saved model: a folder with ``config.json`` (how it is built), ``model.weights.h5`` and ``metadata.json``.

The model is built from its arguments and only numbers are loaded: nothing in the folder is executed. ``metadata.json``
(versions, split, seed, scores, hashes of the other two) is written last: a folder that holds it is complete. Here such
folders are found and what they say is read; :mod:`runs.networks` saves and loads the networks themselves.
"""

import hashlib
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data.databases import ALIASES, DATABASES, database
from data.recipe import Recipe
from data.store import read_json
from data.terms import VERSION, InputError

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
HOW_TO_GET_MODELS = {
    "recsleepnet": "fetch RecSleepNet's published ones with `make weights` or `python -m recsleep.weights [DB]`, or "
    "name another folder with --dir, and with --model whose it is",
    "synthsleepnet": "fine-tune some with `python trainer.py --model synthsleepnet`, or name the folder of others",
    "neuronet": "fine-tune some with `python trainer.py --model neuronet`, or name the folder of others",
}
"""By the model's name, as in ``trainer.py --model``."""
PROGRESS = "progress"
"""Folder, in that of the results, of a training that has not finished."""


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the model in ``folder``; InputError if a file is missing or not the one that they describe."""
    metadata = read_json(folder / METADATA)
    try:
        hashes = {name: metadata["sha256"][name] for name in (CONFIG, WEIGHTS)}
    except (KeyError, TypeError, IndexError):
        raise InputError(
            f"{folder / METADATA} does not describe a trained model: train it again in another folder."
        ) from None
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist: the model is incomplete; train it again.")
        if sha256(folder / name) != expected:
            raise InputError(f"{folder / name} is not the file that {METADATA} describes: it is damaged or exchanged.")
    return metadata


def read_recipe(folder: Path, metadata: dict[str, Any]) -> Recipe:
    """The recipe of the model in ``folder``, which has these metadata; InputError if they hold none."""
    try:
        return Recipe.of_metadata(metadata)
    except InputError as error:
        raise InputError(f"{folder / METADATA}: {error}") from None


PACKAGES = ("keras", "mne", "numpy", "onnxruntime", "scipy")
"""The libraries that results depend on."""


def versions() -> dict[str, str]:
    """The versions of the toolkit, of Python and of the libraries that computed a result."""
    return {"recsleep": VERSION, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Folds:
    """The folds found in a folder.

    Attributes:
        root: the folder that holds them, or the only fold's own.
        folders: the folder of each, in the order of their numbers.
        db: the database that the folders' names say, if any.
        unfinished: the numbers of folds in ``root`` that hold no finished model.
    """

    root: Path
    folders: tuple[Path, ...]
    db: str | None
    unfinished: tuple[int, ...] = ()

    def say_unfinished(self) -> None:
        """Print which folds are left out, if any."""
        if self.unfinished:
            numbers = ", ".join(map(str, self.unfinished))
            print(f"{self.root}: fold {numbers} holds no finished model, and is left out.")

    def require_one_database(self, trained_on: Iterable[str | None], wanted: str | None) -> None:
        """Raise InputError if the models were ``trained_on`` several databases, or on another than is ``wanted``."""
        found = sorted({str(db) for db in trained_on})
        if len(found) > 1:
            raise InputError(f"{self.root} holds models of {' and '.join(found)}: name the folder of one.")
        if wanted is not None and database(wanted).db != found[0]:
            raise InputError(f"{self.root} was trained on {found[0]}, not {wanted}: choose with --db.")


def require_unseen(folder: Path, metadata: Mapping[str, Any], db: str, tested: Collection[str]) -> None:
    """Refuse to begin a fold with a network that was trained on nights that the fold tests, or may have been.

    Args:
        folder: of the network, for the message.
        metadata: what it says of its training: its database ``db``, and the ``nights``, of which a published checkpoint
            says nothing.
        db: the database of the fold. Those whose nights are called alike may share some, as the two Sleep-EDF do.
        tested: names of the fold's test nights.

    Raises:
        InputError: the network saw one of them, or nobody knows what it saw.
    """
    if database(metadata["db"]).night_patterns != database(db).night_patterns:
        return
    nights = metadata.get("nights")
    if nights is None:
        unknown = f"--init: {folder} was trained on {metadata['db']}, and does not say on which nights"
        raise InputError(f"{unknown}: begin with a model of another database.")
    # Pretraining keeps the training nights alone.
    held = [*nights["train"], *nights["validation"]] if isinstance(nights, dict) else nights
    seen = sorted(set(held) & set(tested))
    if seen:
        which = f"--init: {folder} was trained on {seen[0]}, which this fold tests"
        raise InputError(f"{which}: begin with a model that saw none of the test nights.")


NAMES = (*DATABASES, *ALIASES)
"""What the folder of a database's folds may be called."""


def databases_in(folder: Path) -> list[str]:
    """The databases whose names folders in ``folder`` bear."""
    return list(dict.fromkeys(database(name).db for name in NAMES if (folder / name).is_dir()))


def require_models(folder: Path, model: str) -> None:
    """Raise InputError, which says how to get a ``model``, if there is no such ``folder``."""
    if not folder.is_dir():
        raise InputError(f"the folder of models {folder} does not exist: {HOW_TO_GET_MODELS[model]}.")


def find_folds(folder: Path, db: str | None, is_fold: Callable[[Path], bool], model: str = "recsleepnet") -> Folds:
    """The folds in ``folder``: itself, its numbered folders, or those of its folder that bears a database's name.

    Args:
        folder: one fold, or a folder of folds by number, or one that holds that folder under a database's name.
        db: the database that is wanted; None for the only one there is.
        is_fold: whether a folder is a fold of the model that is wanted.
        model: its name, as in ``trainer.py --model``.

    Raises:
        InputError: there is no fold, or folds of several databases.
    """
    require_models(folder, model)
    named = next((part for part in reversed(folder.absolute().parts[-2:]) if part in NAMES), db)
    known = named and database(named).db
    if is_fold(folder):
        return Folds(folder, (folder,), known)
    numbered = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    folds = tuple(path for path in numbered if is_fold(path))
    if folds:
        return Folds(folder, folds, known, tuple(int(path.name) for path in numbered if path not in folds))
    held = [name for name in NAMES if (folder / name).is_dir()]
    chosen = [name for name in held if db is None or database(name) == database(db)]
    if len(chosen) != 1:
        if len(chosen) > 1 or (held and db is None):
            raise InputError(f"{folder} holds models of {', '.join(held)}: choose one with --db.")
        of = f" of {db}, but of {', '.join(held)}" if held else ""
        raise InputError(f"{folder} holds no trained model{of}: {HOW_TO_GET_MODELS[model]}.")
    return find_folds(folder / chosen[0], chosen[0], is_fold, model)
