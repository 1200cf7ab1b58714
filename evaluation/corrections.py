"""Read a scorer's corrections from the table that the page of a night exports, or from one written by hand."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from data.scorings.scoring import read_text
from data.terms import InputError, in_one_line
from evaluation.hypnogram import NAMES, Hypnogram, numbers

COLUMNS = ("epoch", "stage")
"""The columns that the table must have.

The page's table has a row for every epoch, and also ``model_stage``, ``probability``, ``corrected``, and ``who`` and
``when``, which are empty without a correction. A table without ``model_stage`` may list only the corrected epochs.
"""


def corrected(night: Hypnogram, path: Path) -> Hypnogram:
    """``night`` with the stages of the corrections at ``path``, local or remote.

    The models' own stages stay in ``model_stages``; ``about`` says who corrected what. Epochs that the table does not
    list keep the models' stages.

    Raises:
        InputError: the file is absent, is not such a table, or is of another night or other models.
    """
    text = read_text(path)
    try:
        # All values stay texts: a name must not become a number or a missing value.
        table = pd.read_csv(
            StringIO(text.rstrip()), dtype=str, keep_default_na=False, skip_blank_lines=False, skipinitialspace=True
        )
    except ValueError as error:
        raise InputError(f"{path} is not a table of corrections ({in_one_line(error)}): correct it there.") from None
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise InputError(
            f"{path} is not a table of corrections, because it has no column {lacking[0]}: it needs a first line that "
            f"names {' and '.join(COLUMNS)}, separated by commas, and a line for each corrected epoch."
        )
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path} has lines with more values than its first line has names: remove what is too much.")
    model = night.stages if night.model_stages is None else night.model_stages
    epochs = _epochs(path, table["epoch"], len(model))
    stages = model.copy()
    stages[epochs] = _stages(path, table["stage"])
    if "model_stage" in table:
        if len(epochs) < len(model):
            raise InputError(
                f"{path} lists {len(epochs)} of the {len(model)} epochs of {night.name}, although a table with "
                "model_stage lists each: export it again, or leave that column out."
            )
        found = _stages(path, table["model_stage"])
        other = np.flatnonzero(found != model[epochs])
        if len(other):
            epoch, was = epochs[other[0]], NAMES[found[other[0]]]
            told = f"its model_stage of epoch {epoch} is {was}, but the models find {NAMES[model[epoch]]} now"
            raise InputError(f"{path} is of another night or other models: {told}; name the right file.")
    changed = table.set_index(epochs)[stages[epochs] != model[epochs]].sort_index()
    changed = changed.reindex(columns=["who", "when"], fill_value="")
    each = [[int(epoch), *row] for epoch, *row in changed.itertuples()]
    who = sorted(set(changed["who"]) - {""})
    about = {**night.about, "corrections": {"epochs": len(each), "who": who, "each": each}}
    return replace(night, stages=stages, model_stages=model, about=about)


def _epochs(path: Path, texts: Iterable[str], count: int) -> np.ndarray:
    """The numbers int (rows,) of the table's epochs, each of which is one of ``count`` and listed once."""
    found: list[int] = []
    for line, text in enumerate(texts, 2):
        number = int(text) if re.fullmatch(r" *\d{1,9} *", text, re.ASCII) else count
        if number >= count:
            raise InputError(
                f"{path}, line {line}: {text[:40]!r} is not an epoch of this night: write 0 to {count - 1}."
            )
        found.append(number)
    twice = next((number for number, times in Counter(found).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"{path} lists epoch {twice} more than once: keep one of these lines.")
    return np.array(found, int)


def _stages(path: Path, texts: Iterable[str]) -> np.ndarray:
    """The stages int32 (rows,) that the table names."""
    texts = list(texts)
    for line, text in enumerate(texts, 2):
        if text not in NAMES:
            known = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
            raise InputError(f"{path}, line {line}: {text[:40]!r} is not a stage: write {known}.")
    return numbers(texts)
