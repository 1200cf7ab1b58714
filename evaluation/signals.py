"""The signals that the page of a night shows, packed so that a night of eight hours stays small."""

import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.terms import SAMPLING_RATE

BITS = 7_200_000 * 8
"""That all signals of a page may take together, before base64 makes them a third longer."""
FINEST = 0.5
"""µV, the smallest step that is worth showing."""
LARGEST = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Trace:
    """A channel as the page shows it: name, modality, unit ("" if unknown), and float32 (samples,) at 100 Hz."""

    name: str
    modality: str
    unit: str
    samples: np.ndarray


def packed(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """The traces as JSON values, from whose ``low`` and ``high`` a browser restores their samples.

    Samples are numbers of a ``step``, 16 bits wide, which is chosen so that all traces together take :data:`BITS` at
    most, but not below :data:`FINEST`. What is packed is the difference of each to the one before it, modulo 2¹⁶,
    folded so that small ones of either sign are small numbers (0, -1, 1, -2, … are 0, 1, 2, 3, …), and of these the low
    bytes and the high ones each by themselves, deflated: the high ones are nearly all 0, and the low ones are noise,
    for which Huffman's code alone is as good as any and ten times as fast.
    """
    return [_packed(trace, BITS / len(traces)) for trace in traces]


def _packed(trace: Trace, bits: float) -> dict[str, Any]:
    # Five samples a second tell it as well as all, in a twentieth of the time.
    low_end, middle, high_end = np.percentile(trace.samples[::20], (5, 50, 95))
    centred, span = trace.samples - middle.astype(np.float32), high_end - low_end
    # Of an unknown unit, what most of the signal spans counts as 100 µV.
    finest = FINEST if trace.unit == "µV" else (float(span) or 1.0) * FINEST / 100
    step = max(finest, float(np.abs(centred).max()) / LARGEST)
    counts = np.bincount(_folded(centred, step))
    share = counts[counts > 0] / len(centred)
    # Each doubling of the step saves about a bit a sample.
    step *= 2 ** max(0.0, float(-(share * np.log2(share)).sum()) - bits / len(centred))
    folded = _folded(centred, step)
    low, high = (folded & 255).astype(np.uint8), (folded >> 8).astype(np.uint8)
    return {
        "name": trace.name,
        "modality": trace.modality,
        "unit": trace.unit,
        "rate": SAMPLING_RATE,
        "step": step,
        "span": float(span),
        "low": _deflated(low, zlib.Z_HUFFMAN_ONLY),
        "high": _deflated(high, zlib.Z_DEFAULT_STRATEGY),
    }


def _folded(centred: np.ndarray, step: float) -> np.ndarray:
    """uint16 (samples,): the folded differences of the samples in steps."""
    steps = np.rint(centred / step).astype(np.int16)
    differences = np.diff(steps, prepend=np.int16(0))
    return ((differences << 1) ^ (differences >> 15)).view(np.uint16)


def _deflated(data: np.ndarray, strategy: int) -> str:
    packer = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return b64encode(packer.compress(data.tobytes()) + packer.flush()).decode()
