"""What scorers wrote down: one reader for each form, and the reader of a database's own form."""

from collections.abc import Callable
from pathlib import Path

from data.databases import Database
from data.recordings.recording import Recording
from data.scorings import isruc, nsrr, sleepedf, table, ucddb
from data.scorings.scoring import Scoring

READERS: dict[str, Callable[..., Scoring]] = {
    "sleepedf": sleepedf.read_scoring,
    "isruc": isruc.read_scoring,
    "ucddb": ucddb.read_scoring,
    "nsrr": nsrr.read_scoring,
    "table": table.read_scoring,
}


def read_scoring(database: Database, files: dict[str, Path], recording: Recording) -> Scoring:
    """The scoring of ``recording``, whose ``files`` are given by part, in the form of its database.

    Raises:
        InputError: the files are not written in that form.
    """
    return READERS[database.form](files, recording, **database.rules)
