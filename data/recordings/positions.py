"""The positions in which a sleeper lay, where annotations tell them by their usual names.

Channels of positions are not read: each recorder has its own numbers for them, and recordings do not say which.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from data.terms import EPOCH_SECONDS

POSITIONS = ("supine", "prone", "left", "right", "upright")
SPELLINGS = {name: name for name in POSITIONS} | {"back": "supine", "front": "prone"}

_TOLD = re.compile(rf"(?:(?:body)?position)?({'|'.join(SPELLINGS)})(?:side)?")


def letters(text: str) -> str:
    """The letters a to z of a label alone, small, for programs count and punctuate labels each in its own way.

    >>> letters("Position - Supine - 1")
    'positionsupine'
    """
    return re.sub(r"[^a-z]", "", text.casefold())


def noted(entries: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Of ``entries`` of an onset in s and a text, those that tell a position: onset and name in :data:`POSITIONS`."""
    found = ((onset, _TOLD.fullmatch(letters(text))) for onset, text in entries)
    return tuple((onset, SPELLINGS[match[1]]) for onset, match in found if match)


def of_epochs(told: Sequence[tuple[float, str]], epochs: int) -> np.ndarray | None:
    """The position str (epochs,) at each epoch's middle, "" before the first; None where :func:`noted` gave none.

    A position lasts until the next one is told.
    """
    if not told:
        return None
    onsets, names = zip(*sorted(told), strict=True)
    last = np.searchsorted(onsets, EPOCH_SECONDS * (np.arange(epochs) + 0.5), side="right") - 1
    return np.where(last < 0, "", np.array(names)[last])
