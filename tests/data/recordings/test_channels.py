"""Any recording's EEG: which channel is taken, and that its samples arrive at the right time and in the right unit."""

import mne
import numpy as np
import pybv
import pytest
from recordings import interrupt, wave, write_edf

from data.nights.files import write_arrays
from data.recordings.channels import choose, open_signals, read_channel
from data.store import location
from data.terms import InputError


class Names:
    """A recording that has nothing but channels."""

    path = "night.edf"

    def __init__(self, *channels):
        self.channels = channels


@pytest.mark.parametrize(
    ("channels", "name", "recorded"),
    [
        (["ECG", "EEG Fpz-Cz", "EEG Pz-Oz"], "EEG Fpz-Cz", ["EEG Fpz-Cz"]),
        (["EEG Fpz-Cz", "C4-M1"], "C4-M1", ["C4-M1"]),
        (["O1:A2", "C3A2"], "C3A2", ["C3A2"]),
        (["C3", "A2", "EMG"], "C3-M2", ["C3", "A2"]),
        (["EEG C3-REF", "EEG A2-REF"], "C3-M2", ["EEG C3-REF", "EEG A2-REF"]),
        (["EEG C3-REF", "EEG A2-LE"], "EEG C3-REF", ["EEG C3-REF"]),
        (["F3-M2", "C4", "M1"], "C4-M1", ["C4", "M1"]),
        (["C4-Fz", "C4-Cz", "EEG C4-Fz", "M1-Fz", "M1-Cz"], "C4-M1", ["C4-Fz", "M1-Fz"]),
        (["SaO2", "Cz", "Pz"], "Cz", ["Cz"]),
        (["SaO2", "EEG(sec)", "EOG(L)"], "EEG(sec)", ["EEG(sec)"]),
    ],
)
def test_the_best_channel_is_taken(channels, name, recorded):
    choice = choose(Names(*channels))
    assert (choice.name, list(choice.recorded)) == (name, recorded)


@pytest.mark.parametrize(
    ("wanted", "recorded"),
    [
        ("c3-a2", ["EEG C3:M2"]),
        ("EEG O1", ["O1"]),
        ("O1-M1", ["O1", "A1"]),
        ("EOG L-EMG", ["EOG L", "EMG"]),
        ("emg", ["EMG"]),
    ],
)
def test_a_wanted_channel_is_found_or_derived(wanted, recorded):
    choice = choose(Names("EEG C3:M2", "O1", "A1", "EOG L", "EMG"), wanted)
    assert list(choice.recorded) == recorded


@pytest.mark.parametrize(("channels", "wanted"), [(["ECG", "SaO2", "CO2"], ""), (["C3", "A2"], "C4-A1")])
def test_no_such_channel(channels, wanted):
    with pytest.raises(InputError, match=f"{channels[0]}, {channels[1]}"):
        choose(Names(*channels), wanted)


def read(path, wanted=""):
    with open_signals(path, [wanted] if wanted else []) as recording:
        return read_channel(recording, choose(recording, wanted))


@pytest.mark.parametrize("rate", [60, 64, 100, 128, 512])
def test_a_derivation_in_microvolts_at_100_hz(tmp_path, rate):
    signals = {name: (wave(90, rate, i) / 1000, rate, "mV") for i, name in enumerate(("C4", "M1"))}
    eeg = read(write_edf(tmp_path / "n.edf", signals, span=0.2))
    assert eeg.signals.shape == (3, 3000)
    assert eeg.about["unit"] == "µV" and eeg.about["header_unit"] == "mV"
    expected = wave(90, 100) - wave(90, 100, 1)
    # The ends have no neighbours to resample from.
    np.testing.assert_allclose(eeg.signals.ravel()[200:-200], expected[200:-200], atol=0.5)


def test_a_gap_of_a_discontinuous_edf(tmp_path):
    path = write_edf(tmp_path / "n.edf", {"C4-M1": (wave(90, 100), 100, "uV")}, annotations=[(0, 1, "start")])
    eeg = read(interrupt(path, 45, 40))
    assert len(eeg.signals) == 4
    assert eeg.missing.tolist() == [False, True, True, False]
    assert eeg.about["missing_seconds"] == 40
    signal = eeg.signals.ravel()
    np.testing.assert_allclose(signal[:4500], wave(90, 100)[:4500], atol=0.01)
    np.testing.assert_allclose(signal[8500:12000], wave(90, 100)[4500:8000], atol=0.01)
    assert np.ptp(signal[4500:8500]) == 0


@pytest.mark.parametrize("extra", [1, 90])
def test_bytes_after_the_last_record_of_a_discontinuous_edf(tmp_path, extra):
    signals = {"C4-M1": (wave(90, 100), 100, "uV")}
    path = interrupt(write_edf(tmp_path / "n.edf", signals, annotations=[(0, 1, "start")]), 45, 40)
    expected, content = read(path), path.read_bytes()
    head = int(content[184:192])
    path.write_bytes(content + content[head : head + extra * (len(content) - head) // 90])
    np.testing.assert_array_equal(read(path).signals, expected.signals)


def test_a_channel_of_a_night_file_that_is_not_staged_may_be_flat(tmp_path):
    x = np.stack([wave(90, 100).reshape(3, 3000), np.zeros((3, 3000))], axis=1).astype("float32")
    np.savez(tmp_path / "n.npz", x=x, ch_names=np.array(["C3-M2", "EMG"]), about=np.array('{"channels": 5}'))
    np.testing.assert_array_equal(read(tmp_path / "n.npz").signals, x[:, 0])


def test_a_night_without_a_number_is_refused(tmp_path):
    np.savez(tmp_path / "n.npz", x=np.full((3, 3000), np.nan, "float32"))
    with pytest.raises(InputError, match="channel EEG holds no numbers, only samples that are NaN"):
        read(tmp_path / "n.npz")


def test_records_out_of_order_are_refused(tmp_path):
    path = write_edf(tmp_path / "n.edf", {"C4-M1": (wave(90, 100), 100, "uV")}, annotations=[(0, 1, "start")])
    with pytest.raises(InputError, match="not in order of time"):
        read(interrupt(path, 45, -3))


@pytest.mark.parametrize("form", ["fif", "brainvision"])
def test_other_formats(tmp_path, form):
    signal = wave(60, 200)[None]
    if form == "fif":
        path = tmp_path / "n_raw.fif"
        signal[0, 7000:8000] = np.nan
        mne.io.RawArray(signal * 1e-6, mne.create_info(["C3"], 200.0, "eeg"), verbose="error").save(
            path, verbose="error"
        )
    else:
        pybv.write_brainvision(data=signal * 1e-6, sfreq=200, ch_names=["C3"], fname_base="n", folder_out=tmp_path)
        path = tmp_path / "n.vhdr"
    eeg = read(path)
    assert eeg.about["unit"] == "µV"
    np.testing.assert_allclose(eeg.signals.ravel()[100:3000], wave(60, 100)[100:3000], atol=0.5)
    assert eeg.about["missing_seconds"] == (5 if form == "fif" else 0)


def test_night_files(tmp_path, make_night):
    x = np.random.default_rng(0).normal(size=(4, 2, 3000)).astype("float32")
    named = {"x": x, "y": np.full(4, -1), "ch_names": np.array(["EOG L", "EEG C4-M1"])}
    for path in (tmp_path / "n.npz", tmp_path / "folder"):
        write_arrays(path, named)
        with open_signals(path) as recording:
            assert recording.stages is None
            np.testing.assert_array_equal(read_channel(recording, choose(recording)).signals, x[:, 1])
    unnamed = make_night(tmp_path / "u.npz", 5)
    with open_signals(unnamed, ["C3-A2"]) as recording:
        assert choose(recording, "C3-A2").name == "C3-A2"
        np.testing.assert_array_equal(recording.stages, np.load(unnamed)["y"])
    without = make_night(tmp_path / "w.npz", 5, y=None)
    assert read(without).about["unit"] == "as stored"


@pytest.mark.parametrize(
    ("seconds", "rate", "unit", "told"),
    [
        (29, 100, "uV", "lasts only 29 s"),
        (60, 50, "uV", "60 Hz or more"),
        (60, 100, "%", "differ in rate or unit"),
    ],
)
def test_what_cannot_be_staged(tmp_path, seconds, rate, unit, told):
    other = (wave(seconds, rate, 1), rate, "uV")
    path = write_edf(tmp_path / "n.edf", {"C3": (wave(seconds, rate), rate, unit), "A2": other})
    with pytest.raises(InputError, match=told):
        read(path)


def test_a_remote_recording_of_several_files(tmp_path, s3_server):  # noqa: ARG001
    pybv.write_brainvision(
        data=wave(60, 100)[None] * 1e-6, sfreq=100, ch_names=["C3"], fname_base="n", folder_out=tmp_path
    )
    folder = location("s3://nights/brainvision")
    for file in tmp_path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    np.testing.assert_allclose(read(folder / "n.vhdr").signals.ravel(), wave(60, 100), atol=0.5)
