"""What a killed training continues from: the state after its newest finished unit of work, in a folder of its own."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf

from data.store import new_folder, remove_unfinished, written_aside
from data.terms import InputError

PROGRESS = "progress"
"""Folder, in that of the results, of a training that has not finished."""


def keep(folder: Path, number: int, fill: Callable[[Path], None]) -> None:
    """Keep the state after unit ``number``, as ``fill`` writes it: it appears whole; only then the one before goes."""
    new_folder(folder / PROGRESS / f"{number}", fill)
    for kept in (folder / PROGRESS).iterdir():
        if kept.name != f"{number}":
            shutil.rmtree(kept, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The newest state kept in ``folder``; its name is the unit's number. What a kill left half written is removed."""
    remove_unfinished(folder)
    kept = [path for path in (folder / PROGRESS).glob("*") if path.name.isdecimal() and path.is_dir()]
    return max(kept, key=lambda path: int(path.name), default=None)


@contextmanager
def restoring(kept: Path) -> Iterator[None]:
    """Turn what damaged files cause into one sentence.

    Raises:
        InputError: the state in ``kept`` is damaged.
    """
    try:
        yield
    except InputError:
        raise
    # Keras, h5py and NumPy meet damaged files with almost any exception.
    except Exception as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{kept} is damaged ({reason}): remove {kept.parent} to train this fold from its start."
        ) from None


def log(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write ``log.csv``, a row for each unit of ``history``, and the newest unit's numbers for TensorBoard."""
    with written_aside(folder / "log.csv") as aside:
        pd.DataFrame(history).to_csv(aside, index=False)
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default(step=len(history)):
        for name, value in history[-1].items():
            if isinstance(value, float):
                tf.summary.scalar(name, value)
    writer.close()


def finish(folder: Path) -> None:
    """Remove the state: the results are complete."""
    shutil.rmtree(folder / PROGRESS, ignore_errors=True)


def require_same_run(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to mix two runs in one folder, naming the first value that differs."""
    flat_before, flat_now = (pd.json_normalize(run).iloc[0].to_dict() for run in (before, now))
    for name in sorted(flat_before.keys() | flat_now.keys()):
        if flat_before.get(name) != flat_now.get(name):
            raise InputError(
                f"{folder} was trained with {name.rpartition('.')[2]} {flat_before.get(name)}, "
                f"not {flat_now.get(name)}: use --suffix or --out for the new run, or remove that folder."
            )


def json_values(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))
