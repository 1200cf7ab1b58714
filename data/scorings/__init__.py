"""Readers of scorings: one for each form, and the one for a database's own form."""

from pathlib import Path

from data.databases import Database
from data.recordings.recording import Recording
from data.scorings import any_form, isruc, nsrr, sleepedf, table, ucddb
from data.scorings.scoring import Scoring

FORMS = {"sleepedf": sleepedf, "isruc": isruc, "ucddb": ucddb, "nsrr": nsrr, "table": table}


def read_scoring(database: Database, files: dict[str, Path], recording: Recording) -> Scoring:
    """The scoring of ``recording`` in ``files``, by part; InputError if they are not in the database's form."""
    if database.rules.get("form") == any_form.ANY:
        # Of events each file there has its own kinds, and the nights of a database must have the same.
        return Scoring(any_form.read_scoring(files["stages"], recording, database.rules).stages)
    return FORMS[database.form].read_scoring(files, recording, **database.rules)
