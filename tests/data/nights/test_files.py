"""Parquet nights: the same night as an .npz, and what may be wrong with one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recordings

import trainer
from data.databases import DATABASES
from data.nights.files import read_about, read_arrays
from data.nights.folds import find_nights
from data.nights.night import read_night
from data.prepare.__main__ import main
from data.recipe import Recipe
from data.terms import EVENTS, InputError

CODES = "0" * 5 + "1234596" + "2" * 8


@pytest.fixture
def shhs(tmp_path):
    """One SHHS night prepared in both forms."""
    recordings.shhs(tmp_path / "raw", CODES, events=[("Hypopnea", 100, 30)])
    for form in ("npz", "parquet"):
        folders = ["--data", str(tmp_path / "raw"), "--out", str(tmp_path / form)]
        assert main(["--db", "shhs", "--format", form, *folders]) == 0
    return tmp_path


def test_both_forms_hold_the_same(shhs):
    keys = ("x", "y", "ch_names", "events", "event_names", "about")
    npz, parquet = (read_arrays(shhs / form, keys) for form in ("npz/shhs1-200001.npz", "parquet/shhs1-200001"))
    assert npz.keys() == parquet.keys()
    for key in keys:
        assert np.array_equal(npz[key], parquet[key]), key
    assert read_about(shhs / "parquet" / "shhs1-200001")["recording"] == "shhs1-200001.edf"


def test_columns_as_in_the_files_in_circulation(shhs):
    """SynthSleepNet's published code writes a row per sample, a column per channel; labels by name."""
    x = pd.read_parquet(shhs / "parquet" / "shhs1-200001" / "x.parquet")
    y = pd.read_parquet(shhs / "parquet" / "shhs1-200001" / "y.parquet")
    assert set(x) == {"EEG_C4", "EEG_C3", "EOG_Left", "EOG_Right", "EMG_Chin", "ECG", "Airflow"}
    assert len(x) == 3000 * len(y) and set(y) == {*EVENTS, "Sleep Stage"}
    assert y["Sleep Stage"].tolist() == [0] * 5 + [1, 2, 3, 3, 4, -1, -1] + [2] * 8


def test_read_wherever_npz_is(tmp_path, capsys):
    for number in range(1, 5):
        recordings.isruc(tmp_path / "raw", "01235" * 4, number)
    out = tmp_path / "out"
    assert main(["--db", "isruc", "--format", "parquet", "--data", str(tmp_path / "raw"), "--out", str(out)]) == 0
    nights = find_nights(DATABASES["isruc"], out)
    assert {s: [p.name for p in paths] for s, paths in nights.items()} == {n: [f"subject{n}"] for n in range(4)}
    small = ["reconstruction_passes=1", "passes=1", "filters=4", "lstm_units=4", "window_epochs=5"]
    options = [part for value in [*small, "subjects=[0, 1, 2, 3]", "folds=4"] for part in ("--set", value)]
    command = ["--db", "isruc", "--data", str(out), "--out", str(tmp_path / "models"), "--to_fold", "0", *options]
    assert trainer.main(command) == 0
    assert "20 epochs" in capsys.readouterr().out
    (out / "subject1.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds night subject1 as \.npz and as Parquet"):
        find_nights(DATABASES["isruc"], out)


def shorten(name):
    return lambda night: pd.read_parquet(night / name)[:-1].to_parquet(night / name)


def spoil_column(name, values):
    def spoil(night):
        table = pd.read_parquet(night / name)
        table[table.columns[-1]] = values(table[table.columns[-1]])
        table.to_parquet(night / name)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda night: (night / "x.parquet").unlink(), "does not exist"),
        (lambda night: (night / "y.parquet").unlink(), "does not exist"),
        (lambda night: (night / "x.parquet").write_bytes(b""), "is truncated or damaged"),
        (lambda night: (night / "y.parquet").write_bytes(b"PAR1 and nothing PAR1"), "is truncated or damaged"),
        (
            lambda night: pd.read_parquet(night / "x.parquet")[:-1].to_parquet(night / "x.parquet"),
            "not a multiple of the 3000",
        ),
        (
            lambda night: pd.read_parquet(night / "y.parquet")[:-1].to_parquet(night / "y.parquet"),
            "but x has 20 epochs",
        ),
        (spoil_column("y.parquet", lambda stages: stages + 3), "stages are 0..4"),
        (spoil_column("y.parquet", lambda stages: stages.astype(str)), "y holds .* values"),
        (spoil_column("x.parquet", lambda signal: signal * np.nan), "holds NaN or infinite"),
        (spoil_column("x.parquet", lambda signal: signal * 0), "is flat"),
        (lambda night: pd.DataFrame({"Stage": [1]}).to_parquet(night / "y.parquet"), "has no column 'Sleep Stage'"),
    ],
)
def test_bad_tables_are_told(shhs, spoil, told):
    night = shhs / "parquet" / "shhs1-200001"
    spoil(night)
    with pytest.raises(InputError, match=told):
        read_night(night, ["EEG_C4", "Airflow"])


def test_a_missing_channel_is_named(shhs):
    with pytest.raises(InputError, match="has no channel 'SpO2': choose among EEG_C4"):
        read_night(shhs / "parquet" / "shhs1-200001", ["SpO2"])


WAKE = 61
"""Epochs of wake before those of all stages; two more than half an hour before the first of sleep."""


def as_published(folder: Path, epochs: int, seed: int) -> None:
    """A night as SynthSleepNet's published parser writes it: with Polars, so in float64 and int32, in its order.

    It is whole. Its stages can be told apart by their amplitude. A recording without airflow gives no such column.
    """
    rng = np.random.default_rng(seed)
    stages = np.arange(epochs) % 5
    names = ("EEG_C4", "EEG_C3", "EOG_Left", "EOG_Right", "ECG", "EMG_Chin")
    stages, epochs = np.pad(stages, (WAKE, 0)), WAKE + epochs
    signals = rng.normal(size=(len(names), epochs, 3000)) * (1 + stages[:, None])
    labels = {name: rng.integers(0, 2, epochs) for name in EVENTS} | {"Sleep Stage": stages}
    folder.mkdir(parents=True)
    x = pa.table({name: signal.ravel() for name, signal in zip(names, signals, strict=True)})
    y = pa.table({name: label.astype(np.int32) for name, label in labels.items()})
    pq.write_table(x, folder / "x.parquet", compression="zstd")
    pq.write_table(y, folder / "y.parquet", compression="zstd")


def test_folders_of_the_published_parser_are_read_and_trained_on(tmp_path, capsys):
    for subject in range(200001, 200005):
        as_published(tmp_path / "nights" / str(subject), 20, subject)
    folder = tmp_path / "nights" / "200003"
    night = read_night(folder, ["EMG_Chin", "EEG_C4"])
    x, y = pd.read_parquet(folder / "x.parquet"), pd.read_parquet(folder / "y.parquet")
    for number, name in enumerate(night.channels):
        assert np.array_equal(night.signals[:, number].ravel(), x[name].astype("float32"))
    assert night.signals.dtype == np.float32 and night.stages.tolist() == y["Sleep Stage"].tolist()
    for minutes, cut in ((30, 2), (1440, 0)):
        far = np.arange(len(y)) < cut
        assert np.array_equal(night.labels("hypopnea", minutes), y["Hypopnea"].mask(far, -1))
        assert np.array_equal(night.labels("apnea", minutes), y[list(EVENTS[:3])].any(axis=1).astype(int).mask(far, -1))
    # The published parser has scaled the channels: they are taken as they are.
    recipe = Recipe.of_nights(DATABASES["shhs"], {"eeg": "EEG_C4"}, night.about, scaled=True)
    assert np.array_equal(night.inputs(recipe)["eeg"], night.signals[:, 1])
    small = ["reconstruction_passes=1", "passes=1", "filters=4", "lstm_units=4", "window_epochs=5", "folds=4"]
    options = [part for value in small for part in ("--set", value)]
    command = ["--db", "shhs", "--data", str(tmp_path / "nights"), "--out", str(tmp_path / "models"), "--to_fold", "0"]
    assert trainer.main([*command, *options]) == 0
    assert "79 epochs" in capsys.readouterr().out
    assert (tmp_path / "models/shhs/0/predictions/200001.csv").is_file()
    followed = np.array(json.loads((tmp_path / "models/shhs/0/metadata.json").read_text())["transitions"])
    # Two nights train, without the two epochs that are far from sleep.
    assert followed[0, 0] == 2 * 59 and followed.sum() == 2 * (WAKE + 20 - 3)
