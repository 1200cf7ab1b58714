"""Show what a recording holds and what preparation would use, without writing anything."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.databases import ChannelSpec, Database
from data.prepare.batch import COUNTED
from data.prepare.conversion import chosen_epochs
from data.prepare.sources import Source
from data.recordings.edf import said
from data.recordings.recording import open_recording
from data.scorings import read_scoring
from data.terms import EPOCH_SECONDS, InputError, failure

if TYPE_CHECKING:
    from config import PreparationConfig


def listing(
    source: Source, database: Database, channels: Sequence[ChannelSpec], config: "PreparationConfig"
) -> tuple[str, bool]:
    """What a recording holds, and whether it can be prepared, as far as that is seen without its signals.

    Returns:
        A text with length, start, channels with rate and unit, and scoring, in which ``->`` marks channels that would
        be used; and whether nothing is missing or wrong.
    """
    usable = False
    lines = [f"{source.recording} -> night {source.night}"]
    try:
        with open_recording(source.recording) as recording:
            start = f", starts at {said(recording.start)}" if recording.start else ""
            lines.append(f"  {recording.seconds / 3600:.2f} h ({recording.seconds / EPOCH_SECONDS:.5g} epochs){start}")
            found = {channel.name: channel.find(recording.channels) for channel in channels}
            used = {recorded: name for name, recorded in found.items()}
            for name in recording.channels:
                if recording.channels.count(name) > 1:
                    lines.append(f"  {name:<20}{'is there more than once':>30}")
                    continue
                try:
                    header = recording.channel(name)
                except InputError as error:
                    lines.append(f"  {name:<20} {error}")
                    continue
                unit = header.unit or "as stored"
                mark = f"-> {used[name]}" if name in used else ""
                lines.append(f"  {name:<20}{header.rate:>8g} Hz  {unit:<10}{mark}".rstrip())
            missing = [name for name, recorded in found.items() if recorded is None]
            if missing:
                lines.append(f"  MISSING: {', '.join(missing)}")
            if source.problem:
                raise InputError(source.problem)
            scoring = read_scoring(database, source.scoring, recording)
            shown = ", ".join(f"{name} {np.sum(scoring.stages == label)}" for label, name in COUNTED.items())
            files = ", ".join(path.name for path in source.scoring.values())
            lines.append(f"  scoring {files}: {len(scoring.stages)} epochs; {shown}")
            if scoring.event_names:
                counts = Counter(event.name for event in scoring.events)
                lines.append(f"  events: {', '.join(f'{name} {counts[name]}' for name in scoring.event_names)}")
            chosen_epochs(source, recording, scoring, database, config, [])
            # An InputError if one is there more than once.
            for recorded in filter(None, found.values()):
                recording.channel(recorded)
            usable = not missing
    except Exception as error:
        lines.append(f"  CANNOT BE USED: {failure(error, source.recording)}")
    return "\n".join(lines), usable
