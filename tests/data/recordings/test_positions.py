"""In which position a sleeper lay, of recordings that tell it in their annotations."""

import mne
import numpy as np
import pytest
from recordings import wave, write_edf

from data.recordings.positions import noted, of_epochs
from data.recordings.recording import Recording, open_recording

# A change in an epoch counts for it up to its middle, at 15 s, 45 s, …
NOTES = [
    (44.9, "Position - Supine - 1"),
    (105.1, "Body_Position:_Left"),
    (150, "Look right"),
    (165, "body position: BACK"),
    (200, "Limb movement (left)"),
    (225.0, "front"),
    (240, "Position change"),
    (259, "Right side"),
    (260, "Body Position Upright"),
]
EXPECTED = ["", "supine", "supine", "supine", "left", "supine", "supine", "prone", "prone", "upright"]


@pytest.mark.parametrize("form", ["edf", "mne"])
def test_each_epoch_has_the_last_position_told(tmp_path, form):
    path = write_edf(
        tmp_path / "n.edf", {"C3": (wave(300, 100), 100, "uV")}, annotations=[(on, 1, text) for on, text in NOTES]
    )
    raw = mne.io.read_raw(path, verbose="error")
    with open_recording(path) as opened:
        recording = Recording(path, None, raw) if form == "mne" else opened
        assert of_epochs(noted(recording.notes()), 10).tolist() == EXPECTED


@pytest.mark.parametrize("told", [(), [(0.0, "Lights off"), (3.0, "leftover"), (9.0, "Positioned"), (20.0, "")]])
def test_a_recording_that_tells_none(told):
    assert noted(told) == () and of_epochs(noted(told), 4) is None


def test_positions_of_a_random_night_counted_by_hand():
    rng = np.random.default_rng(0)
    told = [(float(onset), str(rng.choice(["supine", "left"]))) for onset in rng.uniform(0, 3000, 40)]
    by_hand = []
    for epoch in range(100):
        before = [entry for entry in told if entry[0] <= 30 * epoch + 15]
        by_hand.append(max(before)[1] if before else "")
    assert of_epochs(told, 100).tolist() == by_hand
