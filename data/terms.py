"""The words that every part of the toolkit shares: stages, breathing events, tasks, the epoch, and a user's mistake."""

import re
from pathlib import Path

VERSION = "2.0.0"
"""The version of this toolkit."""

STAGES = ("W", "N1", "N2", "N3", "REM")
"""The five AASM stages; a night's labels are positions in this tuple."""

UNSCORED = -1
"""The label of an epoch without a stage."""

EVENTS = ("Obstructive Apnea", "Central Apnea", "Mixed Apnea", "Hypopnea", "SpO2 Desaturation")
"""Breathing events of multi-channel nights, 0 or 1 for each epoch."""

MODALITIES = ("eeg", "eog", "emg", "ecg", "airflow")
"""The kinds of signal that a model may take, in the order in which SynthSleepNet takes them."""


def modality_of(stream: str) -> str:
    """The modality of a stream of signals: ``eeg`` for both the first channel's stream, ``eeg``, and ``eeg2``."""
    return stream.rstrip("0123456789")


TASKS = {"sleep_stage": (), "apnea": EVENTS[:3], "hypopnea": EVENTS[3:4]}
"""What a model may predict for each epoch, and the breathing events that belong to it."""

EPOCH_SECONDS = 30
SAMPLING_RATE = 100
"""Sampling rate of every night file, in Hz."""
EPOCH_SAMPLES = EPOCH_SECONDS * SAMPLING_RATE
WAKE_MINUTES = 30
"""Default for the minutes of wake before the first and after the last epoch of sleep that preparation keeps, and for
those that have labels in nights that were kept whole."""


UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Characters that break a line, or that a terminal takes for commands."""

LONGEST_SENTENCE = 2500
"""The most characters that a sentence may have, however long the names in it are."""


class InputError(ValueError):
    """A user's mistake, told in one sentence: what is wrong, where, and what to do.

    Names in files may hold control characters, which would break the sentence into lines: they become spaces. Such
    names may also be of any length: if they make the sentence too long, its middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        told = UNPRINTABLE.sub(" ", sentence)
        super().__init__(told if len(told) <= LONGEST_SENTENCE else f"{told[:1500]} ... {told[-500:]}")


FAILURES = (InputError, OSError, MemoryError)
"""The errors that are expected in the work on one recording, such as of a bad file or a full disk."""


def failure(error: Exception, path: Path) -> str:
    """What ended the work on ``path``, in one sentence, which names the kind of an error that was not expected."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}."
    if isinstance(error, MemoryError):
        return f"{path} does not fit into memory: close other programs, or use a machine with more memory."
    if isinstance(error, InputError):
        return str(error)
    return f"{path}: an unexpected error happened, {type(error).__name__} ({in_one_line(error)})."


def whole_epochs(seconds: float) -> int:
    """The number of whole epochs in ``seconds``, which may be off by rounding."""
    return int(seconds / EPOCH_SECONDS + 1e-6)


def in_one_line(error: BaseException) -> str:
    """The message of another library's error, or else its kind, short enough to be part of a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__
