"""Files and folders that would hang, fill or endanger the process that reads them."""

import errno
import gc
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from recordings import write_edf

import predict
from data.nights import files
from data.nights.files import read_arrays
from data.prepare import sources
from data.prepare.custom import load_spec
from data.prepare.synthetic import ensure_nights
from data.recipe import Recipe
from data.scorings.nsrr import read_scoring
from data.scorings.scoring import read_text
from data.store import content, on_disk, read_json
from data.terms import LONGEST_SENTENCE, InputError
from data.writing import alone_in, as_table, written_aside, written_together
from recsleep.model import RecSleepNet
from runs.networks import save_model
from runs.settings import configure
from staging.stager import Stager

SPEC = """
recordings = "*.edf"
scoring = "{name}.txt"
form = "lines"
channels = {C3 = []}
labels = {W = "W"}
"""
READERS = {
    "npz": lambda path: read_arrays(path, ("y",)),
    "text": read_text,
    "xml": lambda path: read_scoring({"stages": path}),
    "json": read_json,
    "recording": lambda path: on_disk(path).__enter__(),
    "renamed": lambda path: on_disk(path, "other.edf").__enter__(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.timeout(10)
def test_only_ordinary_files_are_read(tmp_path, kind, read):
    path = tmp_path / "x.npz"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a pipe or a device: name an ordinary file"):
        read(path)


def test_a_size_is_what_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"123")
    assert content(tmp_path / "x", 3) == b"123"
    with pytest.raises(InputError, match="too large"):
        content(tmp_path / "x", 2)
    with (tmp_path / "x").open("wb") as sparse:
        sparse.truncate(1 << 33)
    with pytest.raises(InputError, match="larger than 67 MB"):
        read_scoring({"stages": tmp_path / "x"})


def test_an_archive_that_would_grow_without_bounds_is_refused_before_it_does(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("y.npy", "w") as file:
        array = {"descr": "|u1", "fortran_order": False, "shape": (80 << 20,)}
        np.lib.format.write_array_header_1_0(file, array)
        for _ in range(80):
            file.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"would unpack from 0\.1 to 84 MB"):
        read_arrays(tmp_path / "x.npz", ("y",))


def test_a_full_disk_is_named_and_nothing_stays(tmp_path):
    told = rf"the disk of {tmp_path} is full: x.npz needs more than the 0\.0 MB"
    with pytest.raises(InputError, match=told), written_aside(tmp_path / "x.npz") as aside:
        aside.symlink_to("/dev/full")
        aside.write_bytes(b"1" * 100_000)
    with pytest.raises(InputError, match="is full"), written_together(tmp_path, "x.json") as aside:
        (aside / "x.csv").write_text("whole")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    (tmp_path / "x.npz").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        files._write_npz(tmp_path / "x.npz", {"x": np.zeros(1_000_000)})
    gc.collect()
    assert ignored == []
    files._write_npz(tmp_path / "y.npz", {"x": np.zeros(3), "fs": np.float64(100)})
    np.savez(tmp_path / "z.npz", x=np.zeros(3), fs=np.float64(100))
    assert (tmp_path / "y.npz").read_bytes() == (tmp_path / "z.npz").read_bytes()


def test_one_process_works_in_a_folder(tmp_path):
    told = rf"process {os.getpid()} of \S+ is working in {tmp_path}/out: wait"
    with alone_in(tmp_path / "out"), pytest.raises(InputError, match=told), alone_in(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []
    dies = "import os, sys; from pathlib import Path; from data.writing import alone_in\n"
    dies += "with alone_in(Path(sys.argv[1])): os._exit(0)"
    subprocess.run([sys.executable, "-c", dies, tmp_path], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with alone_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_texts_of_files_do_no_harm_in_a_table_or_a_sentence():
    rows = [{"name": text} for text in ("=1+1", "@x", "-2", "C3\x1b[31m", "C3-A2")] + [{"name": -2.0}]
    assert as_table(rows)["name"].tolist() == ["'=1+1", "'@x", "'-2", "C3 [31m", "C3-A2", -2.0]
    sentence = str(InputError(f"there is no channel {'E' * 1_000_000}: choose one."))
    assert len(sentence) <= LONGEST_SENTENCE and sentence.endswith(": choose one.")


@pytest.mark.timeout(20)
def test_an_expression_that_backtracks_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SEARCH_SECONDS", 0.1)
    (tmp_path / "lab.toml").write_text("subject = '(a|aa)+$'\n" + SPEC)
    (tmp_path / f"{'a' * 60}b.edf").touch()
    with pytest.raises(InputError, match=r"'\(a\|aa\)\+\$', takes more than 0\.1 s:"):
        sources.find_sources(load_spec(tmp_path / "lab.toml"), tmp_path)


@pytest.mark.parametrize("number", ["9" * 5000, f"0x{'f' * 5000}"])
def test_a_number_of_too_many_digits(tmp_path, number):
    (tmp_path / "lab.toml").write_text(f"{SPEC}\ncolumns = {{start = {number}}}")
    with pytest.raises(InputError, match=r"lab\.toml .*digits"):
        load_spec(tmp_path / "lab.toml")


@pytest.mark.parametrize(("amplitude", "offset"), [(1e300, 0.0), (0.0, 0.0), (float("nan"), 0.0), (12.5, 1e30)])
def test_a_level_that_no_signal_has(amplitude, offset):
    with pytest.raises(InputError, match="no signal has its level"):
        Recipe.of_metadata({"db": "isruc", "amplitude": amplitude, "offset": offset})


def test_no_night_is_written_under_a_name_of_wildcards(tmp_path):
    config = configure("synthetic", ["night_patterns=('*{subject}*',)"])
    with pytest.raises(InputError, match="a name with wildcards"):
        ensure_nights(tmp_path, config.database, config.synthetic)
    assert list(tmp_path.iterdir()) == []


def test_whatever_a_recording_does_the_others_are_staged(tmp_path, monkeypatch, capsys):
    """Of one command: names of every kind, a file that is gone, an empty folder, a pipe, and an error of our own."""
    tiny = RecSleepNet(filters=4, first_kernel=12, lstm_units=4, block_kernel=3)
    metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [0]}, "amplitude": 12.5}
    save_model(tmp_path / "models" / "0", tiny, metadata)
    signal = 40 * np.sin(np.random.default_rng(0).normal(0, 1, 6000).cumsum())
    night = {"x": signal.reshape(2, 3000), "y": np.zeros(2, int), "fs": 100.0}
    nights, out = tmp_path / "nights", tmp_path / "out"
    write_edf(nights / "=HYPERLINK(1).edf", {"EEG C3-A2": (signal, 100, "uV")})
    np.savez(
        nights / "deep\x1b[31m.npz", **night, about=np.array("[" * 100_000), ch_names=np.array(["=1+1 EEG \ud800"])
    )
    np.savez(nights / "raises.npz", **night)
    os.mkfifo(nights / "pipe.edf")
    (nights / f"{'n' * 240}.edf").touch()
    (tmp_path / "empty").mkdir()
    stage = Stager.stage

    def raises(self, recording, *options):
        if recording.path.stem == "raises":
            raise RecursionError("too deep\nby far")
        return stage(self, recording, *options)

    monkeypatch.setattr(Stager, "stage", raises)
    given = [nights, tmp_path / "gone.edf", tmp_path / "empty"]
    options = ["--dir", tmp_path / "models", "--out", out, "--recording", *given]
    assert predict.main([str(option) for option in options]) == 1
    table = pd.read_csv(out / "summary.csv").set_index("name")
    assert table["status"].to_dict() == {
        "'=HYPERLINK(1)": "staged",
        "deep_[31m": "staged",
        "raises": "failed",
        "pipe": "failed",
        f"{'n' * 25}...": "failed",
        "gone": "failed",
        "empty": "failed",
    }
    assert table.loc["deep_[31m", "channels"] == r"'=1+1 EEG \ud800"
    told = f"RecursionError (too deep by far). Please report it, and send {out / 'raises.log'}."
    assert table.loc["raises", "reason"].endswith(told)
    assert "in raises" in (out / "raises.log").read_text()
    assert "\x1b" not in capsys.readouterr().out
    with alone_in(out):
        assert predict.main([str(option) for option in options]) == 2
    assert f"process {os.getpid()} of" in capsys.readouterr().err
