"""What a scorer corrected on the page of a night, read from the table that the page exports."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from data.scorings.scoring import read_text
from data.terms import InputError, in_one_line
from evaluation.hypnogram import NAMES, Hypnogram, numbers

COLUMNS = ("epoch", "stage", "model_stage", "probability", "corrected")
"""Of the table, a row for every epoch; ``who`` and ``when`` follow, and are empty where nothing was corrected."""


def corrected(night: Hypnogram, path: Path) -> Hypnogram:
    """``night`` with the stages of the corrections at ``path``, local or remote.

    The models' own stay in ``model_stages``, and who corrected is in ``about``.

    Raises:
        InputError: the file is absent, no such table, or of another night or of other models.
    """
    text = read_text(path)
    try:
        # No name may turn into a number, or into nothing.
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
        lacking = [name for name in COLUMNS if name not in table]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]}")
        stages, found = numbers(table["stage"]), numbers(table["model_stage"])
        epochs = table["epoch"].astype(int).to_numpy()
    except (ValueError, KeyError, OverflowError) as error:
        one_of = f"columns {', '.join(COLUMNS)}, stages {', '.join(NAMES)}"
        raise InputError(f"{path} is no table of corrections ({in_one_line(error)}): {one_of} are wanted.") from None
    model = night.stages if night.model_stages is None else night.model_stages
    if not np.array_equal(epochs, np.arange(len(model))):
        raise InputError(f"{path} does not list the {len(model)} epochs of {night.name}, each once, from 0 on.")
    other = np.flatnonzero(found != model)
    if len(other):
        epoch = other[0]
        told = f"model_stage of epoch {epoch} is {NAMES[found[epoch]]}, here the models find {NAMES[model[epoch]]}"
        raise InputError(f"{path} corrects another night, or what other models found: its {told}.")
    changed = table[stages != model].reindex(columns=["who", "when"], fill_value="")
    each = [[int(epoch), *row] for epoch, *row in changed.itertuples()]
    who = sorted(set(changed["who"]) - {""})
    about = {**night.about, "corrections": {"epochs": len(each), "who": who, "each": each}}
    return replace(night, stages=stages, model_stages=model, about=about)
