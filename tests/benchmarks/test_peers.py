"""The comparison with other toolkits: what all of them read, how they are measured, and the table."""

import sys

import mne
import numpy as np
import pytest
from recordings import wave, write_edf
from sklearn import metrics

from benchmarks.peers.comparison import Run, compare, run, shown, table
from benchmarks.peers.environments import python_of
from benchmarks.peers.nights import Night, open_night
from benchmarks.peers.stage_with import read
from benchmarks.peers.tools import Tool
from data.terms import InputError

W, N1, N2, N3, REM = range(5)


def test_the_edf_of_a_night_file_is_its_signal_in_microvolts(make_night, tmp_path):
    path = make_night(tmp_path / "night.npz")
    night = open_night(path, tmp_path / "edf", "", "", unit=100)
    assert (night.recording, night.eeg, night.eog) == (tmp_path / "edf" / "night.edf", ("C3-A2",), "")
    with np.load(path) as file:
        expected = 100 * file["x"].astype(float).ravel()
        np.testing.assert_array_equal(night.scored, file["y"])
    raw = mne.io.read_raw_edf(night.recording, verbose="error")
    assert raw.ch_names == ["C3-A2"]
    step = np.ptp(expected) / 65535
    np.testing.assert_allclose(1e6 * raw.get_data()[0], expected - np.median(expected), rtol=0, atol=1.01 * step)


def test_a_recording_gives_its_channels_and_the_scorers_stages(tmp_path):
    signals = {name: (wave(95, 128, i), 128, "uV") for i, name in enumerate(("ECG", "EOG L", "C4", "M1"))}
    path = write_edf(tmp_path / "a.edf", signals)
    (tmp_path / "a.txt").write_text("W\nN2\n?\n")
    night = open_night(path, tmp_path, "", str(tmp_path / "{name}.txt"), unit=1)
    assert (night.recording, night.channel, night.eeg, night.eog) == (path, "C4-M1", ("C4", "M1"), "EOG L")
    np.testing.assert_array_equal(night.scored, [W, N2, -1])
    raw, name = read(str(path), night.eeg, night.eog)
    assert name == "C4-M1"
    expected = {name: wave(95, 128, 2) - wave(95, 128, 3), "EOG L": wave(95, 128, 1)}
    for channel, signal in expected.items():
        np.testing.assert_allclose(1e6 * raw.get_data(picks=[channel])[0], signal, rtol=0, atol=0.02)


def test_what_is_no_recording_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither EDF"):
        open_night(tmp_path / "night.fif", tmp_path, "", "", unit=1)


def test_a_folder_that_is_no_environment_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="no virtual environment"):
        python_of(tmp_path, ["yasa"])
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.fixture
def night(tmp_path):
    path = write_edf(tmp_path / "night.edf", {"C4-M1": (wave(120, 100), 100, "uV")})
    return Night(path, "C4-M1", ("C4-M1",), "", np.array([W, N1, N2, -1]))


def tool(name: str, code: str) -> Tool:
    """A tool that is a few lines of Python, with the file for its stages as ``out``."""
    preamble = "import sys, time\nfrom pathlib import Path\nout = Path(sys.argv[1])\n"
    return Tool(name, lambda _, out: [sys.executable, "-c", preamble + code, out])


def test_a_process_is_measured_from_start_to_end(night):
    # This process is larger than the one that is measured, which must not count.
    kept = np.ones(300 << 17)
    code = "kept = b'1' * (100 << 20)\nwhile time.process_time() < 0.5: pass\nout.write_text('W\\nR\\nN3')"
    done = run(tool("busy", code), night)
    np.testing.assert_array_equal(done.stages, [W, REM, N3, -1])
    assert 0.5 <= done.processor < 1
    assert done.wall >= 0.5
    assert 100 < done.memory < kept.nbytes / 2**20


def test_a_tool_that_fails_is_told_in_a_sentence(night):
    with pytest.raises(InputError, match=r"^bad cannot stage .*night\.edf: ValueError: no such channel$"):
        run(tool("bad", "raise ValueError('no such channel')"), night)
    with pytest.raises(InputError, match="wrote no stages"):
        run(tool("idle", ""), night)


def test_tools_take_turns_and_first_runs_do_not_count(night, tmp_path):
    log = tmp_path / "log"
    tools = [tool(x, f"open({str(log)!r}, 'a').write({x!r})\nout.write_text('W\\nW\\nW\\nW')") for x in "ab"]
    runs = compare(tools, [night, night], rounds=2)
    assert log.read_text() == "ab" * 5
    assert {name: [len(each) for each in of_nights] for name, of_nights in runs.items()} == {"a": [2, 2], "b": [2, 2]}


def test_the_table_pools_what_scorer_and_all_tools_staged():
    rng = np.random.default_rng(0)
    scored, ours, theirs = rng.integers(0, 5, (3, 2, 200))
    scored[0, :5] = -1
    theirs[1, -1] = -1
    seconds = {"ours": ((1.0, 9.0, 2.0), (4.0, 4.0, 4.0)), "YASA": ((4.0, 4.0, 4.0), (8.0, 8.0, 8.0))}
    runs = {
        name: [[Run(of[i], s, 2 * s, 100 * s) for s in seconds[name][i]] for i in range(2)]
        for name, of in (("ours", ours), ("YASA", theirs))
    }
    nights = [Night(None, "", (), "", scored[i]) for i in range(2)]
    found = table(nights, runs, "YASA")
    known = (scored >= 0) & (theirs >= 0)
    for name, staged in (("ours", ours), ("YASA", theirs)):
        row, pair = found.loc[name], (scored[known], staged[known])
        assert row["epochs"] == 394
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(*pair))
        assert row["kappa"] == pytest.approx(metrics.cohen_kappa_score(*pair))
        by_stage = metrics.f1_score(*pair, average=None)
        np.testing.assert_allclose(row[["F1 W", "F1 N1", "F1 N2", "F1 N3", "F1 REM"]].astype(float), by_stage)
        assert row["macro-F1"] == pytest.approx(by_stage.mean())
    assert found.loc["ours", ["processor s", "wall s", "peak MiB"]].tolist() == [3, 6, 300]
    assert found["of YASA"].tolist() == [0.5, 1]
    assert "0.50" in shown(found)


def test_without_a_scorer_there_are_seconds_alone():
    runs = {"YASA": [[Run(np.array([W, N2]), 1.0, 1.0, 1.0)]]}
    found = table([Night(None, "", (), "", None)], runs, "YASA")
    assert found.columns.tolist() == ["processor s", "wall s", "peak MiB", "of YASA"]
