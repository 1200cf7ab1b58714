"""A staged night's figures against those computed by hand, its pictures, and its files read back."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import mne
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from data.scorings.any_form import read_scoring
from data.scorings.scoring import Event, Scoring
from data.terms import STAGES, InputError
from evaluation.breathing import ScoredEvents
from evaluation.exchange import save_bids, save_nsrr
from evaluation.hypnogram import Hypnogram
from evaluation.spectra import spectra

DESATURATION = ("SpO2 Desaturation",)
START = datetime(2020, 2, 29, 23, 30, 15, tzinfo=UTC)


def staged(codes: str, scored: str | None = None, **more) -> Hypnogram:
    """A night of codes W, 1, 2, 3, R and ?, sure of each but the epochs in brackets' stead: lower-case w and r."""
    numbers = {"W": 0, "1": 1, "2": 2, "3": 3, "R": 4, "?": -1, "w": 0, "r": 4}
    stages = np.array([numbers[code] for code in codes], np.int32)
    sure = np.array([0.5 if code in "wr" else 0.9 for code in codes])
    probabilities = np.full((len(codes), 5), 0.2, np.float32)
    for epoch in np.flatnonzero(stages >= 0):
        probabilities[epoch] = (1 - sure[epoch]) / 4
        probabilities[epoch, stages[epoch]] = sure[epoch]
    other = None if scored is None else np.array([numbers[code] for code in scored], np.int32)
    return Hypnogram("night", stages, probabilities, START, other, **more)


def recording_of(night: Hypnogram) -> SimpleNamespace:
    """What reading a scoring has to know of the recording."""
    return SimpleNamespace(path=Path("night.edf"), seconds=30.0 * len(night.stages), start=night.start)


def test_statistics_against_figures_by_hand():
    #        4 wake, 2 N1, 6 N2, 2 wake, 4 N3, 2 unscored, 6 REM, 4 wake: 30 epochs, 15 min
    figures = staged("WWWW11222222WW3333??RRRRRRWWWW").statistics()
    assert {name: figures[name] for name in ("TIB", "TST", "SPT", "SOL", "REM_latency", "WASO", "unscored")} == {
        "TIB": 15.0,
        "TST": 9.0,
        "SPT": 11.0,
        "SOL": 2.0,
        "REM_latency": 8.0,
        "WASO": 1.0,
        "unscored": 1.0,
    }
    assert figures["SE"] == pytest.approx(100 * 9 / 15)
    assert figures["SME"] == pytest.approx(100 * 9 / 11, abs=1e-4)
    assert figures["minutes"] == {"W": 5.0, "N1": 1.0, "N2": 3.0, "N3": 2.0, "REM": 3.0}
    assert figures["share"] == pytest.approx({"N1": 100 / 9, "N2": 300 / 9, "N3": 200 / 9, "REM": 300 / 9}, abs=1e-4)
    assert figures["transitions"]["W"] == {"W": 7, "N1": 1, "N2": 0, "N3": 1, "REM": 0}
    assert figures["transitions"]["N2"] == {"W": 1, "N1": 0, "N2": 5, "N3": 0, "REM": 0}
    assert figures["transitions"]["N3"] == {"W": 0, "N1": 0, "N2": 0, "N3": 3, "REM": 0}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("WWWW", {"TST": 0, "SPT": 0, "SOL": None, "REM_latency": None, "WASO": None, "SE": 0, "SME": None}),
        ("2222", {"TST": 2, "SPT": 2, "SOL": 0, "REM_latency": None, "WASO": 0, "SE": 100, "SME": 100}),
        ("R", {"TST": 0.5, "SPT": 0.5, "SOL": 0, "REM_latency": 0, "WASO": 0, "SE": 100, "SME": 100}),
        ("????", {"TST": 0, "SPT": 0, "SOL": None, "unscored": 2, "SE": 0}),
    ],
)
def test_statistics_where_some_have_no_meaning(codes, expected):
    figures = staged(codes).statistics()
    assert {name: figures[name] for name in expected} == expected


YASA = ("WAKE", "N1", "N2", "N3", "REM", "UNS")
RUNS = st.lists(st.tuples(st.integers(-1, 4), st.integers(1, 40)), min_size=1, max_size=30)


@pytest.mark.xdist_group("yasa")
@settings(max_examples=50, deadline=None)
@given(runs=RUNS)
@example(runs=[(-1, 4)])
@example(runs=[(0, 20), (-1, 3)])
@example(runs=[(1, 1)])
@example(runs=[(4, 40)])
@example(runs=[(-1, 2), (4, 2), (-1, 2), (2, 2), (0, 2)])
def test_statistics_are_yasas(runs):
    """Of any night, also one without sleep, of one stage or one epoch, or that nobody scored."""
    import yasa

    stages = np.repeat(*np.transpose(runs)).astype("int32")
    ours = Hypnogram("night", stages, np.zeros((len(stages), 5), "float32")).statistics()
    night = yasa.Hypnogram(np.array(YASA)[stages], freq="30s")
    with np.errstate(invalid="ignore"):
        theirs, (counts, _) = night.sleep_statistics(), night.transition_matrix()
    # YASA counts the latency of REM from the first epoch.
    theirs["REM_latency"] = theirs["Lat_REM"] - theirs["SOL"]
    found = {name: ours[name] for name in ("TIB", "TST", "SPT", "SOL", "REM_latency", "WASO", "SE", "SME")}
    found |= {"UNS": ours["unscored"] or None}
    found |= {name: ours["minutes"][stage] for name, stage in zip(YASA, STAGES, strict=False)}
    found |= {f"%{stage}": share for stage, share in ours["share"].items()}
    for name, figure in found.items():
        # It rounds to four places, and leaves out what it has no epoch of.
        expected = theirs.get(name, np.nan)
        assert figure == (None if np.isnan(expected) else pytest.approx(expected, abs=1e-4)), name
    followed = counts.reindex(index=YASA[:5], columns=YASA[:5], fill_value=0).to_numpy()
    assert [list(row.values()) for row in ours["transitions"].values()] == followed.tolist()
    # The awakening from which nobody falls asleep again is no awakening within the sleep period.
    asleep = np.flatnonzero(stages > 0)
    last = len(asleep) and stages[asleep[-1] + 1 :][:1].tolist() == [0]
    assert ours["awakenings"] == (followed[1:, 0].sum() - last if len(asleep) else None)


# It takes long to import: one process does it.
@pytest.mark.xdist_group("yasa")
@pytest.mark.parametrize("write", [lambda night: night.as_events(), lambda night: night.hypno])
def test_yasas_hypnogram_is_read_back(write, tmp_path):
    """Its table of events, and the series that it holds, written as YASA's users write them."""
    smoothed = np.eye(7, 5, dtype="float32") + np.float32([0, 0, 0, 0, 0] * 5 + [1, 0, 0, 0, 0] * 2).reshape(7, 5)
    night = staged("WW12?3R", smoothed=smoothed)
    theirs = night.to_yasa()
    np.testing.assert_array_equal(theirs.proba[["WAKE", "N1", "N2", "N3", "REM"]], smoothed)
    assert theirs.start == pd.Timestamp(START)
    write(theirs).to_csv(tmp_path / "n.csv")
    assert (read_scoring(tmp_path / "n.csv", recording_of(night)).stages == night.stages).all()


def test_without_yasa(monkeypatch):
    monkeypatch.setitem(sys.modules, "yasa", None)
    with pytest.raises(InputError, match="pip install yasa"):
        staged("W").to_yasa()


@pytest.mark.parametrize("codes", ["?WW1222RR??W3", "W", "R1" * 40 + "?"])
def test_bids_and_nsrr_are_read_back(codes, tmp_path):
    night = replace(staged(codes), name="sub-01_task-sleep_eeg")
    save_bids(night, tmp_path)
    save_nsrr(night, tmp_path / "n.xml")
    for name in ("sub-01_task-sleep_desc-recsleep_events.tsv", "n.xml"):
        assert (read_scoring(tmp_path / name, recording_of(night)).stages == night.stages).all(), name


def test_bids_and_nsrr_are_in_their_forms(tmp_path):
    """As the text of the two has them, which no reader of ours sees."""
    night = staged("W1?w")
    save_bids(night, tmp_path)
    events = tmp_path / "night_desc-recsleep_events"
    rows = [line.split("\t") for line in events.with_suffix(".tsv").read_text().splitlines()]
    assert rows[0][:4] == ["onset", "duration", "annotation_type", "sleep_stage"]
    assert [row[:4] for row in rows[1:]] == [
        ["0", "30", "sleep_stage", "wake"],
        ["30", "30", "sleep_stage", "n1"],
        ["60", "30", "unscored", "n/a"],
        ["90", "30", "sleep_stage", "wake"],
    ]
    assert [row[-1] for row in rows[1:]] == ["0.9000", "0.9000", "n/a", "0.5000"]
    told = json.loads(events.with_suffix(".json").read_text())
    assert list(told) == rows[0]
    assert {row[3] for row in rows[1:]} - {"n/a"} <= set(told["sleep_stage"]["Levels"])
    save_nsrr(night, tmp_path / "n.xml")
    root = ElementTree.parse(tmp_path / "n.xml").getroot()
    assert (root.tag, root.findtext("EpochLength")) == ("PSGAnnotation", "30")
    begin, *stages = root.findall("ScoredEvents/ScoredEvent")
    assert (begin.findtext("Duration"), begin.findtext("ClockTime")) == ("120.0", "29.02.20 23.30.15")
    values = [[entry.findtext(tag) for tag in ("EventType", "EventConcept", "Start", "Duration")] for entry in stages]
    assert values[1] == ["Stages|Stages", "Stage 1 sleep|1", "30.0", "30.0"]
    assert [value[1] for value in values] == ["Wake|0", "Stage 1 sleep|1", "Unscored|9", "Wake|0"]


def test_annotations_and_edf_are_read_back(tmp_path):
    night = staged("WW1222RR??W")
    expected = [(0, 60, "W"), (60, 30, "N1"), (90, 90, "N2"), (180, 60, "R"), (240, 60, "?"), (300, 30, "W")]
    night.save_edf(tmp_path / "night.hypnogram.edf")
    for annotations in (night.to_annotations(), mne.read_annotations(tmp_path / "night.hypnogram.edf")):
        rows = zip(annotations.onset, annotations.duration, annotations.description, strict=True)
        assert list(rows) == [(onset, length, f"Sleep stage {stage}") for onset, length, stage in expected]
    raw = mne.io.RawArray(np.zeros((1, 33000)), mne.create_info(1, 100.0), verbose="error").set_meas_date(START)
    assert len(raw.set_annotations(night.to_annotations()).annotations) == 6
    assert (tmp_path / "night.hypnogram.edf").read_bytes()[168:184] == b"29.02.2023.30.15"


def test_the_index_of_each_stage():
    #              an hour of N2 with two runs, half an hour of REM with one, which begins in N2; wake does not count
    codes = "W" * 10 + "2" * 120 + "R" * 60
    apnea, hypopnea = np.zeros((2, 190), "float32")
    apnea[[5, 20, 21, 129, 130]] = 0.9
    hypopnea[22] = 0.9
    breathing = staged(codes, events={"apnea": apnea, "hypopnea": hypopnea}).breathing
    assert breathing["index_by_stage"] == {"N1": None, "N2": 2.0, "N3": None, "REM": 2.0}
    assert breathing["apnea_hypopnea_index"] == pytest.approx(2 / 1.5)
    assert breathing["index_by_position"] == {} and breathing["scorer"] is None
    alone = staged(codes, events={"apnea": apnea}, positions=np.full(190, "left")).breathing
    assert alone["apnea_hypopnea_index"] is None and set(alone["index_by_stage"].values()) == {None}
    assert alone["index_by_position"] == {name: {"minutes": 90.0, "index": None} for name in ("left", "not supine")}


def counted_runs(events, where) -> int:
    """How many runs of epochs hold an event and are where they are wanted, by plain Python."""
    runs, before = 0, False
    for event, wanted in zip(events, where, strict=True):
        runs += bool(event and wanted and not before)
        before = bool(event and wanted)
    return runs


def test_the_index_of_each_position_and_the_scorers_beside_it():
    rng = np.random.default_rng(0)
    stages, scored = rng.choice(list("W123R"), (2, 400)).tolist()
    names = ["", *["supine"] * 120, *["left"] * 90, *["supine"] * 60, *["prone"] * 39, *["upright"] * 90]
    # Nobody slept upright, or supine at last.
    stages[310:] = ["W"] * 90
    probabilities = rng.random((2, 400)).astype("float32")
    kinds = rng.choice(["Hypopnea", "Mixed Apnea", "SpO2 Desaturation"], 150).tolist()
    events = [
        Event(*event) for event in zip(kinds, rng.uniform(-20, 12_050, 150), rng.uniform(8, 70, 150), strict=True)
    ]
    scoring = Scoring(staged("".join(scored)).stages, 0.0, tuple(events), ("Mixed Apnea", "Hypopnea", *DESATURATION))
    night = staged(
        "".join(stages),
        "".join(scored),
        events=dict(zip(("apnea", "hypopnea"), probabilities, strict=True)),
        positions=np.array(names),
        scored_events=ScoredEvents.of(scoring),
    )
    found = (probabilities > 0.5).any(axis=0).tolist()
    by_hand = {}
    for position, those in (("supine",) * 2, ("prone",) * 2, ("left",) * 2, ("not supine", "prone left upright")):
        where = [stage != "W" and name in those.split() for stage, name in zip(stages, names, strict=True)]
        by_hand[position] = {
            "minutes": sum(where) / 2,
            "index": pytest.approx(counted_runs(found, where) * 120 / sum(where)),
        }
    assert night.breathing["index_by_position"] == by_hand
    asleep = [stage != "W" for stage in scored]
    apneas = [event for event in events if event.name not in DESATURATION]
    counted = sum(0 <= event.start < 12_000 and asleep[int(event.start / 30)] for event in apneas)
    there = [
        any(min(30 * epoch + 30, e.start + e.duration) - max(30 * epoch, e.start) >= 1 for e in apneas)
        for epoch in range(400)
    ]
    ours = night.breathing["apnea_hypopnea_index"]
    indices = {"counted": counted * 120 / sum(asleep), "estimated": counted_runs(there, asleep) * 120 / sum(asleep)}
    assert indices["counted"] > indices["estimated"] + 5
    assert night.breathing["scorer"] == {
        how: {"index": pytest.approx(index), "models": ours, "difference": pytest.approx(ours - index)}
        for how, index in indices.items()
    }
    # Beside a scorer of a part, the models' index is of that part too.
    part = replace(night, scored=np.where(np.arange(400) < 200, night.scored, -1))
    slept = [stage != "W" for stage in stages[:200]]
    theirs = counted_runs(found[:200], slept) * 120 / sum(slept)
    assert part.breathing["scorer"]["counted"]["models"] == pytest.approx(theirs) != ours
    assert part.breathing["apnea_hypopnea_index"] == ours


@pytest.mark.parametrize(
    ("names", "counts", "expected"),
    [
        (("Hypopnea", *DESATURATION), None, None),
        (("Obstructive Apnea", "Central Apnea"), None, None),
        (("Obstructive Apnea", "Hypopnea"), {"Obstructive Apnea": 5, "Hypopnea": 7}, 12),
        (("Obstructive Apnea", "Hypopnea"), {"Hypopnea": 7}, None),
        (("Obstructive Apnea", "Hypopnea"), None, 0),
    ],
)
def test_what_the_scorer_looked_for(names, counts, expected):
    """An index wants both apnea and hypopnea; a night file may not say how many events there were."""
    scored = ScoredEvents.of(Scoring(np.array([0, 2] * 60), 0.0, (), names, events_in_sleep=counts))
    assert (scored is None) == (len(set(names) & {"Hypopnea", "Obstructive Apnea"}) < 2)
    if scored:
        assert scored.in_sleep == expected
        index = None if expected is None else 2.0 * expected
        difference = None if expected is None else 3 - index
        assert scored.beside(3.0)["counted"] == {"index": index, "models": 3.0, "difference": difference}
        assert scored.beside(None)["estimated"] == {"index": 0.0, "models": None, "difference": None}


@pytest.mark.parametrize(
    ("scored", "lights", "models", "scorer"),
    [
        # TIB, TST, SE, SOL and REM latency of epochs 0 to 11, then of 4 to 11, whose beginning nobody scored.
        ("WWWW2222RR11??????", None, (6, 4, 400 / 6, 2, 2.5), (6, 4, 400 / 6, 2, 2)),
        ("????2222RR11??????", None, (4, 4, 100, None, None), (4, 4, 100, None, None)),
        # An epoch that is not scored in between is left out of the models' sleep too; it might have been REM.
        ("WWWW22?2RR11??????", None, (6, 3.5, 350 / 6, 2, None), (6, 3.5, 350 / 6, 2, None)),
        # The models' sleep begins where nobody scored.
        ("11??2222RR11??????", None, (6, 4, 400 / 6, None, None), (6, 5, 500 / 6, 0, None)),
        # What lies outside the time in bed does not count.
        ("?WWW2222RR11??????", (2, 12), (5, 4, 80, 1, 2.5), (5, 4, 80, 1, 2)),
        ("?WWW2222RR11??????", (2, 14), (5, 4, 80, 1, 2.5), (5, 4, 80, 1, 2)),
    ],
)
def test_a_scorer_of_a_part_is_compared_on_that_part(scored, lights, models, scorer):
    night = staged("WWWW22222R11111111", scored, lights=lights)
    names, whole = ("TIB", "TST", "SE", "SOL", "REM_latency"), night.statistics()
    found = [tuple(figures[name] for name in names) for figures in night.compared_statistics()]
    assert found == [pytest.approx(models), pytest.approx(scorer)]
    told = f"the scoring has {18 - scored.count('?')} of the recording's 18 epochs, and only these are compared"
    assert night.partly_scored == (lights != (2, 12)) == any(told in remark for remark in night.remarks)
    assert whole["TST"] > found[0][1] or lights == (2, 12)
    assert replace(night, scored=night.stages).compared_statistics() == (whole, whole)
    assert replace(night, scored=np.full(18, -1)).compared_statistics() is None


def test_csv(tmp_path):
    night = staged("W12?")
    night.save_csv(tmp_path / "n.csv")
    table = pd.read_csv(tmp_path / "n.csv")
    assert list(table) == ["epoch", "start_s", "stage", *STAGES]
    assert table["stage"].tolist() == ["W", "N1", "N2", "unscored"]
    assert table["start_s"].tolist() == [0, 30, 60, 90]
    np.testing.assert_allclose(table[list(STAGES)], night.probabilities, atol=1e-6)


def test_stretches_to_check():
    table = staged("WWwWwW222rr2?").unsure()
    # Neither a surer epoch between two unsure ones nor one that is not scored is to be checked.
    assert table[["epoch", "epochs"]].to_numpy().tolist() == [[9, 2], [2, 1], [4, 1]]
    assert table["stages"].tolist() == ["REM", "W", "W"]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ("W" * 350 + "R" * 40, []),
        ("W" * 370 + "2" * 20, ["95 % of 3.2 h are W"]),
        ("2" * 390, ["100 % of 3.2 h are N2"]),
        ("W1" * 195, ["3.2 h hold no N2, N3 or REM"]),
        # Three hours or less may well be of one stage; what is not scored does not count.
        ("W" * 360 + "?" * 40, []),
        ("?" * 400, []),
        ("w" * 10 + "r" * 10, []),
    ],
)
def test_doubts_of_a_night_that_is_like_none(codes, told):
    doubts = staged(codes).doubts
    assert [doubt.partition(":")[0] for doubt in doubts] == told


def test_doubts_of_an_unsure_night():
    night = staged("W2R")
    unsure = replace(night, probabilities=np.tile(np.float32([0.1, 0.1, 0.4, 0.3, 0.1]), (3, 1)))
    assert night.doubts == []
    (doubt,) = unsure.doubts
    assert doubt.startswith("the models' mean confidence is 0.40, below 0.5: check the channel and its unit")


@pytest.mark.parametrize("smoothed", [None, np.eye(6, 5, dtype="float32")])
def test_csv_is_read_back(smoothed, tmp_path):
    night = staged("W12?3R", events={"apnea": np.linspace(0, 1, 6, dtype="float32")}, smoothed=smoothed)
    night.save_csv(tmp_path / "n.csv")
    again = Hypnogram.read_csv(tmp_path / "n.csv", name="night", start=START)
    assert (again.stages == night.stages).all() and again.stages.dtype == np.int32
    np.testing.assert_allclose(again.probabilities, night.probabilities, atol=1e-6)
    np.testing.assert_allclose(again.events["apnea"], night.events["apnea"], atol=1e-6)
    assert (again.smoothed is None) == (smoothed is None)
    # By it a browser knows the night again, whatever it is called.
    assert replace(again, name="other").fingerprint == night.fingerprint
    assert replace(again, stages=again.stages[::-1]).fingerprint != night.fingerprint
    again.save_csv(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "n.csv").read_bytes()


@pytest.mark.parametrize("text", [b"", b"epoch,stage\n0,W\n", b"\xff\xfe", "no stage", "no number"])
def test_what_is_no_hypnogram(tmp_path, text):
    path = tmp_path / "n.csv"
    staged("W12?").save_csv(path)
    whole = path.read_bytes()
    path.write_bytes({"no stage": whole.replace(b"N1", b"N7", 2), "no number": whole[:-30]}.get(text, text))
    with pytest.raises(InputError, match="is not a hypnogram of this toolkit"):
        Hypnogram.read_csv(path, name="night")
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        Hypnogram.read_csv(path, name="night")


def test_agreement_leaves_out_what_one_has_not_scored():
    night = staged("WW22?R", "W122R?")
    assert night.agreement.epochs == 4
    assert night.agreement.accuracy == 0.75
    assert night.differing()[["epoch", "epochs", "stages", "scored"]].to_numpy().tolist() == [[1, 1, "W", "N1"]]
    assert staged("W").agreement is None
    assert staged("WW", "??").agreement is None


def test_sleep_periods():
    night = staged("W" * 20 + "2" * 100 + "W" * 300 + "3" * 40 + "W" * 10)
    assert night.periods() == [(20, 120), (420, 460)]
    assert "2 periods of sleep, 23:40:15 to 00:30:15, 03:00:15 to 03:20:15" in night.remarks[0]
    assert staged("2" * 100 + "W" * 200 + "2" * 100).periods() == [(0, 400)]
    assert "no sleep was found." in staged("W" * 30).remarks


@pytest.mark.parametrize("codes", ["WW112233RRW" * 30, "WW1122W" * 30, "W" * 40, "2", "?" * 30, "R" * 2880])
@pytest.mark.parametrize("start", [START, None])
def test_pictures_of_any_night(codes, start):
    signals = np.random.default_rng(0).normal(size=(len(codes), 3000)).astype("float32")
    night = staged(codes, codes[::-1], spectra=spectra(signals))
    figure = Hypnogram(**{**vars(night), "start": start}).plot()
    figure.draw_without_rendering()
    assert [axis.get_ylabel() for axis in figure.axes[:3]] == ["", "probability", "Hz"]
    stages = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert stages == ["W", "REM", "N1", "N2", "N3"]


def test_spectra_of_a_tone():
    time = np.arange(3000) / 100
    power = spectra(np.stack([np.sin(2 * np.pi * 10 * time), np.zeros(3000)]).astype("float32"))
    assert power.shape == (2, 61)
    assert power[0].argmax() == 20
    assert np.isfinite(power).all()


def test_spectra_are_scipys():
    signals = np.random.default_rng(0).normal(300, 20, (7, 3000)).cumsum(axis=1).astype("float32")
    _, power = welch(signals.astype(float), 100, nperseg=200, noverlap=100)
    expected = 10 * np.log10(power[:, :61] / np.median(power[:, :61]))
    np.testing.assert_allclose(spectra(signals), np.maximum(expected, -60), atol=1e-3)
