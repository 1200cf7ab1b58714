"""A saved model: a folder with ``config.json`` (how it is built), ``model.weights.h5`` and ``metadata.json``.

The model is built from its arguments and only numbers are loaded: nothing in the folder is executed. ``metadata.json``
(versions, split, seed, scores, hashes of the other two) is written last: a folder that holds it is complete. This
module finds such folders and reads their metadata; :mod:`runs.networks` saves and loads the networks themselves.
"""

import hashlib
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from data.databases import ALIASES, DATABASES, database
from data.recipe import Recipe
from data.store import read_json
from data.terms import VERSION, InputError

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
HOW_TO_GET_MODELS = {
    "recsleepnet": "fetch RecSleepNet's published models with `make weights` or `python -m recsleep.weights [DB]`, or "
    "name the folder of other models (commands take it with --dir, and their kind with --model)",
    "synthsleepnet": "fine-tune models with `python trainer.py --model synthsleepnet`, or name another folder",
    "neuronet": "fine-tune models with `python trainer.py --model neuronet`, or name another folder",
}
"""What a user without models can do, by the model's name as in ``trainer.py --model``."""
NEAR = 5
"""How many other folders of models an error names at most."""
PROGRESS = "progress"
"""The folder, inside that of the results, for the state of a training that has not finished."""


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the model in ``folder``; InputError if a file is missing, or is not the one they describe."""
    metadata = read_json(folder / METADATA)
    try:
        hashes = {name: metadata["sha256"][name] for name in (CONFIG, WEIGHTS)}
    except (KeyError, TypeError, IndexError):
        raise InputError(
            f"{folder / METADATA} does not describe a trained model: train it again in another folder."
        ) from None
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} does not exist, so the model is incomplete: train it again.")
        if sha256(folder / name) != expected:
            raise InputError(
                f"{folder / name} is not the file that {METADATA} describes, so it was damaged or replaced: restore "
                "it, or train the model again."
            )
    return metadata


def read_recipe(folder: Path, metadata: dict[str, Any]) -> Recipe:
    """The recipe of the model in ``folder``, from its ``metadata``; InputError if they hold none."""
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
        root: the folder that holds the folds, or the folder of the only fold.
        folders: the folder of each fold, in the order of their numbers.
        db: the database that the folders' names tell, if any.
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
            print(f"{self.root}: fold {numbers} holds no finished model and is left out.")

    def require_one_database(self, trained_on: Iterable[str | None], wanted: str | None) -> None:
        """Raise InputError if the models were ``trained_on`` several databases, or not on the ``wanted`` one."""
        found = sorted({str(db) for db in trained_on})
        if len(found) > 1:
            raise InputError(
                f"{self.root} holds models of {' and '.join(found)}: name a folder with models of only one."
            )
        if wanted is not None and database(wanted).db != found[0]:
            raise InputError(
                f"{self.root} was trained on {found[0]}, not on {wanted}: give --db {found[0]}, or another folder."
            )


def require_unseen(folder: Path, metadata: Mapping[str, Any], db: str, fold: int, tested: Collection[str]) -> None:
    """Refuse to begin a fold with a network that was, or may have been, trained on the fold's test nights.

    Args:
        folder: the folder of the network, for the message.
        metadata: what the network says about its training: its database ``db``, and its ``nights``, which a published
            checkpoint does not say.
        db: the database of the fold. Databases with the same names of nights may share some, as the two Sleep-EDF do.
        fold: the fold's number, for the message.
        tested: the names of the fold's test nights.

    Raises:
        InputError: the network saw a test night, or it is unknown which nights it saw.
    """
    if database(metadata["db"]).night_patterns != database(db).night_patterns:
        return
    nights = metadata.get("nights")
    if nights is None:
        unknown = f"--init: {folder} was trained on {metadata['db']}, but does not say on which nights"
        raise InputError(f"{unknown}: begin with a model of another database.")
    # A pretrained model lists only its training nights.
    held = [*nights["train"], *nights["validation"]] if isinstance(nights, dict) else nights
    seen = sorted(set(held) & set(tested))
    if seen:
        which = f"--init: {folder} was trained on {seen[0]}, a test night of fold {fold}"
        raise InputError(f"{which}: begin with a model that saw none of the test nights.")


NAMES = (*DATABASES, *ALIASES)
"""The names that the folder of a database's folds may have."""


def databases_in(folder: Path) -> list[str]:
    """The databases that have a folder with their name in ``folder``."""
    return list(dict.fromkeys(database(name).db for name in NAMES if (folder / name).is_dir()))


def require_models(folder: Path, model: str, is_fold: Callable[[Path], bool]) -> None:
    """Raise InputError if ``folder`` does not exist; it says which other folders hold models, and how to get some."""
    if not folder.is_dir():
        raise InputError(f"the folder of models {folder} does not exist: {_ways(folder, model, is_fold)}.")


def _ways(folder: Path, model: str, is_fold: Callable[[Path], bool]) -> str:
    """What a user can do who named a ``folder`` without models of the kind."""
    near = " or ".join(map(str, islice(_near(folder, is_fold), NEAR)))
    return f"name {near}, where models are, or {HOW_TO_GET_MODELS[model]}" if near else HOW_TO_GET_MODELS[model]


def _near(folder: Path, is_fold: Callable[[Path], bool]) -> Iterator[Path]:
    """The folders in ``folder`` and beside it that hold models in one of the ways that :func:`find_folds` knows."""

    def parts(of: Path) -> list[Path]:
        return [path for path in of.iterdir() if path.is_dir() and (path.name.isdecimal() or path.name in NAMES)]

    for place in (folder, folder.parent):
        found: list[Path] = []
        # A folder may be closed to this user.
        with suppress(OSError):
            found = sorted(place.iterdir()) if place.is_dir() else []
        for path in found:
            with suppress(OSError):
                inside = parts(path) if path.is_dir() else []
                if any(map(is_fold, (path, *inside, *(deeper for part in inside for deeper in parts(part))))):
                    yield path


def find_folds(folder: Path, db: str | None, is_fold: Callable[[Path], bool], model: str = "recsleepnet") -> Folds:
    """The folds in ``folder``: ``folder`` itself, its numbered folders, or those in its folder named by a database.

    Args:
        folder: one fold; or a folder that holds folds by their numbers; or one that holds the latter by the name of its
            database.
        db: the wanted database; None for the only one that is there.
        is_fold: says whether a folder is a fold of the wanted model.
        model: the model's name, as in ``trainer.py --model``.

    Raises:
        InputError: there is no fold, or there are folds of several databases.
    """
    require_models(folder, model, is_fold)
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
            raise InputError(
                f"{folder} holds models of {', '.join(held)}: choose one of these databases (in commands with --db)."
            )
        if held:
            what = f"no trained model of {db}, but of {', '.join(held)}"
            raise InputError(f"{folder} holds {what}: {HOW_TO_GET_MODELS[model]}.")
        raise InputError(f"{folder} holds no trained model: {_ways(folder, model, is_fold)}.")
    return find_folds(folder / chosen[0], chosen[0], is_fold, model)
