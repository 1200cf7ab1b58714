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


class InputError(ValueError):
    """A mistake in what the user gave, in one sentence: what is wrong, where, and what to do.

    Names that files bring may hold control characters, which would break the sentence into lines: they become spaces.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", sentence))


FAILURES = (InputError, OSError, MemoryError)
"""What ends the work on one recording of many, such as a bad file or a full disk, but not the work on the others."""


def failure(error: Exception, path: Path) -> str:
    """One of :data:`FAILURES`, met while ``path`` was worked on, in one sentence."""
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror}."
    return f"{path} does not fit into memory." if isinstance(error, MemoryError) else str(error)


def whole_epochs(seconds: float) -> int:
    """How many whole epochs there are in so many seconds, which may be rounded."""
    return int(seconds / EPOCH_SECONDS + 1e-6)


def in_one_line(error: Exception) -> str:
    """What another library's error says, or what kind of error it is, short enough for a sentence of ours."""
    return " ".join(str(error).split())[:200] or type(error).__name__
