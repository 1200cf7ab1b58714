"""When the lights of a recording went off and on: as the user says, or else as its annotations say."""

import re
from datetime import datetime

from data.recordings.channels import NightRecording
from data.recordings.recording import Recording
from data.terms import EPOCH_SECONDS, InputError, whole_epochs

NOTES = {"off": re.compile(r"lights?[ _-]*(off|out)"), "on": re.compile(r"lights?[ _-]*on")}
"""The annotations that tell it, in small letters; EDF+ prescribes "Lights off" and "Lights on"."""

CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
DOTTED = re.compile(r"([01]?\d|2[0-3])\.([0-5]\d)(?:\.([0-5]\d))?")
"""A clock time as many countries write it, which could also be a number of seconds."""


def lights(recording: Recording | NightRecording, off: str = "", on: str = "") -> tuple[int, int] | None:
    """The epoch at whose start lights went off, and the one at whose start they went on; None if neither is known.

    Times are rounded to whole epochs. If only one is known, the other is the recording's beginning or end. Of the
    annotations, the first "Lights off" and the last "Lights on" count, if at least an epoch lies between them.

    Args:
        recording: an open recording.
        off: a clock time such as 22:58:30, or seconds after the first sample; "" if the user does not say.
        on: the same for lights on.

    Raises:
        InputError: a time is not valid, lies outside the recording, or is a clock time although the recording does not
            say when it begins; or no whole epoch lies between the two.
    """
    epochs = whole_epochs(recording.seconds)
    told = {"off": off, "on": on}
    given = {which: _epoch(recording, which, text) for which, text in told.items() if text}
    noted = {} if given else _noted(recording)
    if not given and not noted:
        return None
    first, end = (given or noted).get("off", 0), min((given or noted).get("on", epochs), epochs)
    if first < end:
        return first, end
    if not given:
        return None
    raise InputError(
        f"{recording.path}: no whole epoch lies between --lights-off and --lights-on: correct these times."
    )


def _noted(recording: Recording | NightRecording) -> dict[str, int]:
    found: dict[str, int] = {}
    for onset, text in sorted(recording.notes()):
        which = next((name for name, form in NOTES.items() if form.fullmatch(text.strip().casefold())), None)
        if which and 0 <= onset <= recording.seconds and not (which == "off" and "off" in found):
            found[which] = round(onset / EPOCH_SECONDS)
    return found


def _epoch(recording: Recording | NightRecording, which: str, text: str) -> int:
    """The epoch that begins nearest to a time that the user gave."""
    option, clock = f"--lights-{which} {text}", CLOCK.fullmatch(text)
    if clock:
        begin: datetime | None = recording.start
        if begin is None:
            raise InputError(f"{option}: {recording.path} does not say when it begins: give seconds from its start.")
        hour, minute, second = (int(part or 0) for part in clock.groups())
        if hour > 23 or minute > 59 or second > 59:
            raise InputError(f"{option}: this is not a time of day: give one from 00:00 to 23:59.")
        wanted = 3600 * hour + 60 * minute + second
        seconds = (wanted - (3600 * begin.hour + 60 * begin.minute + begin.second)) % 86_400.0
    elif dotted := DOTTED.fullmatch(text):
        time = ":".join(part for part in dotted.groups() if part)
        raise InputError(f"{option}: write {time} for a clock time, or a whole number of seconds from the start.")
    else:
        try:
            seconds = float(text)
        except ValueError:
            raise InputError(f"{option}: give a clock time such as 22:58, or seconds from the start.") from None
    if not 0 <= seconds <= recording.seconds:
        raise InputError(f"{option} is outside {recording.path}: give a time within its {recording.seconds:g} s.")
    return round(seconds / EPOCH_SECONDS)
