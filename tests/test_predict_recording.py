"""The command that stages recordings: what it writes and prints, and how it ends."""

import html
import json
import os
import shutil
from datetime import datetime

import mne
import numpy as np
import pandas as pd
import pytest
from recordings import interrupt, write_edf, write_hypnogram

import predict
from data.store import location
from recsleep.model import RecSleepNet
from runs.networks import save_model

# One process makes the folds and stages the recordings that several tests look at.
pytestmark = pytest.mark.xdist_group("staged recordings")

TINY = {"filters": 4, "first_kernel": 12, "lstm_units": 4, "block_kernel": 3}
SMOOTHED = ["smoothed_W", "smoothed_N1", "smoothed_N2", "smoothed_N3", "smoothed_REM"]
RESULTS = [".html", ".hypnogram.csv", ".hypnogram.edf", ".json", ".png", "-nsrr.xml"]
RESULTS += [f"_desc-recsleep_events.{ending}" for ending in ("json", "tsv")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for fold in range(2):
        metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [fold]}, "amplitude": 12.5}
        save_model(folder / str(fold), RecSleepNet(**TINY), metadata)
    return folder


def eeg(seconds: float, rate: float = 100) -> np.ndarray:
    walk = np.random.default_rng(0).normal(0, 1, round(seconds * rate)).cumsum()
    return 40 * np.sin(walk)


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    """A good recording with its scoring, one with a gap, a scoring by itself, and what is no recording."""
    folder = tmp_path_factory.mktemp("nights")
    signals = {"EEG C3-A2": (eeg(615), 100, "uV"), "ECG": (eeg(615), 100, "uV")}
    write_edf(folder / "good.edf", signals)
    rows = [(0.0, 300.0, "Sleep stage W"), (300.0, 300.0, "Sleep stage N2")]
    write_hypnogram(folder / "good-scored.edf", rows)
    unknown = {"start": datetime(1985, 1, 1, 23, 10, 30), "annotations": [(0, 1, "lights off")]}
    interrupt(write_edf(folder / "gap.edf", signals, **unknown), 200, 900)
    (folder / "bad.edf").write_text("not a recording")
    return folder


def stage(models, recordings, out, *options: str) -> int:
    given = [str(path) for path in (recordings if isinstance(recordings, list) else [recordings])]
    return predict.main(["--dir", str(models), "--recording", *given, "--out", str(out), *options])


@pytest.fixture(scope="module")
def staged(models, nights, tmp_path_factory):
    """All of them staged at once: the exit code and the folder of results."""
    out = tmp_path_factory.mktemp("results")
    return stage(models, nights, out), out


def test_a_bad_recording_does_not_stop_the_others(staged):
    code, out = staged
    assert code == 1
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [f"{name}{ending}" for name in ("gap", "good") for ending in RESULTS] + ["summary.csv"]
    )
    table = pd.read_csv(out / "summary.csv").set_index("name")
    assert table["status"].to_dict() == {"bad": "failed", "gap": "staged", "good-scored": "left out", "good": "staged"}
    assert "is not an EDF or BDF file" in table.loc["bad", "reason"]
    assert table.loc["good", "TIB"] == 10
    assert table.loc["good", "channels"] == "EEG C3-A2"


def test_the_results_of_one(staged, models):
    _, out = staged
    table = pd.read_csv(out / "good.hypnogram.csv")
    assert list(table) == ["epoch", "start_s", "stage", "W", "N1", "N2", "N3", "REM", *SMOOTHED]
    assert len(table) == 20
    figures = json.loads((out / "good.json").read_text())
    assert figures["statistics"]["TIB"] == 10
    assert [model["sha256"] for model in figures["models"]] == figures["settings"]["models"]
    assert {model["folder"] for model in figures["models"]} == {str(models / "0"), str(models / "1")}
    assert figures["start"] == "1995-06-01T23:10:30+00:00"
    assert "channel EEG C3-A2, 100 Hz to 100 Hz, in µV" in figures["assumptions"][0]
    assert figures["remarks"][0].startswith("it lasts only 10 min")
    assert {"reading", "model", "statistics", "report"} == set(figures["took"])
    assert mne.read_annotations(out / "good.hypnogram.edf").duration.sum() == 600
    assert (out / "good.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "good.html").read_text()
    assert '"name": "EEG C3-A2"' in page and "default-src 'none'; img-src data: blob:; style-src" in page


def test_a_gap_is_said_and_unscored(staged):
    _, out = staged
    table = pd.read_csv(out / "gap.hypnogram.csv")
    # 200 s, 900 s of nothing, 415 s: the epoch that is two thirds recorded counts.
    assert np.flatnonzero(table["stage"] == "unscored").tolist() == list(range(7, 37))
    warnings = json.loads((out / "gap.json").read_text())["warnings"]
    assert warnings[1] == "EEG C3-A2: 900 s are missing in the recording."


def test_an_unknown_date_is_told_as_such(staged, models, nights, tmp_path):
    """And the clock goes on, as when the stored night is compared with a scoring later."""
    out = shutil.copytree(staged[1], tmp_path / "results")
    assert json.loads((out / "gap.json").read_text())["start"] == "23:10:30+00:00"
    (tmp_path / "scoring.txt").write_text("\n".join(50 * ["N2"]))
    assert stage(models, nights / "gap.edf", out, "--scoring", str(tmp_path / "scoring.txt")) == 0
    page = (out / "gap.html").read_text()
    assert "23:10:30 of an unknown date" in page and "1985-01-01" not in page
    assert json.loads((out / "gap.json").read_text())["start"] == "23:10:30+00:00"


def test_finished_ones_are_kept(staged, models, nights, tmp_path, capsys):
    out = shutil.copytree(staged[1], tmp_path / "results")
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "summary.csv"}
    assert stage(models, [nights / "good.edf", nights / "gap.edf"], out) == 0
    assert "2 kept" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for option, told in (
        (["--no-calibration"], "calibrate yes, not no"),
        (["--channel", "C3-A2"], "channels of the command's choice, not C3-A2"),
        (["--show-patient"], "patient no, not yes"),
    ):
        assert stage(models, nights / "good.edf", out, *option) == 2
        error = capsys.readouterr().err
        assert f"was made with other settings ({told}): give --overwrite to replace it, or" in error


@pytest.mark.parametrize("name", [b"night_$1_$2.edf", "M\u00fcller.edf".encode("latin-1")])
def test_names_that_are_no_plain_text(models, nights, tmp_path, name):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
    shutil.copyfile(nights / "good.edf", path)
    assert stage(models, path, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").iterdir())) == len([*RESULTS, "summary.csv"])


def test_scoring_and_overwriting(models, nights, capsys, tmp_path):
    scoring = str(nights / "{name}-scored.edf")
    assert stage(models, nights / "good.edf", tmp_path, "--scoring", scoring, "--channel", "c3-a2") == 0
    (tmp_path / "good.png").unlink()
    assert stage(models, nights / "good.edf", tmp_path, "--scoring", scoring, "--overwrite") == 0
    assert (tmp_path / "good.png").exists()
    assert "agreement with the scoring: accuracy" in capsys.readouterr().out
    figures = json.loads((tmp_path / "good.json").read_text())
    assert figures["agreement"]["epochs"] == 20
    page = (tmp_path / "good.html").read_text()
    assert "Stage by stage" in page and "Where the two differ" in page
    assert "where scored" not in page and figures["compared_statistics"] is None
    # A scoring of half the night is compared with that half.
    (tmp_path / "half.txt").write_text("\n".join(10 * ["N2"]))
    assert stage(models, nights / "good.edf", tmp_path, "--scoring", str(tmp_path / "half.txt")) == 0
    note = "the scoring has 10 of the recording's 20 epochs, and only these are compared."
    assert f"  note: {note}" in capsys.readouterr().out
    page, figures = ((tmp_path / f"good.{ending}").read_text() for ending in ("html", "json"))
    assert f"Note: {note}" in html.unescape(page) and '<th scope="col">models, where scored</th>' in page
    result = json.loads(figures)
    assert result["compared_statistics"]["TIB"] == result["scorer_statistics"]["TIB"] == 5
    assert result["statistics"]["TIB"] == 10


def test_corrections_of_finished_results(staged, models, nights, tmp_path, capsys):
    out = shutil.copytree(staged[1], tmp_path / "results")
    table = pd.read_csv(out / "good.hypnogram.csv")
    model = table["stage"].tolist()
    wanted = ["W"] * 10 + ["N2"] * 10
    rows = zip(wanted, model, wanted, model, strict=True)
    lines = [f"{i},{new},{old},0.5,{a != b},Ann," for i, (new, old, a, b) in enumerate(rows)]
    path = tmp_path / "good.corrections.csv"
    path.write_text("\n".join(["epoch,stage,model_stage,probability,corrected,who,when", *lines]))
    for status in ("corrected", "kept"):
        given = ("--corrections", str(tmp_path / "{name}.corrections.csv"))
        assert stage(models, nights / "good.edf", out, *given) == 0
        printed = capsys.readouterr().out
        assert f"1 {status}; the results and summary.csv are in" in printed
    changed = sum(new != old for new, old in zip(wanted, model, strict=True))
    assert changed > 0 and f"corrected: {changed} epochs, by Ann" in printed
    assert f"agreement of the models with the corrections: accuracy {1 - changed / 20:.3f}" in printed
    figures = json.loads((out / "good.json").read_text())
    assert figures["statistics"]["TST"] == 5 and figures["correction"]["accuracy"] == pytest.approx(1 - changed / 20)
    assert pd.read_csv(out / "good.hypnogram.csv")["model_stage"].tolist() == model
    assert mne.read_annotations(out / "good.hypnogram.edf").duration.tolist() == [300, 300]
    assert "Ann, " in (out / "good.html").read_text()
    row = pd.read_csv(out / "summary.csv").iloc[0]
    assert row["TST"] == 5 and row["N2_min"] == 5 and row["correction_accuracy"] == pytest.approx(1 - changed / 20)
    # Compared with a scoring later, they stay corrected: it is their agreement that is told.
    assert stage(models, nights / "good.edf", out, "--scoring", str(nights / "good-scored.edf")) == 0
    assert "agreement with the scoring: accuracy 1.000" in capsys.readouterr().out
    assert json.loads((out / "good.json").read_text())["corrections"]["who"] == ["Ann"]
    assert stage(models, nights / "good.edf", out, "--no-smoothing") == 2
    assert "--overwrite (which drops its corrections, unless --corrections is given too)" in capsys.readouterr().err
    # Those of another night are refused.
    other = "N1" if model[0] == "N3" else "N3"
    path.write_text(path.read_text().replace(f"0,W,{model[0]},", f"0,W,{other},", 1))
    assert stage(models, nights / "good.edf", out, "--corrections", str(path)) == 2
    assert f"model_stage of epoch 0 is {other}, but the models find {model[0]}" in capsys.readouterr().err


def test_what_the_page_shows_is_a_choice(models, nights, tmp_path, capsys):
    recording = tmp_path / "n.edf"
    data = bytearray((nights / "gap.edf").read_bytes())
    data[8:88] = b"MCH-0234567 F 02-MAY-1951 Haagse_Harry".ljust(80)
    recording.write_bytes(data)
    options = ("--lights-off", "23:12:30", "--lights-on", "1200", "--no-signals")
    assert stage(models, recording, tmp_path / "out", *options) == 0
    assert "\n  lights: off 23:12:30, on 23:30:30\n" in capsys.readouterr().out
    text, figures = (tmp_path / "out" / "n.html").read_text(), json.loads((tmp_path / "out" / "n.json").read_text())
    assert figures["lights"] == {"off_epoch": 4, "on_epoch": 40} and figures["statistics"]["TIB"] == 18
    assert figures["subject"] == "MCH-0234567" and "MCH-0234567" in text
    assert "Haagse" not in text + str(figures) and '"signals": []' in text
    assert stage(models, recording, tmp_path / "out", "--no-signals", "--show-patient") == 2
    assert "other settings (patient no, not yes)" in capsys.readouterr().err
    assert stage(models, recording, tmp_path / "out", "--show-patient", "--overwrite") == 0
    text = (tmp_path / "out" / "n.html").read_text()
    assert "Haagse_Harry" in text and "Haagse" not in (tmp_path / "out" / "n.json").read_text()
    assert '"name": "EEG C3-A2"' in text


@pytest.mark.parametrize(
    ("recording", "options", "told"),
    [
        ("bad.edf", [], "is not an EDF or BDF file"),
        ("good-scored.edf", [], "holds only annotations"),
        ("absent.edf", [], "does not exist"),
        ("good.edf", ["--channel", "C4"], "has no channel C4: choose among EEG C3-A2, ECG"),
        ("good.edf", ["--scoring", "absent.txt"], "absent.txt does not exist"),
        ("good.edf", ["--dir", "absent"], "absent does not exist"),
        ("good.edf", ["--db", "isruc"], "was trained on synthetic, not on isruc"),
        ("good.edf", ["--fold", "1"], "--fold belongs to the evaluation"),
        (".", ["--scoring", "one.txt"], "write {name}"),
        (".", ["--corrections", "one.csv"], "each recording needs its own file: write {name}"),
        ("good.edf", ["--corrections", "absent.csv"], "absent.csv does not exist"),
        ("good.edf", ["--lights-off", "22:00"], "--lights-off 22:00 is outside"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(models, nights, tmp_path, capsys, monkeypatch, recording, options, told):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    assert stage(models, nights / recording, out, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("predict.py: error: ") and told in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("seconds", "channel", "told"),
    [(20, "C3", "lasts only 20 s"), (60, "SaO2", "no channel whose name tells that it is EEG")],
)
def test_recordings_that_cannot_be_staged(models, tmp_path, capsys, seconds, channel, told):
    path = write_edf(tmp_path / "n.edf", {channel: (eeg(seconds), 100, "uV")})
    assert stage(models, path, tmp_path / "out") == 2
    assert told in capsys.readouterr().err


def test_options_of_staging_want_recordings(models, capsys):
    assert predict.main(["--dir", str(models), "--channel", "C3"]) == 2
    assert "--channel belongs to the staging" in capsys.readouterr().err


def test_remote_recordings_and_results(models, nights, s3_server):  # noqa: ARG001
    folder = location("s3://nights/staged")
    (folder / "good.edf").write_bytes((nights / "good.edf").read_bytes())
    for _ in range(2):
        assert stage(models, "s3://nights/staged/*.edf", "s3://nights/staged/results") == 0
    assert sorted(path.name for path in (folder / "results").iterdir()) == sorted(
        [f"good{ending}" for ending in RESULTS] + ["summary.csv"]
    )
