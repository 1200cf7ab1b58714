"""Read a scorer's corrections from the table that the page of a night exports."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from data.scorings.scoring import read_text
from data.terms import InputError, in_one_line
from evaluation.hypnogram import NAMES, Hypnogram, numbers

COLUMNS = ("epoch", "stage", "model_stage", "probability", "corrected")
"""Columns of the table, which has a row for every epoch; ``who`` and ``when`` follow, empty without a correction."""


def corrected(night: Hypnogram, path: Path) -> Hypnogram:
    """``night`` with the stages of the corrections at ``path``, local or remote.

    The models' own stages stay in ``model_stages``; ``about`` says who corrected what.

    Raises:
        InputError: the file is absent, is not such a table, or is of another night or other models.
    """
    text = read_text(path)
    try:
        # All values stay texts: a name must not become a number or a missing value.
        table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
        lacking = [name for name in COLUMNS if name not in table]
        if lacking:
            raise ValueError(f"it has no column {lacking[0]}")
        stages, found = numbers(table["stage"]), numbers(table["model_stage"])
        epochs = table["epoch"].astype(int).to_numpy()
    except (ValueError, KeyError, OverflowError) as error:
        needed = f"the columns {', '.join(COLUMNS)} and the stages {', '.join(NAMES)}"
        raise InputError(f"{path} is not a table of corrections ({in_one_line(error)}): it needs {needed}.") from None
    model = night.stages if night.model_stages is None else night.model_stages
    if not np.array_equal(epochs, np.arange(len(model))):
        raise InputError(
            f"{path} does not list each of the {len(model)} epochs of {night.name} once, counted from 0: export it "
            "again."
        )
    other = np.flatnonzero(found != model)
    if len(other):
        epoch = other[0]
        told = (
            f"its model_stage of epoch {epoch} is {NAMES[found[epoch]]}, but the models find {NAMES[model[epoch]]} now"
        )
        raise InputError(f"{path} is of another night or other models: {told}; name the right file.")
    changed = table[stages != model].reindex(columns=["who", "when"], fill_value="")
    each = [[int(epoch), *row] for epoch, *row in changed.itertuples()]
    who = sorted(set(changed["who"]) - {""})
    about = {**night.about, "corrections": {"epochs": len(each), "who": who, "each": each}}
    return replace(night, stages=stages, model_stages=model, about=about)
