"""Recordings written in each database's form come back as nights: samples, stages, trimming, events."""

import json
from datetime import timedelta

import numpy as np
import pytest
import recordings
from recordings import START, wave

from data.nights.night import read_night
from data.prepare.__main__ import main


def prepare(db, folder, *options):
    assert main(["--db", db, "--data", str(folder / "raw"), "--out", str(folder / "out"), *options]) == 0


def expected(epochs: list[int], channel: int = 0) -> np.ndarray:
    """What :func:`recordings.wave` is at 100 Hz in these epochs of the recording."""
    full = wave(30 * (max(epochs) + 1), 100, channel)
    return full.reshape(-1, 3000)[epochs]


def error(night, kept, channel: int = 0) -> float:
    """Largest difference to the known signal, away from the recording's ends, where resampling has less to go by."""
    return float(np.abs(night - expected(kept, channel))[:, 100:-100].max())


# Half a step of 16 bits over 400 units, and float32.
STEP = 400 / 65535


def test_sleepedf(tmp_path, capsys):
    codes = "W" * 70 + "1" + "2" * 3 + "M" + "3" + "4" + "?" + "R" * 2 + "W" * 75 + "?" * 10
    recordings.sleepedf(tmp_path / "raw", codes)
    prepare("sleepedf", tmp_path)
    kept = [i for i in range(10, 80 + 60) if codes[i] not in "M?"]
    night = read_night(tmp_path / "out" / "SC4001E0.npz", ["EEG Fpz-Cz"])
    assert night.stages.tolist() == [{"W": 0, "1": 1, "2": 2, "3": 3, "4": 3, "R": 4}[codes[i]] for i in kept]
    assert error(night.signals[:, 0], kept) < STEP
    about = json.loads(str(np.load(tmp_path / "out" / "SC4001E0.npz")["about"]))
    assert about["trimmed_minutes"] == (10 + 25) / 2 and about["dropped_epochs"] == 2
    assert "17.5" in capsys.readouterr().out


def test_a_chosen_channel_and_several(tmp_path):
    recordings.sleepedf(tmp_path / "raw", "W12345"[:4] + "R")
    prepare("sleepedf", tmp_path, "--select_ch", "eeg pz-oz", "EEG Fpz-Cz")
    night = read_night(tmp_path / "out" / "SC4001E0.npz", ["EEG Fpz-Cz", "eeg pz-oz"])
    assert error(night.signals[:, 0], list(range(5))) < STEP
    assert error(night.signals[:, 1], list(range(5)), 1) < STEP


def test_records_of_a_minute(tmp_path):
    """SC4362 has 60-s records: epochs are cut by seconds, so an odd number of epochs survives."""
    recordings.sleepedf(tmp_path / "raw", "W1223", extra=30, record_seconds=60)
    prepare("sleepedf", tmp_path)
    assert len(read_night(tmp_path / "out" / "SC4001E0.npz", ["EEG Fpz-Cz"]).stages) == 5


def test_a_hypnogram_that_starts_later(tmp_path):
    raw = tmp_path / "raw"
    recordings.sleepedf(raw, "W12RW")
    entries = recordings.runs(list("12R"), recordings.SLEEP_EDF_NAMES)
    entries += [(90.0, 30.0, "Sleep stage ?")]
    recordings.write_hypnogram(raw / "SC4001EC-Hypnogram.edf", entries, START + timedelta(seconds=30))
    prepare("sleepedf", tmp_path)
    night = read_night(tmp_path / "out" / "SC4001E0.npz", ["EEG Fpz-Cz"])
    assert night.stages.tolist() == [1, 2, 4]
    assert error(night.signals[:, 0], [1, 2, 3]) < STEP


@pytest.mark.parametrize("rate", [125, 128, 200, 256])
def test_aligned_over_eight_hours(tmp_path, rate):
    codes = "0" * 10 + "2" * 940 + "0" * 10
    recordings.isruc(tmp_path / "raw", codes, rate=rate, name="C3-M2")
    prepare("isruc", tmp_path)
    night = read_night(tmp_path / "out" / "subject0.npz", ["C3-A2"])
    assert night.stages.tolist() == [int(code) for code in codes]
    # The passband of the resampling filter is flat within 3 in 1,000.
    assert error(night.signals[:, 0], list(range(960))) < 0.003 * 80 + STEP
    # A shift by a hundredth of a sample over the night would show.
    last, true = night.signals[-1, 0], expected([959])[0]
    slope = np.gradient(true)
    shift = ((last - true) * slope)[100:-100].sum() / (slope**2)[100:-100].sum()
    assert abs(shift) < 0.01


def test_millivolts_become_microvolts(tmp_path):
    raw = tmp_path / "raw"
    recordings.write_edf(raw / "1" / "1.rec", {"C3-A2": (wave(90, 200) / 1000, 200, "mV")}, span=0.2)
    (raw / "1" / "1_1.txt").write_text("0\n2\n5\n")
    prepare("isruc", tmp_path)
    night = read_night(tmp_path / "out" / "subject0.npz", ["C3-A2"])
    assert night.stages.tolist() == [0, 2, 4]
    assert error(night.signals[:, 0], [0, 1, 2]) < 0.003 * 80 + STEP


def test_a_reversed_physical_range_turns_the_signal(tmp_path):
    """A physical minimum above the maximum is EDF's way to say that the amplifier inverts."""
    raw = tmp_path / "raw"
    path = recordings.write_edf(raw / "1" / "1.rec", {"C3-A2": (-wave(90, 200), 200, "uV")})
    (raw / "1" / "1_1.txt").write_text("0\n2\n5\n")
    content = bytearray(path.read_bytes())
    low, high = slice(256 + 104, 256 + 112), slice(256 + 112, 256 + 120)
    content[low], content[high] = content[high], content[low]
    path.write_bytes(content)
    prepare("isruc", tmp_path)
    assert error(read_night(tmp_path / "out" / "subject0.npz", ["C3-A2"]).signals[:, 0], [0, 1, 2]) < 0.003 * 80 + STEP


def test_ucddb_keeps_its_units_and_reads_its_events(tmp_path):
    # Recording from 23:10:30: an obstructive apnea from 45 s to 62 s, a hypopnea over midnight.
    events = [
        "23:10:25  HYP-C              5.5     96     1",
        "23:11:15  APNEA-O           17       90.1   3.2     -       +",
        "23:11:50  PB         PB     60",
        "23:12:00  POSSIBLE          12       93",
        "23:13:29  HYP-C    EVENT    11.5     91.0   4.0     +       -",
        "00:00:01  APNEA-M           29       88     5",
        "00:01:00  HYP-O",
    ]
    codes = "0" + "12345678" + "3" * 111
    recordings.ucddb(tmp_path / "raw", codes, events=events)
    prepare("ucddb", tmp_path)
    night = read_night(tmp_path / "out" / "ucddb002.npz", ["C3A2"])
    kept = [i for i, code in enumerate(codes) if code not in "678"]
    assert night.stages.tolist() == [{"0": 0, "1": 4, "2": 1, "3": 2, "4": 3, "5": 3}[codes[i]] for i in kept]
    assert error(night.signals[:, 0], kept) < 0.003 * 80 + STEP
    file = np.load(tmp_path / "out" / "ucddb002.npz")
    table = {name: set() for name in file["event_names"]}
    for row, epoch in enumerate(kept):
        for column, name in enumerate(file["event_names"]):
            if file["events"][row, column]:
                table[name].add(epoch)
    # 23:13:29 is 179 s in: one second of epoch 5 and ten of epoch 6, which is an artefact and left out.
    assert table == {"Obstructive Apnea": {1, 2}, "Central Apnea": set(), "Mixed Apnea": {99}, "Hypopnea": {5}}
    assert "1 breathing events without a duration" in str(file["about"])


@pytest.mark.parametrize("form", ["typed", "profusion"])
def test_shhs(tmp_path, form):
    """Multi-channel nights: stages, events, bands by power spectrum, scale."""
    from scipy.signal import welch

    codes = "0" * 4 + "1234569" + "5" * 20 + "2" * 9
    events = [
        ("Obstructive apnea", 29.5, 20.0),  # half a second of epoch 0, all else in epoch 1
        ("Hypopnea", 130.0, 51.0),  # just a second of epoch 6
        ("Central apnea", 400.0, 12.0),
        ("SpO2 desaturation", 419.0, 61.0),
        ("Mixed apnea", 275.0, 10.0),  # in a movement
    ]
    recordings.shhs(tmp_path / "raw", codes, events=events, form=form)
    prepare("shhs", tmp_path)
    file = np.load(tmp_path / "out" / "shhs1-200001.npz")
    # The night stays whole: epochs without a stage, too.
    stages = {"0": 0, "1": 1, "2": 2, "3": 3, "4": 3, "5": 4, "6": -1, "9": -1}
    assert file["y"].tolist() == [stages[code] for code in codes]
    names = ["EEG_C4", "EEG_C3", "EOG_Left", "EOG_Right", "EMG_Chin", "ECG", "Airflow"]
    assert file["ch_names"].tolist() == names
    assert file["x"].shape == (len(codes), 7, 3000) and file["x"].dtype == np.float32
    labelled = {name: {*np.flatnonzero(file["events"][:, column])} for column, name in enumerate(file["event_names"])}
    assert labelled == {
        "Obstructive Apnea": {1},
        "Central Apnea": {13},
        "Mixed Apnea": {9},
        "Hypopnea": {4, 5, 6},
        "SpO2 Desaturation": {13, 14, 15},
    }
    counted = json.loads(str(file["about"]))["events_in_sleep"]
    # The obstructive one begins in wake.
    assert counted == {name: int(name not in ("Obstructive Apnea", "Mixed Apnea")) for name in labelled}
    # Scaled over the whole recording.
    for column, name in enumerate(names):
        low, median, high = np.percentile(file["x"][:, column], (25, 50, 75))
        assert abs(median) < 0.01 and high - low == pytest.approx(1, abs=0.01), name
    bands = {"EEG_C4": (0.5, 40), "EOG_Right": (0.5, 25), "EMG_Chin": (25, 49), "ECG": (3, 30), "Airflow": (0.05, 1)}
    for name, (low, high) in bands.items():
        frequencies, power = welch(file["x"][10:30, names.index(name)].ravel(), 100, nperseg=6000)
        inside = power[(frequencies > low * 1.3) & (frequencies < high * 0.8)].mean()
        above = frequencies > high + max(2.0, 0.3 * high)
        assert power[above].mean() < 0.01 * inside if above.any() else True, name
        assert power[frequencies < low / 3].mean() < 0.05 * inside, name
