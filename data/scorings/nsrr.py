"""The National Sleep Research Resource's scorings, in its two XML forms (Zhang et al., JAMIA 25, 2018)."""

import math
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from data.recordings.positions import noted
from data.recordings.recording import Recording
from data.scorings.scoring import N1, N2, N3, REM, Event, Scoring, W, from_codes, from_intervals
from data.store import content
from data.terms import EPOCH_SECONDS, EVENTS, UNSCORED, InputError

LABELS = {"0": W, "1": N1, "2": N2, "3": N3, "4": N3, "5": REM, "6": UNSCORED, "9": UNSCORED}
"""Stages by the numbers that both forms write; 6 is movement, 9 unscored."""

STAGE_CONCEPTS = {"SDO:WakeState": W, "SDO:RapidEyeMovementSleep": REM}
STAGE_CONCEPTS |= {f"SDO:NonRapidEyeMovementSleep-N{n}": stage for n, stage in ((1, N1), (2, N2), (3, N3), (4, N3))}

EVENT_CONCEPTS = {name.casefold(): name for name in EVENTS}
EVENT_CONCEPTS |= {f"sdo:{name.replace(' ', '').casefold()}finding": name for name in EVENTS[:4]}
EVENT_CONCEPTS["sdo:hemoglobinoxygendesaturationfinding"] = EVENTS[4]


def read_scoring(files: dict[str, Path], recording: Recording | None = None) -> Scoring:  # noqa: ARG001
    """Stages and events of an XML file, a ``PSGAnnotation`` or a ``CMPStudyConfig``; InputError if it is neither."""
    path = files["stages"]
    root = _parse(path)
    if root.tag not in ("PSGAnnotation", "CMPStudyConfig"):
        raise InputError(
            f"{path} is XML of the kind {str(root.tag)[:40]}, but must be PSGAnnotation or CMPStudyConfig: name "
            "another file."
        )
    length = root.findtext("EpochLength")
    if length is not None and _number(path, length, "EpochLength") != EPOCH_SECONDS:
        raise InputError(
            f"{path} is scored in epochs of {length.strip()[:20]} s, but {EPOCH_SECONDS} s are needed: leave it out."
        )
    of_concept = "EventConcept" if root.tag == "PSGAnnotation" else "Name"
    intervals, events, positions = [], [], []
    for entry in root.findall("ScoredEvents/ScoredEvent"):
        concept = (entry.findtext(of_concept) or "").strip()
        # A CMPStudyConfig has its stages in a list of their own.
        known = root.tag == "PSGAnnotation"
        stage = _stage(path, concept, entry.findtext("EventType") or "") if known else None
        called = concept.partition("|")[0].strip()
        name = EVENT_CONCEPTS.get(called.casefold())
        if stage is not None:
            intervals.append((*_span(path, entry, concept), stage))
        elif name:
            events.append(Event(name, *_span(path, entry, name)))
        elif noted([(0.0, called)]):
            positions.append((_number(path, entry.findtext("Start"), f"Start of {called}"), called))
    if root.tag == "PSGAnnotation":
        stages, start = from_intervals(path, intervals)
    else:
        codes = [(stage.text or "").strip() for stage in root.findall("SleepStages/SleepStage")]
        stages, start = from_codes(path, codes, LABELS), 0.0
    return Scoring(stages, start, tuple(events), EVENTS, positions=noted(positions))


def _parse(path: Path) -> Any:
    try:
        return defusedxml.ElementTree.fromstring(content(path))
    except InputError:
        raise
    except DefusedXmlException:
        raise InputError(f"{path} declares XML entities, which are refused for safety: remove them.") from None
    except (SyntaxError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"{path} is not valid XML ({str(error)[:100]}): download it again.") from None


def _stage(path: Path, concept: str, kind: str) -> int | None:
    """The stage that a concept names, or None if it names something else."""
    if concept in STAGE_CONCEPTS:
        return STAGE_CONCEPTS[concept]
    if not kind.startswith("Stages"):
        return None
    code = concept.rpartition("|")[2].strip()
    if code not in LABELS:
        raise InputError(f"{path}: {concept[:60]!r} is not a known sleep stage: correct it there.")
    return LABELS[code]


def _span(path: Path, entry: Any, what: str) -> tuple[float, float]:
    """Start and duration in seconds."""
    start, duration = (_number(path, entry.findtext(tag), f"{tag} of {what}") for tag in ("Start", "Duration"))
    if duration < 0:
        raise InputError(
            f"{path}: the Duration of {what} is {duration:g} s, but must not be negative: correct it there."
        )
    return start, duration


def _number(path: Path, text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e7:
        raise InputError(
            f"{path}: the {what[:60]} is {(text or '').strip()[:40]!r}, not a number of seconds: correct it there."
        )
    return value
