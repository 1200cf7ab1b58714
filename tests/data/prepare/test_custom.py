"""A lab's own recordings: several formats, several ways to score, no code."""

import mne
import numpy as np
import pytest
import recordings
from recordings import wave

import trainer
from data.nights.night import read_night
from data.prepare.__main__ import main
from data.prepare.custom import load_spec
from data.terms import InputError

TOML = """
recordings = "*_psg.edf"
subject = 'sub-(\\d+)'
scoring = "{name}.csv"
form = "csv"
columns = {start = "Onset", duration = "Duration", label = "Stage"}

[channels]
"C4-M1" = ["EEG C4-A1", "C4:M1"]
Chin = {spellings = ["EMG chin"], band = [10, 45]}

[labels]
Wach = "W"
S1 = "N1"
S2 = "N2"
Tief = "N3"
REM = "REM"
Bewegung = "unscored"

[events]
Hyp = "Hypopnea"
"""

YAML = """
recordings: "*.{ending}"
scoring: "{{name}}_stages.txt"
form: lines
channels:
  C4: []
labels: {{0: W, 1: N1, 2: N2, 3: N3, 5: REM, 9: unscored}}
"""


def prepare(tmp_path, spec, *options) -> int:
    folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    return main(["--db", "custom", "--spec", str(spec), *folders, *options])


def test_csv_scoring_and_events(tmp_path):
    spec = tmp_path / "lab.toml"
    spec.write_text(TOML)
    folder = tmp_path / "raw" / "sub-07"
    data = {
        "EEG C4-A1": (wave(200, 250), 250, "uV"),
        "EMG chin": (wave(200, 500, 1) + 20 * np.sin(2 * np.pi * 20 * np.arange(100_000) / 500), 500, "uV"),
    }
    recordings.write_edf(folder / "night_psg.edf", data)
    # The scorer began 12 s into the recording.
    (folder / "night_psg.csv").write_text(
        "Onset;Duration;Stage\n12;60;Wach\n72;30;S2\n80;11.5;Hyp\n102;30;Bewegung\n132;30;Tief\n162;30;REM\n"
    )
    assert prepare(tmp_path, spec) == 0
    night = read_night(tmp_path / "out" / "subject7_night_psg.npz", ["C4-M1", "Chin"])
    assert night.stages.tolist() == [0, 0, 2, 3, 4]
    true = wave(200, 100)[1200 : 1200 + 6 * 3000].reshape(6, 3000)[[0, 1, 2, 4, 5]]
    assert np.abs(night.signals[:, 0] - true).max() < 0.003 * 80 + 400 / 65535
    # The band lets the 20-Hz tone through and little else.
    assert night.signals[:, 1].std() == pytest.approx(20 / np.sqrt(2), rel=0.01)
    file = np.load(tmp_path / "out" / "subject7_night_psg.npz")
    assert file["events"].ravel().tolist() == [0, 0, 1, 0, 0] and file["event_names"].tolist() == ["Hypopnea"]


@pytest.mark.parametrize("ending", ["fif", "vhdr", "bdf"])
def test_other_formats(tmp_path, ending):
    raw = tmp_path / "raw"
    raw.mkdir()
    info = mne.create_info(["C4", "O2"], 128.0, "eeg")
    array = mne.io.RawArray(np.stack([wave(150, 128), wave(150, 128, 1)]) * 1e-6, info, verbose="error")
    name = "a_raw" if ending == "fif" else "a"
    if ending == "fif":
        array.save(raw / "a_raw.fif", verbose="error")
    else:
        mne.export.export_raw(raw / f"a.{ending}", array, verbose="error")
    (raw / f"{name}_stages.txt").write_text("0 1 9 3 5")
    spec = tmp_path / "lab.yaml"
    spec.write_text(YAML.format(ending=ending))
    assert prepare(tmp_path, spec) == 0
    night = read_night(tmp_path / "out" / f"subject0_{name}.npz", ["C4"])
    assert night.stages.tolist() == [0, 1, 3, 4]
    true = wave(150, 100).reshape(5, 3000)[[0, 1, 3, 4]]
    assert np.abs(night.signals[:, 0] - true)[:, 100:-100].max() < 0.003 * 80 + 0.05


def test_annotations_nsrr_and_corrections(tmp_path):
    raw = tmp_path / "raw"
    recordings.write_edf(raw / "a.edf", {"C4": (wave(150, 100), 100, "uV")})
    recordings.write_hypnogram(raw / "a_hyp.edf", [(0, 60, "Wake"), (60, 90, "N2 (AASM)")])
    spec = tmp_path / "lab.toml"
    head = 'recordings = "a.edf"\n[channels]\nC4 = []\n'
    spec.write_text(
        f'scoring = "{{name}}_hyp.edf"\nform = "annotations"\n{head}[labels]\nWake = "W"\n"N2 (AASM)" = "N2"\n'
    )
    assert prepare(tmp_path, spec) == 0
    assert read_night(tmp_path / "out" / "subject0_a.npz", ["C4"]).stages.tolist() == [0, 0, 2, 2, 2]
    (tmp_path / "out").rename(tmp_path / "first")
    (raw / "a.xml").write_text(recordings.profusion_xml("01295", []))
    spec.write_text(f'scoring = "{{name}}.xml"\nform = "nsrr"\n{head}')
    assert prepare(tmp_path, spec) == 0
    assert read_night(tmp_path / "out" / "subject0_a.npz", ["C4"]).stages.tolist() == [0, 1, 2, 4]
    (tmp_path / "out").rename(tmp_path / "second")
    rows = [
        "epoch,stage,model_stage,probability,corrected",
        "0,N1,W,0.5,me",
        "1,W,W,0.9,",
        "2,N2,N2,0.9,",
        "3,REM,N1,0.4,me",
    ]
    (raw / "a.csv").write_text("\n".join([*rows, "4,SWS,N3,0.9,"]))
    spec.write_text(f'scoring = "{{name}}.csv"\nform = "any"\n{head}[labels]\nSWS = "N3"\n')
    assert prepare(tmp_path, spec) == 0
    assert read_night(tmp_path / "out" / "subject0_a.npz", ["C4"]).stages.tolist() == [1, 0, 2, 4, 3]


def test_the_trainer_takes_them(tmp_path, capsys):
    """Subjects are those in the file names; no code, no list of subjects."""
    raw = tmp_path / "raw"
    for subject in range(3, 7):
        recordings.write_edf(raw / f"sub-{subject}" / "n.edf", {"C4": (wave(750, 100, subject), 100, "uV")})
        (raw / f"sub-{subject}" / "n.txt").write_text("0 1 2 3 5 " * 5)
    spec = tmp_path / "lab.toml"
    spec.write_text(
        'recordings = "n.edf"\nscoring = "{name}.txt"\nform = "lines"\nsubject = \'sub-(\\d+)\'\n'
        '[channels]\nC4 = []\n[labels]\n0 = "W"\n1 = "N1"\n2 = "N2"\n3 = "N3"\n5 = "REM"\n'
    )
    assert prepare(tmp_path, spec) == 0
    small = ["reconstruction_passes=1", "passes=1", "filters=4", "lstm_units=4", "window_epochs=5", "folds=2"]
    command = ["--db", "custom", "--data", str(tmp_path / "out"), "--out", str(tmp_path / "models"), "--to_fold", "0"]
    options = [part for value in small for part in ("--set", value)]
    assert trainer.main([*command, *options]) == 2
    assert "name the channel to stage with --set channel=NAME" in capsys.readouterr().err
    assert trainer.main([*command, *options, "--set", "channel=C4"]) == 0
    assert "fold 0: 1 subjects train, 1 validate, 2 test." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("recordings", "recording"), "'recording' is not part of a spec"),
        (('form = "csv"', 'form = "edf"'), "form is 'edf': choose one of annotations, csv, lines, nsrr"),
        (('form = "csv"', "form = 3"), "form must be a text"),
        (('form = "csv"\n', ""), "form is missing: give the form of the scoring"),
        (('"{name}.csv"', '"../{name}.csv"'), "scoring must be the scoring's file name"),
        (('"{name}.csv"', '"{0.__class__}"'), "scoring must be the scoring's file name"),
        (('"N3"', '"S3"'), "labels names 'S3': choose among W, N1, N2, N3, REM, unscored"),
        (('"Hypopnea"', '"Snoring"'), "events names 'Snoring'"),
        (("[10, 45]", "[45, 10]"), "channel Chin: band must be two frequencies"),
        (("[10, 45]", "[10, 80]"), "channel Chin: band must be two frequencies"),
        (("(\\d+)", "(\\d+"), "subject is not a valid regular expression"),
        (("(\\d+)", "\\d+"), "subject must have a group"),
        (("[labels]", "[labels"), "is not valid TOML"),
        (('form = "csv"', 'form = "any"'), "events has no effect with the form any: leave it out"),
        (('"Onset"', '"Onset", more = "x"'), "columns may hold only start, duration, label"),
    ],
)
def test_bad_specs_are_told(tmp_path, change, told):
    assert change[0] in TOML
    (tmp_path / "lab.toml").write_text(TOML.replace(*change))
    with pytest.raises(InputError) as error:
        load_spec(tmp_path / "lab.toml")
    assert told in str(error.value)


YAML_HEAD = "recordings: a\nscoring: b\nform: csv\nchannels: {C4: []}\n"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("lab.ini", "", "a spec must be a .toml, .yaml or .yml file"),
        ("lab.yaml", "a: [1", "is not valid YAML"),
        ("lab.yaml", "!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("lab.yaml", "a: !!timestamp x", "is not valid YAML"),
        (
            "lab.yaml",
            "recordings: a\nscoring: b\nform: csv\nchannels: {C4: []}\nlabels: {a: [1]}",
            "must hold texts only",
        ),
        ("lab.yaml", "- a\n- b", "a spec is a table of names and values"),
        ("lab.toml", None, "does not exist"),
    ],
)
def test_bad_spec_files_are_told(tmp_path, name, text, told):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        load_spec(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("Onset,Duration,Stage\n0,30,S9\n", "the label 'S9' is not among the spec's labels and events"),
        ("Onset,Duration,Stage\nzero,30,S1\n", "line 2: start and duration must be numbers of seconds"),
        ("Onset,Duration,Stage\n0,-30,S1\n", "line 2: start and duration must be seconds within one night"),
        (
            "Onset,Length,Stage\n0,30,S1\n",
            "begins with 'Onset,Length,Stage', not with a line that names the columns Onset, Duration, Stage",
        ),
        ("Onset,Duration,Stage\n0,30\n", "line 2: the column 'Stage' has no value"),
        ('Onset,Duration,Stage\n0,30,"S1\n30,30,S2\n', "is not a valid table|a quotation mark is not closed"),
        ("Onset,Duration,Stage\n0,0,S1\n", "the stage at 0 s has no duration"),
        ("Onset,Duration,Stage\n0,60,S1\n30,30,REM\n", "the stage at 30 s contradicts another entry"),
        ("", "is empty: name another scoring"),
    ],
)
def test_bad_tables_are_told(tmp_path, rows, told, capsys):
    import re

    spec = tmp_path / "lab.toml"
    spec.write_text(TOML.replace('Chin = {spellings = ["EMG chin"], band = [10, 45]}', ""))
    recordings.write_edf(tmp_path / "raw" / "sub-1" / "a_psg.edf", {"C4:M1": (wave(60, 100), 100, "uV")})
    (tmp_path / "raw" / "sub-1" / "a_psg.csv").write_text(rows)
    assert prepare(tmp_path, spec) == 1
    assert re.search(told, capsys.readouterr().out)


LINES = (
    'recordings = "*.edf"\nscoring = "{scoring}"\nform = "lines"\n[channels]\nC4 = []\n[labels]\n0 = "W"\n1 = "N1"\n'
)


def record(tmp_path, *names):
    for name in names:
        recordings.write_edf(tmp_path / "raw" / f"{name}.edf", {"C4": (wave(60, 100), 100, "uV")})


def test_comments_may_hold_apostrophes(tmp_path):
    spec = tmp_path / "lab.toml"
    spec.write_text(TOML.replace('Chin = {spellings = ["EMG chin"], band = [10, 45]}', ""))
    recordings.write_edf(tmp_path / "raw" / "sub-1" / "a_psg.edf", {"C4:M1": (wave(120, 100), 100, "uV")})
    rows = ["0,30,Wach,'snore", '30,30,S1,"he said ""x, y"" ok"', "60,30,S2,patient's cough, it's", "90,30,REM,quiet'"]
    (tmp_path / "raw" / "sub-1" / "a_psg.csv").write_text("\n".join(["Onset,Duration,Stage,Comment", *rows]))
    assert prepare(tmp_path, spec) == 0
    assert read_night(tmp_path / "out" / "subject1_a_psg.npz", ["C4-M1"]).stages.tolist() == [0, 1, 2, 4]


def test_nobody_gets_another_recordings_scoring(tmp_path, capsys):
    record(tmp_path, "one/a", "two/b", "s-1", "s-10")
    (tmp_path / "raw" / "one" / "scoring.txt").write_text("0 1")
    spec = tmp_path / "lab.toml"
    spec.write_text(LINES.replace("{scoring}", "scoring.txt"))
    assert prepare(tmp_path, spec) == 1
    assert "b.edf has no scoring: add scoring.txt" in capsys.readouterr().out
    (tmp_path / "out").rename(tmp_path / "first")
    (tmp_path / "raw" / "s-10_hyp.txt").write_text("0 1")
    spec.write_text(LINES.replace("{scoring}", "{name}*.txt"))
    assert prepare(tmp_path, spec) == 1
    printed = capsys.readouterr().out
    assert "s-1.edf has no scoring" in printed and "s-10 written" in printed


def test_a_corrected_spec_does_not_keep_the_old_stages(tmp_path, capsys):
    record(tmp_path, "a")
    (tmp_path / "raw" / "a.txt").write_text("0 1")
    spec = tmp_path / "lab.toml"
    spec.write_text(LINES.replace("{scoring}", "{name}.txt"))
    assert prepare(tmp_path, spec) == 0
    assert prepare(tmp_path, spec) == 0
    spec.write_text(LINES.replace("{scoring}", "{name}.txt").replace("N1", "N2"))
    assert prepare(tmp_path, spec) == 1
    assert "was prepared with other channels or settings" in capsys.readouterr().out


def test_subjects_are_not_numbered_anew(tmp_path, capsys):
    record(tmp_path, "b", "c")
    for name in "abc":
        (tmp_path / "raw" / f"{name}.txt").write_text("0 1")
    spec = tmp_path / "lab.toml"
    spec.write_text(LINES.replace("{scoring}", "{name}.txt"))
    assert prepare(tmp_path, spec) == 0
    record(tmp_path, "a")
    assert prepare(tmp_path, spec) == 2
    assert "under another subject's number, because recordings were added" in capsys.readouterr().err
