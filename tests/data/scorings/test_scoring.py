"""Scorings: the reference files counted another way, and everything a scoring may get wrong."""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import recordings

from data.scorings import isruc, nsrr, ucddb
from data.scorings.scoring import Event, Scoring, from_intervals
from data.terms import EVENTS, STAGES, UNSCORED, InputError

NIGHT = SimpleNamespace(path=Path("night.rec"), seconds=8 * 3600, start=datetime(2000, 1, 1, 23, 0, 0, tzinfo=UTC))


def stage_counts(scoring: Scoring) -> dict[str, int]:
    return {stage: int((scoring.stages == i).sum()) for i, stage in enumerate(STAGES)} | {
        "unscored": int((scoring.stages == UNSCORED).sum())
    }


@pytest.mark.parametrize("name", ["learn-nsrr01", "learn-nsrr02"])
def test_profusion_counted_by_pattern(reference, name):
    path = reference / "annotations" / f"{name}.xml"
    scoring = nsrr.read_scoring({"stages": path})
    text = path.read_text()
    codes = Counter(re.findall(r"<SleepStage>(\d)</SleepStage>", text))
    assert stage_counts(scoring) == {
        "W": codes["0"],
        "N1": codes["1"],
        "N2": codes["2"],
        "N3": codes["3"] + codes["4"],
        "REM": codes["5"],
        "unscored": codes["6"] + codes["9"],
    }
    written = Counter(re.search(r"<Name>([^<]*)<", entry)[1].title() for entry in text.split("<ScoredEvent>")[1:])
    found = Counter(event.name.title() for event in scoring.events)
    assert found == {name: written[name] for name in ("Hypopnea", "Obstructive Apnea", "Spo2 Desaturation")}
    check_labels(
        scoring,
        pd.read_xml(path, xpath=".//ScoredEvent", parser="etree").assign(
            name=lambda t: t.Name.replace("SpO2 desaturation", EVENTS[-1])
        ),
    )


def test_sdo_concepts_counted_by_pandas(reference):
    path = reference / "annotations" / "psgannotation-sdo.xml"
    scoring = nsrr.read_scoring({"stages": path})
    table = pd.read_xml(path, xpath=".//ScoredEvent", encoding="latin-1", parser="etree")
    epochs = (table.groupby("EventConcept").Duration.sum() / 30).to_dict()
    assert stage_counts(scoring) == {
        "W": epochs["SDO:WakeState"],
        "N1": epochs["SDO:NonRapidEyeMovementSleep-N1"],
        "N2": epochs["SDO:NonRapidEyeMovementSleep-N2"],
        "N3": epochs["SDO:NonRapidEyeMovementSleep-N3"],
        "REM": epochs["SDO:RapidEyeMovementSleep"],
        "unscored": 0,
    }
    names = {"SDO:HypopneaFinding": "Hypopnea", "SDO:HemoglobinOxygenDesaturationFinding": "SpO2 Desaturation"}
    table["name"] = table.EventConcept.map(names)
    written = table.name.value_counts().to_dict()
    assert Counter(event.name for event in scoring.events) == written == {"Hypopnea": 40, "SpO2 Desaturation": 34}
    check_labels(scoring, table)


def check_labels(scoring: Scoring, table: pd.DataFrame) -> None:
    """Every epoch that an event covers for a second or more is labelled, and no other; counted on a grid of 10 ms."""
    labels = scoring.event_labels(len(scoring.stages), overlap=1.0)
    for column, name in enumerate(EVENTS):
        grid = np.zeros((len(scoring.stages) + 40) * 3000, int)
        expected = np.zeros(len(scoring.stages), bool)
        for start, duration in table.loc[table.name == name, ["Start", "Duration"]].astype(float).to_numpy():
            grid[:] = 0
            grid[round(start * 100) : round((start + duration) * 100)] = 1
            expected |= grid.reshape(-1, 3000).sum(axis=1)[: len(expected)] >= 100
        assert np.array_equal(labels[:, column], expected), name


def test_overlap_of_a_second_counts():
    scoring = Scoring(
        np.zeros(4, int), 0.0, (Event("Hypopnea", 29.0, 2.0), Event("Hypopnea", 59.5, 31.4)), ("Hypopnea",)
    )
    # Each side of 30 s has its second; of the other event, half a second lies before 60 s and 0.9 s after 90 s.
    assert scoring.event_labels(4, 1.0).ravel().tolist() == [1, 1, 1, 0]
    assert scoring.event_labels(4, 0.5).ravel().tolist() == [1, 1, 1, 1]
    assert scoring.event_labels(4, 1.5).ravel().tolist() == [0, 0, 1, 0]


def test_epochs_align_with_the_first_entry():
    stages, start = from_intervals(Path("a"), [(17.0, 60.0, 2), (107.0, 30.0, 4)])
    assert start == 17.0 and stages.tolist() == [2, 2, UNSCORED, 4]


@pytest.mark.parametrize(
    ("intervals", "told"),
    [
        ([], "scores no epoch"),
        ([(0, 600, UNSCORED)], "scores no epoch"),
        ([(0, 45, 2)], "lasts 45 s, which does not fit"),
        ([(0, 30, 2), (40, 30, 3)], "the stage at 40 s"),
        ([(0, 1e9, 2)], "which is not a night"),
        ([(-60, 90, 2)], "scores from -60 s"),
    ],
)
def test_intervals_off_the_grid_are_told(intervals, told):
    with pytest.raises(InputError, match=told):
        from_intervals(Path("a"), intervals)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "scores no epoch"),
        ("0\n1\n7\n", "epoch 2 is scored '7': the only codes are '0', '1', '2', '3', '5'"),
        ("0\nN2\n", "epoch 1 is scored 'N2'"),
        ("\0\0\0", "is not a text file"),
    ],
)
def test_codes_out_of_range_are_told(tmp_path, text, told):
    (tmp_path / "1_1.txt").write_text(text)
    with pytest.raises(InputError, match=told):
        isruc.read_scoring({"stages": tmp_path / "1_1.txt"}, NIGHT)


@pytest.mark.parametrize(
    ("rows", "start", "told"),
    [
        ("20:00:00  HYP-C  12\n", NIGHT.start, "the Hypopnea at 20:00:00 is outside the recording"),
        ("23:30:00  HYP-C  12\n", None, "does not say when it starts"),
        ("nothing of the kind", NIGHT.start, "no table of breathing events"),
    ],
)
def test_ucddb_events_that_cannot_be_placed_are_told(tmp_path, rows, start, told):
    (tmp_path / "stages").write_text("0\n1\n")
    (tmp_path / "events").write_text(rows)
    night = SimpleNamespace(**{**vars(NIGHT), "start": start})
    with pytest.raises(InputError, match=told):
        ucddb.read_scoring({"stages": tmp_path / "stages", "events": tmp_path / "events"}, night)


def test_profusions_events_are_no_stages(tmp_path):
    """Its stages stand in a list of their own."""
    text = recordings.profusion_xml("0123", [("Hypopnea", 3, 12)])
    strange = "<ScoredEvent><EventType>Stages|Stages</EventType><Name>Foo|Wake</Name></ScoredEvent></ScoredEvents>"
    (tmp_path / "a.xml").write_text(text.replace("</ScoredEvents>", strange))
    scoring = nsrr.read_scoring({"stages": tmp_path / "a.xml"})
    assert scoring.stages.tolist() == [0, 1, 2, 3] and [event.name for event in scoring.events] == ["Hypopnea"]


XML = '<?xml version="1.0"?>'
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "ha"}">' for i in range(10))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not valid XML"),
        ("<PSGAnnotation><Scored", "is not valid XML"),
        ("<html/>", "is XML of the kind html, but"),
        (f"{XML}<!DOCTYPE x [{LAUGHS}]><PSGAnnotation>&l9;</PSGAnnotation>", "declares XML entities"),
        (f'{XML}<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>', "declares XML entities"),
        ("<PSGAnnotation><EpochLength>20</EpochLength></PSGAnnotation>", "in epochs of 20 s"),
        ("<PSGAnnotation><EpochLength>x</EpochLength></PSGAnnotation>", "the EpochLength is 'x'"),
        ("<PSGAnnotation/>", "scores no epoch"),
        ("<CMPStudyConfig/>", "scores no epoch"),
        (recordings.profusion_xml("018", []), "epoch 2 is scored '8'"),
        (recordings.profusion_xml("01", [("Hypopnea", "nan", 3)]), "the Start of Hypopnea is 'nan'"),
        (recordings.profusion_xml("01", [("Hypopnea", 3, -1)]), "the Duration of Hypopnea is -1"),
        (recordings.typed_xml("012", []).replace("|2", "|7"), "'Stage 2 sleep.7' is not a known sleep stage"),
        (recordings.typed_xml("012", []).replace(">30.0<", ">1e300<", 1), "not a number of seconds"),
        (recordings.typed_xml("012", []).replace("<Start>0.0</Start>", ""), "the Start of Wake.0 is ''"),
    ],
)
def test_bad_xml_is_told(tmp_path, text, told):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=told):
        nsrr.read_scoring({"stages": tmp_path / "a.xml"})
