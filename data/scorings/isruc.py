"""ISRUC-Sleep's scoring: a code per line (Khalighi et al., Comput. Methods Programs Biomed. 124, 2016)."""

from pathlib import Path

from data.recordings.recording import Recording
from data.scorings.scoring import N1, N2, N3, REM, Scoring, W, from_codes, read_text

LABELS = {"0": W, "1": N1, "2": N2, "3": N3, "5": REM}


def read_scoring(files: dict[str, Path], recording: Recording) -> Scoring:  # noqa: ARG001
    """The stages of the first scorer; InputError if a line is not one of the codes."""
    return Scoring(from_codes(files["stages"], read_text(files["stages"]).split(), LABELS))
