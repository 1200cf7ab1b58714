"""Sleep-EDF's scoring: an EDF+ file of annotations (Kemp et al., IEEE Trans. Biomed. Eng. 47, 2000)."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from data.recordings.edf import start_of
from data.recordings.recording import Recording
from data.scorings.scoring import N1, N2, N3, REM, Scoring, W, from_intervals
from data.store import on_disk
from data.terms import UNSCORED, InputError, in_one_line

if TYPE_CHECKING:
    from data.recordings.channels import NightRecording

CODES = {"W": W, "1": N1, "2": N2, "3": N3, "4": N3, "R": REM, "?": UNSCORED}
LABELS = {f"Sleep stage {code}": stage for code, stage in CODES.items()} | {"Movement time": UNSCORED}


def read_scoring(files: dict[str, Path], recording: Recording) -> Scoring:
    """The stages of a hypnogram file; InputError if it is not one."""
    path = files["hypnogram"]
    intervals = []
    for onset, duration, label in read_annotations(path, recording):
        if label not in LABELS:
            raise InputError(
                f"{path}: the annotation {label[:40]!r} at {onset:g} s is not a sleep stage: check that it is a "
                "hypnogram."
            )
        intervals.append((onset, duration, LABELS[label]))
    return Scoring(*from_intervals(path, intervals))


def read_annotations(path: Path, recording: "Recording | NightRecording") -> list[tuple[float, float, str]]:
    """(onset in s, duration in s, text) of each annotation in a file that MNE reads; InputError if there is none."""
    import mne

    try:
        # MNE tells the format by the name's ending, which must be in small letters.
        with on_disk(path, path.stem + path.suffix.lower()) as local, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            annotations = mne.read_annotations(local)
            with local.open("rb") as file:
                # MNE ignores the start in an EDF file's header.
                begin = annotations.orig_time or start_of(file.read(184))
        # Onsets count from the annotation file's own start.
        shift = (begin - recording.start).total_seconds() if begin and recording.start else 0.0
    except InputError:
        raise
    # A damaged file may raise anything.
    except Exception as error:
        raise InputError(f"{path} cannot be read as annotations ({in_one_line(error)}): check the file.") from None
    if len(annotations) == 0:
        raise InputError(f"{path} holds no annotations: name another scoring.")
    return [(float(a["onset"]) + shift, float(a["duration"]), str(a["description"]).strip()) for a in annotations]
