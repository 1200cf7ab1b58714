"""The samples of EDF and BDF files against MNE's, whatever their headers say."""

import tempfile
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.recordings.recording import open_recording

VOLTS = {"uV": 1e-6, "mV": 1e-3}
"""What MNE multiplies such channels with; the numbers of all others it leaves alone."""


def limits(span: int) -> st.SearchStrategy:
    return st.lists(st.integers(-span, span), min_size=2, max_size=2, unique=True)


SIGNAL = st.fixed_dictionaries(
    {
        "unit": st.sampled_from(["uV", "mV", "nV", "V", "%", ""]),
        "physical": limits(99_999),
        "digital": limits(32_767).map(sorted),
        "samples": st.integers(1, 300),
    }
)


def write(path: Path, signals: list[dict], records: int, seconds: float) -> None:
    """A file of random bytes under a header of these signals; some samples lie beyond the digital range."""

    def fields(width: int, *values: object) -> bytes:
        return b"".join(str(value).encode().ljust(width) for value in values)

    count, bdf = len(signals), path.suffix == ".bdf"
    head = b"\xffBIOSEMI" if bdf else b"0".ljust(8)
    head += fields(80, "", "") + b"01.02.0304.05.06" + fields(8, 256 * (1 + count)) + fields(44, "")
    head += fields(8, records, seconds) + fields(4, count)
    head += fields(16, *(f"signal {number}" for number in range(count))) + bytes(80 * count).replace(b"\0", b" ")
    head += fields(8, *(signal["unit"] for signal in signals))
    head += fields(8, *(signal[kind][end] for kind in ("physical", "digital") for end in (0, 1) for signal in signals))
    head += (
        fields(80, *[""] * count) + fields(8, *(signal["samples"] for signal in signals)) + fields(32, *[""] * count)
    )
    samples = records * sum(signal["samples"] for signal in signals)
    path.write_bytes(head + np.random.default_rng(0).bytes(samples * (3 if bdf else 2)))


@pytest.mark.parametrize("form", ["edf", "bdf"])
@settings(max_examples=50, deadline=None)
@given(
    signals=st.lists(SIGNAL, min_size=1, max_size=4),
    records=st.integers(2, 40),
    seconds=st.sampled_from([1, 0.5, 2.56, 30]),
)
def test_every_sample_is_mnes(form, signals, records, seconds):
    read_raw = mne.io.read_raw_edf if form == "edf" else mne.io.read_raw_bdf
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"night.{form}"
        write(path, signals, records, seconds)
        with open_recording(path) as recording:
            for name, signal in zip(recording.channels, signals, strict=True):
                # MNE resamples channels of other rates than the highest, so each is read alone.
                theirs = read_raw(path, include=[name], verbose="error").get_data()[0] / VOLTS.get(signal["unit"], 1)
                header = next(channel for channel in recording.header.channels if channel.name == name)
                ours = recording.header.read(header)
                span = np.abs(theirs).max()
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * span)
