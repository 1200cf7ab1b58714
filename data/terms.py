"""The words that every part of the toolkit shares: stages, breathing events, tasks, the epoch, and a user's mistake."""

import re
from pathlib import Path

VERSION = "2.0.0"
"""Of this toolkit."""

STAGES = ("W", "N1", "N2", "N3", "REM")
"""The five AASM stages; a night's labels are positions in this tuple."""

UNSCORED = -1
"""Label of an epoch without a stage."""

EVENTS = ("Obstructive Apnea", "Central Apnea", "Mixed Apnea", "Hypopnea", "SpO2 Desaturation")
"""Breathing events of multi-channel nights, 0 or 1 for each epoch."""

MODALITIES = ("eeg", "eog", "emg", "ecg", "airflow")
"""The kinds of signal that a model may take, in the order in which SynthSleepNet takes them."""


def modality_of(stream: str) -> str:
    """The modality of a stream of signals: ``eeg`` of its first channel, ``eeg``, and of its second, ``eeg2``."""
    return stream.rstrip("0123456789")


TASKS = {"sleep_stage": (), "apnea": EVENTS[:3], "hypopnea": EVENTS[3:4]}
"""What a model may predict for each epoch, and the events that count as it."""

EPOCH_SECONDS = 30
SAMPLING_RATE = 100
"""Hz, of every night file."""
EPOCH_SAMPLES = EPOCH_SECONDS * SAMPLING_RATE
WAKE_MINUTES = 30
"""Before the first and after the last epoch of sleep: how much wake preparation keeps, and how much of it has labels in
nights that were kept whole, unless other values are asked for."""


UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Characters that break a line, or command a terminal."""

LONGEST_SENTENCE = 2500
"""Characters that a sentence may have, whatever the names in it."""


class InputError(ValueError):
    """A mistake in what the user gave, in one sentence: what is wrong, where, and what to do.

    Names that files bring may hold control characters, which would break the sentence into lines: they become spaces.
    They may also be of any length: of a sentence that they make too long, the middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        told = UNPRINTABLE.sub(" ", sentence)
        super().__init__(told if len(told) <= LONGEST_SENTENCE else f"{told[:1500]} ... {told[-500:]}")


FAILURES = (InputError, OSError, MemoryError)
"""What may be expected to end the work on one recording, such as a bad file or a full disk."""


def failure(error: Exception, path: Path) -> str:
    """What ended the work on ``path``, in one sentence; an error that is none of :data:`FAILURES`, with its kind."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"{path} does not fit into memory."
    if isinstance(error, InputError):
        return str(error)
    return f"{path}: an error that nobody foresaw, {type(error).__name__} ({in_one_line(error)})."


def whole_epochs(seconds: float) -> int:
    """How many whole epochs there are in so many seconds, which may be rounded."""
    return int(seconds / EPOCH_SECONDS + 1e-6)


def in_one_line(error: BaseException) -> str:
    """What another library's error says, or what kind of error it is, short enough for a sentence of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__
