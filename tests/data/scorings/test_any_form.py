"""A scorer's stages in every common form."""

import json

import numpy as np
import pytest
from recordings import profusion_xml, typed_xml, write_hypnogram

from data.scorings.any_form import read_scoring
from data.scorings.scoring import Event
from data.terms import InputError

STAGES = [0, 1, 2, 3, 4, -1, 0]


class FakeStart:
    """A recording of seven epochs and a bit."""

    path = "night.edf"
    seconds = 7 * 30 + 12.0
    start = None


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "W\nN1\nN2\nN3\nREM\n?\nW\n"),
        ("b.txt", "0\n1\n2\n3\n5\n7\n0\n"),
        ("c.txt", "Wake\nStage 1\nS2\nSleep stage 4\nSleep stage R\nMT\nw\n"),
        (
            "d.csv",
            "epoch,start_s,stage,W\n0,0,W,1\n1,30,N1,1\n2,60,N2,1\n3,90,N3,1\n4,120,REM,1\n5,150,unscored,1\n6,180,W,1",
        ),
        ("e.csv", "onset;duration;description\n60;30;N2\n0;30;W\n30;30;1\n90;30;S4\n120;30;R\n180;30;W\n"),
        ("f.tsv", "stage\tscorer\nW\tx\nN1\tx\nN2\tx\nN3\tx\nREM\tx\nart\tx\nW\tx\n"),
        ("h.csv", "Sleep stage\nW\nN1\nN2\nN3\nREM\n?\nW\n"),
        ("i.csv", "epoch,stage\n0, 0\n1, 1\n2, 2\n3, 4\n4, 5\n5, 7\n6, 0\n"),
        # BIDS: other events between the stages.
        (
            "sub-1_events.tsv",
            "onset\tduration\ttrial_type\n0\t30\tSleep stage W\n3\tn/a\tlights off\n30\t30\tN1\n60\t30\tN2\n"
            "75\t4.5\tarousal\n90\t30\tN3\n120\t30\tREM\n150\t30\tn/a\n180\t30\tW\n",
        ),
        # Begins 10 s late: each epoch has its middle in the scorer's.
        ("g.csv", "start,stage\n10,W\n40,N1\n70,N2\n100,N3\n130,REM\n190,W\n"),
    ],
)
def test_texts(tmp_path, name, text):
    assert read_scoring(write(tmp_path, name, text), FakeStart()).stages.tolist() == STAGES


def test_edf_annotations_beside_other_ones(tmp_path):
    texts = [
        "Sleep stage W",
        "Sleep stage N1",
        "Sleep stage 2",
        "Sleep stage 3",
        "Sleep stage R",
        "Sleep stage ?",
        "Sleep stage W",
    ]
    rows = [(30.0 * i, 30.0, text) for i, text in enumerate(texts)] + [(12.0, 15.0, "Arousal")]
    path = write_hypnogram(tmp_path / "h.edf", rows)
    scoring = read_scoring(path, FakeStart())
    assert scoring.stages.tolist() == STAGES
    # Nobody says whether events were looked for.
    assert scoring.event_names == scoring.positions == ()


def test_by_the_rules_of_a_specification(tmp_path):
    """Labels and columns that no other reader knows; a scorer who begins 10 s late."""
    rows = [(10, "Wach"), (40, "S1"), (70, "S2"), (100, "Tief"), (130, "Traum"), (160, "Bewegung"), (190, "Wach")]
    text = "\n".join(["Beginn;Dauer;Stadium", *(f"{start};30;{label}" for start, label in rows), "75;12;Apnoe"])
    path = write(tmp_path, "s.csv", text)
    rules = {
        "form": "csv",
        "labels": {"Wach": 0, "S1": 1, "S2": 2, "Tief": 3, "Traum": 4, "Bewegung": -1},
        "events": {"Apnoe": "Obstructive Apnea"},
        "columns": {"start": "Beginn", "duration": "Dauer", "label": "Stadium"},
    }
    scoring = read_scoring(path, FakeStart(), rules)
    assert scoring.stages.tolist() == STAGES and scoring.start == 0
    assert scoring.events == (Event("Obstructive Apnea", 75, 12),)
    with pytest.raises(InputError, match="the label 'Traum' is not among the spec's labels"):
        read_scoring(path, FakeStart(), {**rules, "labels": {"Wach": 0, "S1": 1, "S2": 2, "Tief": 3}})


@pytest.mark.parametrize(
    "text",
    [
        "Wach\nN1\nN2\nSWS\n4\nleer\nWach\n",
        "epoch;stage\n0;Wach\n1;S1\n2;N2\n3;SWS\n4;4\n5;leer\n6;W\n",
        "onset\tduration\tstage\n0\t30\tWach\n30\t30\tN1\n60\t30\tN2\n90\t30\tSWS\n120\t30\t4\n180\t30\tW\n",
    ],
)
def test_a_scorers_own_words_in_a_common_form(tmp_path, text):
    """A specification of any form explains the words that are not known, and what else is ambiguous."""
    rules = {"form": "any", "labels": {"Wach": 0, "SWS": 3, "4": 4, "leer": -1}, "events": {}, "columns": {}}
    path = write(tmp_path, "a_events.tsv" if "\t" in text else "a.txt", text)
    assert read_scoring(path, FakeStart(), rules).stages.tolist() == STAGES
    with pytest.raises(InputError, match=r"'Wach' is not a stage|4 may mean"):
        read_scoring(path, FakeStart())


def bids_of(*scorers: tuple[str, str, str]) -> str:
    """BIDS events of several annotators: each one's method, name and stages of the first epochs, a letter each."""
    rows = [
        f"{30 * epoch}\t30\t{'n/a' if code == '?' else f'n{code}' if code in '123' else code}\t{method}\t{who}"
        for method, who, codes in scorers
        for epoch, code in enumerate(codes)
    ]
    return "\n".join(["onset\tduration\tsleep_stage\tannotation_method\tannotator_id", *rows]) + "\n"


def test_bids_events_of_several_annotators(tmp_path):
    """Those of a scorer count before those of software; of two scorers nobody can choose."""
    software = ("automated", "yasa", "W222222")
    text = bids_of(software, ("manual_consensus", "us", "W123R?W"))
    assert read_scoring(write(tmp_path, "a_events.tsv", text), FakeStart()).stages.tolist() == STAGES
    alone = read_scoring(write(tmp_path, "b_events.tsv", bids_of(software)), FakeStart())
    assert alone.stages.tolist() == [0, 2, 2, 2, 2, 2, 2]
    text = bids_of(("manual", "me", "W1"), ("manual", "you", "W2"))
    with pytest.raises(InputError, match="holds the scorings of me, you: keep the rows of only one of them"):
        read_scoring(write(tmp_path, "c_events.tsv", text), FakeStart())


EVENTS = [(35.0, 12.0, "Hypopnea"), (62.5, 40.0, "Central Apnea"), (130.0, 11.0, "Obstructive Apnea")]
POSITIONS = ((0.0, "supine"), (100.0, "left"))


def written(folder, form: str):
    """The same night in a form that holds breathing events and positions, and what is neither, besides its stages."""
    names = dict(zip("012359", ("W", "N1", "N2", "N3", "R", "?"), strict=True))
    stages = [(30.0 * epoch, 30.0, f"Sleep stage {names[code]}") for epoch, code in enumerate("0123590")]
    labels = ("RespEvent - Hypopnoea - 4", "apnea_central", "Apnea")
    events = [(on, length, label) for (on, length, _), label in zip(EVENTS, labels, strict=True)]
    others = [(0.0, 0.0, "Body Position: Supine"), (100.0, 5.0, "left"), (90.0, 3.0, "Arousal"), (91.0, 9.0, "RERA")]
    if form == "edf":
        return write_hypnogram(folder / "n.edf", [*stages, *others, *events])
    if form == "xml":
        concepts = [(label, on, length) for on, length, label in EVENTS]
        concepts += [("Body Position: Supine", 0.0, 0.0), ("Left", 100.0, 5.0), ("Arousal", 90.0, 3.0)]
        # How long a position lasts, nobody has to say.
        text = typed_xml("0123590", concepts).replace(
            "<Start>0.0</Start>\n<Duration>0.0</Duration>", "<Start>0</Start>"
        )
        return write(folder, "n.xml", text)
    alone = form == "trial_type"
    kinds = ["trial_type"] if alone else ["sleep_stage", "annotation_type", "annotation_method", "annotator_id"]
    rows = [(row, [row[2]] if alone else [row[2], "sleep_stage", "manual", "me"]) for row in stages]
    rows += [(row, [row[2]] if alone else ["n/a", row[2], "manual", "me"]) for row in (*events, *others)]
    if not alone:
        # Of somebody who scored no stage, and of software.
        rows += [((70.0, 20.0), ["n/a", "Hypopnea", "manual", "you"])]
        rows += [((70.0, 20.0), ["n/a", "Hypopnea", "automated", "me"])]
    table = [["onset", "duration", *kinds], *([row[0], row[1] or "n/a", *cells] for row, cells in rows)]
    return write(folder, "n_events.tsv", "\n".join("\t".join(map(str, row)) for row in table) + "\n")


@pytest.mark.parametrize("form", ["edf", "xml", "trial_type", "annotation_type"])
def test_events_and_positions(tmp_path, form):
    scoring = read_scoring(written(tmp_path, form), FakeStart())
    assert scoring.stages.tolist() == STAGES and scoring.start == 0
    assert sorted((e.start, e.duration, e.name) for e in scoring.events) == EVENTS
    assert {"Hypopnea", "Central Apnea", "Obstructive Apnea", "Mixed Apnea"} <= set(scoring.event_names)
    assert scoring.positions == POSITIONS and scoring.events_in_sleep is None


@pytest.mark.parametrize("form", [typed_xml, profusion_xml])
def test_nsrr(tmp_path, form):
    assert read_scoring(write(tmp_path, "n.xml", form("0123590", [])), FakeStart()).stages.tolist() == STAGES


@pytest.mark.parametrize("events", [None, [[0, 1], [1, 1], [1, 0], [0, 0], [1, 0], [0, 0], [0, 0]]])
def test_a_night_file(tmp_path, events):
    """The events are runs of epochs, which do not tell how many began; that, preparation counted."""
    counts = {"Hypopnea": 7, "Mixed Apnea": 2}
    more = {} if events is None else {"events": np.array(events), "event_names": np.array(list(counts))}
    np.savez(tmp_path / "n.npz", y=np.array(STAGES), **more, about=np.array(json.dumps({"events_in_sleep": counts})))
    scoring = read_scoring(tmp_path / "n.npz", FakeStart())
    assert scoring.stages.tolist() == STAGES and scoring.events_in_sleep == counts
    if events is None:
        assert scoring.events == scoring.event_names == ()
    else:
        assert scoring.event_labels(7).tolist() == events and len(scoring.events) == 3


@pytest.mark.parametrize("about", [{"trimmed_minutes": 12.5}, {"dropped_epochs": 1}, {}])
def test_a_prepared_night_that_lacks_epochs(tmp_path, about):
    stages = STAGES if about else STAGES[:4]
    np.savez(tmp_path / "n.npz", y=np.array(stages), about=np.array(json.dumps(about)))
    with pytest.raises(InputError, match="preparation left some out"):
        read_scoring(tmp_path / "n.npz", FakeStart())


def test_bare_numbers_among_annotations(tmp_path):
    path = write_hypnogram(tmp_path / "h.edf", [(30.0 * i, 30.0, text) for i, text in enumerate("01234")])
    with pytest.raises(InputError, match="4 may mean stage 4 or REM"):
        read_scoring(path, FakeStart())


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "W\nN1\nbanana\n", "'banana' is not a stage.*, or say what it means in the labels of a --spec FILE"),
        ("a.txt", "Epochennr;Schlafstadium\n0;W\n", "begins with 'Epochennr;Schlafstadium', where no column is called"),
        ("a.txt", "0,W\n1,N1\n", "begins with '0,W', .* such as epoch,stage"),
        ("a.txt", "0\n1\n2\n3\n4\n", "4 may mean stage 4 or REM"),
        ("a.txt", "0.0\n1.0\n4.0\n?\n", "4 may mean stage 4 or REM"),
        ("a.csv", "epoch,stage\n0, 0\n1, 4\n", "4 may mean stage 4 or REM"),
        ("a.txt", "W\n\nN1\n", "line 2 is empty"),
        ("a.csv", "start,stage\n0,W\nnan,N1\n", "start or duration is not a number"),
        ("a.csv", "start,duration,stage\n0,0.002,W\n", "has no duration"),
        ("a.txt", "", "scores no epoch"),
        ("a.txt", "W\n" * 12, "scores 5 epochs beyond the end of night.edf"),
        ("a.csv", "start,stage\nsoon,W\n", "is not a table of stages"),
        ("a.csv", "start,stage\n3000,W\n", "check that they belong together"),
        ("a.npz", "no zip", "never loaded"),
        ("a.edf", "no edf", "holds no annotations"),
        ("absent/a.txt", None, "does not exist"),
    ],
)
def test_what_is_no_scoring(tmp_path, name, text, told):
    path = tmp_path / name if text is None else write(tmp_path, name, text)
    with pytest.raises(InputError, match=told):
        read_scoring(path, FakeStart())
