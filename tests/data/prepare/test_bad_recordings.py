"""Every kind of bad recording ends in one sentence, and writes nothing."""

import os
import re

import numpy as np
import pytest
import recordings
from recordings import wave

from data.nights.night import read_night
from data.prepare.__main__ import main

CODES = "W12344RRW"


def spoil_header(first: int, content: bytes):
    def spoil(psg, _):
        data = bytearray(psg.read_bytes())
        data[first : first + len(content)] = content
        psg.write_bytes(data)

    return spoil


def rewrite(**signals):
    def spoil(psg, _):
        recordings.write_edf(psg, {"EEG Fpz-Cz": (signals["data"], 100, "uV")})

    return spoil


def hypnogram(codes: str):
    def spoil(_, scoring):
        recordings.write_hypnogram(scoring, recordings.runs(list(codes), recordings.SLEEP_EDF_NAMES))

    return spoil


def annotate(entries):
    return lambda _, scoring: recordings.write_hypnogram(scoring, entries)


SECONDS = 30 * len(CODES)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda psg, _: psg.write_bytes(b""), "PSG.edf is empty"),
        (lambda psg, _: psg.write_bytes(psg.read_bytes()[:-2]), "is truncated: it should have"),
        (lambda psg, _: psg.write_bytes(psg.read_bytes()[:700]), "is truncated within its header"),
        (lambda psg, _: psg.write_bytes(psg.read_bytes()[:100]), "has a damaged header"),
        (spoil_header(0, b"PK\x03\x04"), "is not an EDF or BDF file, because it does not begin like one"),
        (spoil_header(236, b"-1      "), "was not closed properly: its number of records is -1"),
        (spoil_header(236, b"many    "), "'many' is not a number of records"),
        (spoil_header(244, b"0       "), "damaged header, with .* records of 0 s"),
        (spoil_header(252, b"9999"), "whose length does not fit 9999 signals"),
        (lambda psg, scoring: psg.write_bytes(scoring.read_bytes()), "holds only annotations and no signals"),
        (lambda psg, _: psg.unlink(), None),
        (lambda _, scoring: scoring.unlink(), "has no scoring: add SC4001..-Hypnogram.edf"),
        (lambda _, scoring: scoring.write_bytes(b""), "Hypnogram.edf holds no annotations"),
        (lambda psg, scoring: scoring.write_bytes(psg.read_bytes()), "Hypnogram.edf holds no annotations"),
        (
            hypnogram(CODES + "WW"),
            "has 9 epochs of 30 s, but its scoring SC4001EC-Hypnogram.edf has 11, and they may differ",
        ),
        (
            hypnogram(CODES[:-2]),
            "has 9 epochs of 30 s, but its scoring SC4001EC-Hypnogram.edf has 7, and they may differ",
        ),
        (hypnogram("?" * 9), "scores no epoch"),
        (annotate([(0, SECONDS, "Sleep stage 7")]), "the annotation 'Sleep stage 7' at 0 s is not a sleep stage"),
        (annotate([(0, 47, "Sleep stage 2")]), "the stage at 0 s lasts 47 s, which does not fit"),
        (rewrite(data=np.zeros(SECONDS * 100)), "channel EEG Fpz-Cz is flat all night"),
    ],
)
def test_one_sentence_and_no_night(tmp_path, capsys, spoil, told):
    psg = recordings.sleepedf(tmp_path / "raw", CODES, record_seconds=1)
    recordings.sleepedf(tmp_path / "raw", CODES, "SC4011E0")
    spoil(psg, psg.with_name("SC4001EC-Hypnogram.edf"))
    code = main(["--db", "sleepedf", "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "Traceback" not in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"SC4011E0.npz", "nights.csv"}
    if told is None:
        assert code == 0
    else:
        assert code == 1 and "1 of 2 failed" in printed
        assert re.search(told, printed), printed


def test_values_that_are_not_finite(tmp_path, capsys):
    """EDF cannot hold NaN; MNE's own format can."""
    import mne

    (tmp_path / "raw").mkdir()
    signal = wave(120, 100)
    signal[500:505] = np.nan
    info = mne.create_info(["C4"], 100.0, "eeg")
    mne.io.RawArray(signal[None] * 1e-6, info, verbose="error").save(tmp_path / "raw" / "a_raw.fif", verbose="error")
    (tmp_path / "raw" / "a_raw.txt").write_text("0 1 2 4")
    spec = tmp_path / "lab.toml"
    spec.write_text(
        'recordings = "*.fif"\nscoring = "{name}.txt"\nform = "lines"\n[channels]\nC4 = []\n'
        '[labels]\n0 = "W"\n1 = "N1"\n2 = "N2"\n4 = "REM"\n'
    )
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(["--db", "custom", "--spec", str(spec), *folders]) == 1
    assert "channel C4 holds NaN or infinite values in 5 samples" in capsys.readouterr().out


def test_a_recording_that_vanishes_while_listed(tmp_path, capsys, monkeypatch):
    from data.prepare import batch

    first = recordings.sleepedf(tmp_path / "raw", CODES)
    recordings.sleepedf(tmp_path / "raw", CODES, "SC4011E0")
    prepare_all = batch.prepare_all

    def vanishing(*arguments):
        first.unlink()
        return prepare_all(*arguments)

    monkeypatch.setattr(batch, "prepare_all", vanishing)
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(["--db", "sleepedf", *folders]) == 1
    assert "SC4001E0-PSG.edf does not exist, or no longer exists" in capsys.readouterr().out


def test_nights_shorter_than_a_window_and_without_sleep_are_written(tmp_path):
    recordings.isruc(tmp_path / "raw", "025", 1)
    recordings.isruc(tmp_path / "raw", "000", 2)
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 0
    assert read_night(tmp_path / "subject0.npz", ["C3-A2"]).stages.tolist() == [0, 2, 4]
    assert read_night(tmp_path / "subject1.npz", ["C3-A2"]).stages.tolist() == [0, 0, 0]


def test_one_epoch_of_difference_is_cut_and_said(tmp_path, capsys):
    path = recordings.isruc(tmp_path / "raw", "0123", 1)
    (path.parent / "1_1.txt").write_text("0 1 2 3 5")
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 0
    assert read_night(tmp_path / "subject0.npz", ["C3-A2"]).stages.tolist() == [0, 1, 2, 3]
    assert "note: subject0: signal has 4 epochs and scoring has 5: both cut to the shorter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--db", "nsrr"], "unknown database 'nsrr': choose one of sleepedf"),
        (["--db", "isruc", "--data", "nowhere"], "the folder nowhere does not exist"),
        (["--db", "isruc", "--data_dir", "nowhere", "--output_dir", "out"], "the folder nowhere does not exist"),
        (["--db", "isruc", "--data", "."], "holds no recording of isruc, with a name like 1.rec"),
        (["--db", "isruc", "--jobs", "0"], "--jobs 0: give a number of processes"),
        (["--db", "isruc", "--jobs", "2", "--cluster", "tcp://a:1"], "give only one of them"),
        (["--db", "custom"], "--db custom and --spec FILE belong together"),
        (["--db", "isruc", "--spec", "a.toml"], "--db custom and --spec FILE belong together"),
        (["--db", "isruc", "--download"], "--download works only for sleepedf and sleepedfx"),
        (["--db", "synthetic", "--data_dir", "raw"], "--data has no meaning for synthetic nights"),
        (["--db", "synthetic", "--list"], "--list has no meaning for synthetic nights"),
        (["--db", "isruc", "--data", "ftp://a/b"], "ftp:// is not a known kind of remote store"),
        (["--db", "isruc", "--data", "s3://"], "names no bucket"),
    ],
)
def test_wrong_arguments_are_told(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_two_recordings_of_one_night(tmp_path, capsys):
    recordings.isruc(tmp_path / "raw" / "a", "0123", 1)
    recordings.isruc(tmp_path / "raw" / "b", "0123", 1)
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 1
    assert "are both night subject0: keep one of them" in capsys.readouterr().out


def test_recordings_of_other_subjects_are_said(tmp_path, capsys):
    recordings.sleepedf(tmp_path / "raw", CODES)
    recordings.sleepedf(tmp_path / "raw", CODES, "SC4201E0")
    assert main(["--db", "sleepedf", "--data", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 0
    assert "SC4201E0-PSG.edf, are left out: their subjects are not among sleepedf's 0 to 19" in capsys.readouterr().out


def prepared(tmp_path, unit="uV", change=lambda content: content, channel="C3-A2"):
    """An ISRUC recording with bytes changed: its exit code and, if it was made, its night."""
    path = recordings.write_edf(
        tmp_path / "raw" / "1.rec",
        {"C3-A2": (wave(120, 100), 100, unit), "O2-A1": (wave(120, 100, 1), 100, "uV")},
    )
    (tmp_path / "raw" / "1_1.txt").write_text("0 1 2 5")
    path.write_bytes(change(path.read_bytes()))
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--select_ch", channel]
    code = main(["--db", "isruc", *folders])
    return code, None if code else read_night(tmp_path / "out" / "subject0.npz", [channel])


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("uV", 1), ("UV", 1), ("mV", 1e3), ("mv", 1e3), ("nV", 1e-3), ("V", 1e6), ("%", 1), ("", 1), ("degC", 1)],
)
def test_units_of_voltage_in_any_spelling(tmp_path, unit, factor):
    _, night = prepared(tmp_path, unit)
    true = wave(120, 100).reshape(4, 3000)
    assert np.abs(night.signals[:, 0] / factor - true).max() < 400 / 65535


def patched(first: int, text: bytes):
    return lambda content: content[:first] + text + content[first + len(text) :]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (patched(192, b"EDF+D"), "has gaps (EDF+D), so its epochs cannot be placed"),
        (patched(256 + 16, b"C3-A2           "), "has 2 channels called C3-A2"),
        (patched(256 + 2 * 112, b"-200    "), "channel C3-A2 has a damaged header, in which a range is empty"),
        (patched(256 + 2 * 128, b"-32768  "), "channel C3-A2 has a damaged header, in which a range is empty"),
        (patched(256 + 2 * 104, b"low     "), "'low' is not a physical minimum of C3-A2"),
    ],
)
def test_headers_that_would_be_read_wrongly(tmp_path, capsys, change, told):
    assert prepared(tmp_path, change=change)[0] == 1
    assert told in capsys.readouterr().out


def test_labels_padded_with_nul_and_bytes_after_the_end(tmp_path):
    _, night = prepared(tmp_path, change=lambda content: content + bytes(50_000))
    assert night.stages.tolist() == [0, 1, 2, 4]


def test_a_link_to_a_folder_above_and_one_elsewhere(tmp_path):
    recordings.isruc(tmp_path / "elsewhere", "0123", 1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "loop").symlink_to(tmp_path / "raw")
    (tmp_path / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["subject0.npz"]


def test_only_its_own_unfinished_files_are_removed(tmp_path):
    recordings.isruc(tmp_path / "raw", "0123", 1)
    other = tmp_path / "raw" / ".unfinished-thing" / "x"
    other.parent.mkdir()
    other.write_text("")
    assert main(["--db", "isruc", "--data", str(tmp_path / "raw"), "--out", str(tmp_path)]) == 0
    assert other.exists()


def test_names_that_are_no_text(tmp_path):
    spec = tmp_path / "lab.toml"
    head = 'recordings = "*.edf"\nscoring = "{name}.txt"\nform = "lines"\n'
    spec.write_text(head + '[channels]\nC4 = []\n[labels]\n0 = "W"\n1 = "N1"\n')
    path = recordings.write_edf(tmp_path / "raw" / "a.edf", {"C4": (wave(60, 100), 100, "uV")})
    named = path.rename(path.with_name(os.fsdecode(b"\xff.edf")))
    named.with_suffix(".txt").write_text("0 1")
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main(["--db", "custom", "--spec", str(spec), *folders]) == 0
    assert "\\udcff" in (tmp_path / "out" / "nights.csv").read_text()


def test_a_channel_named_twice(tmp_path, capsys):
    recordings.isruc(tmp_path / "raw", "0123", 1)
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path)]
    assert main(["--db", "isruc", *folders, "--select_ch", "C3-A2", "c3-m2"]) == 2
    assert "names one channel twice" in capsys.readouterr().err
