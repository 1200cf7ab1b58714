"""When lights went off and on, and whose a recording is, of recordings that say it."""

from contextlib import ExitStack

import mne
import numpy as np
import pytest
from recordings import interrupt, wave, write_edf

from data.recordings.lights import lights
from data.recordings.recording import Recording, open_recording
from data.terms import InputError


def recording(stack: ExitStack, path, *notes: tuple[float, str]) -> Recording:
    """Ten minutes from 23:10:30 on, with annotations at their onsets."""
    annotations = [(onset, 1.0, text) for onset, text in notes]
    write_edf(path, {"C3": (wave(600, 100), 100, "uV")}, annotations=annotations or None)
    return stack.enter_context(open_recording(path))


@pytest.mark.parametrize(
    ("off", "on", "expected"),
    [
        ("", "", None),
        ("60", "", (2, 20)),
        ("", "540", (0, 18)),
        ("74.9", "525", (2, 18)),
        ("75.1", "600", (3, 20)),
        ("23:12", "23:15:00", (3, 9)),
        ("23:10:30", "", (0, 20)),
    ],
)
def test_times_that_a_user_gives(tmp_path, off, on, expected):
    with ExitStack() as stack:
        assert lights(recording(stack, tmp_path / "n.edf"), off, on) == expected


@pytest.mark.parametrize(
    ("off", "on", "told"),
    [
        ("soon", "", "--lights-off soon: give a clock time such as 22:58, or seconds"),
        ("22.58", "", "--lights-off 22.58: write 22:58 for a clock time, or a whole number of seconds"),
        ("", "06.30.15", "--lights-on 06.30.15: write 06:30:15 for a clock time"),
        ("nan", "", "is outside"),
        ("601", "", "is outside"),
        ("-1", "", "is outside"),
        ("", "23:00", "--lights-on 23:00 is outside"),
        ("25:00", "", "is not a time of day"),
        ("300", "200", "no whole epoch lies between"),
        ("600", "", "no whole epoch lies between"),
    ],
)
def test_times_that_cannot_be(tmp_path, off, on, told):
    with ExitStack() as stack, pytest.raises(InputError, match=told):
        lights(recording(stack, tmp_path / "n.edf"), off, on)


def test_a_clock_time_wants_a_start():
    raw = mne.io.RawArray(np.zeros((1, 60_000)), mne.create_info(["C3"], 100.0), verbose="error")
    with pytest.raises(InputError, match="does not say when it begins"):
        lights(Recording(raw, None, raw), "23:00")
    assert lights(Recording(raw, None, raw), "60") == (2, 20)
    raw.set_annotations(mne.Annotations([90, 450], [0, 0], ["Lights Off", "lights on"]))
    assert lights(Recording(raw, None, raw)) == (3, 15)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([(60, "Lights off"), (540, "Lights on")], (2, 18)),
        # The first off and the last on; a visit in the night is none.
        ([(60, "lights out"), (200, "LIGHTS ON"), (230, "Lights off"), (500, " Light_on ")], (2, 17)),
        ([(300, "Lights on")], (0, 10)),
        ([(300, "Lights off"), (100, "Lights on")], None),
        ([(300, "Highlights on")], None),
    ],
)
def test_annotations_say_it(tmp_path, notes, expected):
    with ExitStack() as stack:
        assert lights(recording(stack, tmp_path / "n.edf", *notes)) == expected
    with ExitStack() as stack:
        # What a user says counts alone.
        assert lights(recording(stack, tmp_path / "n.edf", *notes), "30") == (1, 20)


@pytest.mark.parametrize("gap", [False, True])
def test_annotations_are_mnes(tmp_path, gap):
    path = write_edf(
        tmp_path / "n.edf",
        {"C3": (wave(600, 100), 100, "uV")},
        annotations=[(0, 1, "Beginn"), (0.5, 0, "a, b"), (250, 30.25, "Atmung: Müller's µ")],
    )
    if gap:
        interrupt(path, 200, 100)
    with open_recording(path, gaps=True) as opened:
        found = sorted(opened.notes())
    theirs = mne.read_annotations(path)
    assert found == sorted(zip(theirs.onset.tolist(), theirs.description.tolist(), strict=True))


@pytest.mark.parametrize(
    ("patient", "plus", "code"),
    [
        ("X X X X", True, ""),
        ("MCH-0234567 F 02-MAY-1951 Haagse_Harry", True, "MCH-0234567"),
        ("S_7 X X X", True, "S 7"),
        # EDF without plus keeps no code apart: it may be a name.
        ("Haagse Harry", False, ""),
        ("", True, ""),
    ],
)
def test_the_code_of_the_subject(tmp_path, patient, plus, code):
    path = write_edf(tmp_path / "n.edf", {"C3": (wave(60, 100), 100, "uV")}, annotations=[(0, 1, "a")])
    data = bytearray(path.read_bytes())
    data[8:88] = patient.ljust(80).encode()
    if not plus:
        data[192:236] = b" " * 44
    path.write_bytes(data)
    with open_recording(path) as opened:
        assert opened.header.code == code and opened.header.patient == patient
