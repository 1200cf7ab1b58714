"""Write a staged night in the forms in which scorings are exchanged: BIDS events and the NSRR's XML.

BIDS has no rule for sleep stages yet. It has rules for the file ``*_events.tsv``, whose first columns are ``onset`` and
``duration`` in seconds; for ``n/a``, which stands for unknown values; for the JSON file of the same name, which
explains the other columns; and for ``desc-`` in the name, which tells a derivative from the recording's own events. It
has no rules for the names and values of the other columns. They are taken from the proposed example
(bids-standard/bids-examples, pull request 560, on the discussion bids-specification 2138), with a row for each epoch
and annotator. Names of stages from the HED vocabulary are left out, because the data set must declare its version.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from data.terms import EPOCH_SECONDS, UNSCORED, VERSION
from data.writing import write_json, written_aside

if TYPE_CHECKING:
    from evaluation.hypnogram import Hypnogram

BIDS_STAGES = {
    "wake": "Wake",
    "n1": "Non-REM sleep, stage N1",
    "n2": "Non-REM sleep, stage N2",
    "n3": "Non-REM sleep, stage N3",
    "rem": "Rapid eye movement sleep",
}
BIDS_METHODS = {"automated": "By software.", "corrected": "By software, with corrections by a scorer."}

BIDS_COLUMNS = {
    "onset": {"Description": "Start of the epoch, counted from the recording's first sample.", "Units": "s"},
    "duration": {"Description": "Length of the epoch.", "Units": "s"},
    "annotation_type": {
        "Description": "Whether the epoch has a stage.",
        "Levels": {"sleep_stage": "It has a stage.", "unscored": "It holds too little signal to be staged."},
    },
    "sleep_stage": {"Description": "Stage of sleep by the AASM's rules.", "Levels": BIDS_STAGES},
    "annotation_method": {"Description": "How the stage was found.", "Levels": BIDS_METHODS},
    "annotator_id": {"Description": "The software and its version."},
    "confidence": {"Description": "Probability of the stage, as the software gives it, from 0 to 1."},
}

NSRR_STAGES = ("Wake|0", "Stage 1 sleep|1", "Stage 2 sleep|2", "Stage 3 sleep|3", "REM sleep|5", "Unscored|9")
"""The concepts of the stages by number; the last one is that of -1, unscored."""


def bids_name(recording: str) -> str:
    """The name without ending of the events of a recording: it keeps the BIDS entities of the recording's name.

    >>> bids_name("sub-01_task-sleep_eeg")
    'sub-01_task-sleep_desc-recsleep_events'
    """
    return f"{re.sub('_eeg$', '', recording)}_desc-recsleep_events"


def save_bids(night: "Hypnogram", folder: Path) -> None:
    """Write a night's stages as BIDS events into ``folder``, local or remote: a table and the JSON that explains it."""
    scored = night.stages != UNSCORED
    names = np.array([*BIDS_STAGES, "n/a"])
    table = pd.DataFrame({"onset": np.arange(len(scored)) * EPOCH_SECONDS, "duration": EPOCH_SECONDS})
    table["annotation_type"] = np.where(scored, "sleep_stage", "unscored")
    table["sleep_stage"] = names[night.stages]
    model = night.stages if night.model_stages is None else night.model_stages
    table["annotation_method"] = list(BIDS_METHODS)[night.model_stages is not None]
    table["annotator_id"] = f"recsleep_{VERSION}".replace(".", "_")
    table["confidence"] = np.where(scored & (model == night.stages), night.confidence, np.nan)
    with written_aside(folder / f"{bids_name(night.name)}.tsv") as aside:
        table.to_csv(aside, sep="\t", index=False, na_rep="n/a", float_format="%.4f", lineterminator="\n")
    write_json(folder / f"{bids_name(night.name)}.json", BIDS_COLUMNS)


def save_nsrr(night: "Hypnogram", path: Path) -> None:
    """Write a night's stages as a ``PSGAnnotation``, the XML of the NSRR (Zhang et al., JAMIA 25, 2018)."""
    root = ElementTree.Element("PSGAnnotation")
    _add(root, SoftwareVersion=f"recsleep {VERSION}", EpochLength=EPOCH_SECONDS)
    events = ElementTree.SubElement(root, "ScoredEvents")
    whole: dict[str, object] = {"Start": 0.0, "Duration": float(len(night.stages) * EPOCH_SECONDS)}
    clock = {"ClockTime": f"{night.start:%d.%m.%y %H.%M.%S}"} if night.start else {}
    _add(ElementTree.SubElement(events, "ScoredEvent"), EventConcept="Recording Start Time", **whole, **clock)
    for first, end, stage in night.bouts():
        span = {"Start": float(first * EPOCH_SECONDS), "Duration": float((end - first) * EPOCH_SECONDS)}
        concept = {"EventType": "Stages|Stages", "EventConcept": NSRR_STAGES[stage]}
        _add(ElementTree.SubElement(events, "ScoredEvent"), **concept, **span)
    ElementTree.indent(root)
    with written_aside(path) as aside:
        ElementTree.ElementTree(root).write(aside, encoding="utf-8", xml_declaration=True)


def _add(parent: ElementTree.Element, **values: object) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)
