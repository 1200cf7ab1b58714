"""The UCD Sleep Apnea Database's scoring: a code per line, and a table of breathing events by clock time."""

import re
from pathlib import Path

from data.recordings.recording import Recording
from data.scorings.scoring import N1, N2, N3, REM, Event, Scoring, W, from_codes, read_text
from data.terms import EVENTS, UNSCORED, InputError

LABELS = {"0": W, "1": REM, "2": N1, "3": N2, "4": N3, "5": N3, "6": UNSCORED, "7": UNSCORED, "8": UNSCORED}
TYPES = {"APNEA-O": EVENTS[0], "APNEA-C": EVENTS[1], "APNEA-M": EVENTS[2]}
"""Types of apneas; types that begin with HYP are hypopneas. Periodic breathing and possible events are ignored."""

ROW = re.compile(r"\s*(\d{1,2}):(\d\d):(\d\d)\s+(\S+)(.*)")
DAY = 24 * 3600


def read_scoring(files: dict[str, Path], recording: Recording) -> Scoring:
    """Stages, and breathing events if their table is there; InputError if a line of either cannot be understood."""
    stages = from_codes(files["stages"], read_text(files["stages"]).split(), LABELS)
    if "events" not in files:
        return Scoring(stages, notes=("no table of breathing events",))
    path = files["events"]
    if recording.start is None:
        raise InputError(
            f"{path} gives clock times, but {recording.path} does not say when it starts: remove that table of events."
        )
    begin = recording.start.hour * 3600 + recording.start.minute * 60 + recording.start.second
    text = read_text(path)
    rows = [match for line in text.splitlines() if (match := ROW.match(line))]
    if not rows and "Type" not in text:
        raise InputError(f"{path} holds no table of breathing events: remove this file, or replace it.")
    events, lost = [], 0
    for row in rows:
        hour, minute, second, kind, rest = row.groups()
        name = "Hypopnea" if kind.upper().startswith("HYP") else TYPES.get(kind.upper())
        if name is None:
            continue
        # The column before the duration is often empty.
        duration = next((float(word) for word in rest.split() if re.fullmatch(r"\d{1,4}(\.\d+)?", word)), None)
        if duration is None:
            lost += 1
            continue
        start = (int(hour) * 3600 + int(minute) * 60 + int(second) - begin) % DAY
        if start > DAY / 2:
            # The event began just before the recording, and may reach into it.
            start -= DAY
        if start > recording.seconds or start + duration < 0:
            lasts = f"starts at {recording.start:%H:%M:%S} and lasts {recording.seconds / 3600:.1f} h"
            at = f"{hour}:{minute}:{second}"
            raise InputError(
                f"{path}: the {name} at {at} is outside the recording, which {lasts}: check that they belong together."
            )
        events.append(Event(name, float(start), duration))
    notes = (f"{lost} breathing events without a duration left out",) if lost else ()
    return Scoring(stages, 0.0, tuple(events), EVENTS[:4], notes)
