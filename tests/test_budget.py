"""What a training says of its machine and of what it will take: when it goes on, and without training."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from test_trainer import of_fold_1, options, start

import trainer
from runs.machine import processor
from runs.resumable import kept_units

UPDATES = 10
"""Of a pass: three nights of some 35 epochs, two at a time, in windows of 8."""
LONG = ("--set", "passes=99999")
LINE = re.compile(
    r"fold 1 joint: about (\d+) h \d+ min for ([\d,]+) updates without validation; (.+) of memory, (.+) of"
)
ROW = re.compile(r"fold (\d) (reconstruction|joint) +([\d.]+) +([\d,]+) .* ([\d.]+ [MG]iB) +(\d+) MiB$", re.MULTILINE)


def count(text: str) -> int:
    return int(text.replace(",", ""))


def mebibytes(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"MiB": 1, "GiB": 1024}[unit]


def until(wanted: str, project: Path, folder: Path) -> str:
    """What the trainer prints in a long run of fold 1 until that comes, when it is killed."""
    told, quiet = "", {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with start(project, *of_fold_1(folder), *LONG, **quiet) as process:
        for line in process.stdout:
            told += line
            if wanted in line:
                break
        process.send_signal(signal.SIGKILL)
    return told


# One process of those that run the tests trains and is killed, not both.
pytestmark = pytest.mark.xdist_group("killed")


@pytest.fixture(scope="module")
def killed(project, tmp_path_factory):
    """The folder of a run of very many passes, killed when it had told what they will take; and what it printed."""
    folder = tmp_path_factory.mktemp("killed")
    return folder, until("joint: about", project, folder)


def dry_run(folder: Path, capsys, *arguments: str | int) -> str:
    """What is printed; nothing below the folder has changed."""

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}

    before = files()
    assert trainer.main(options(*of_fold_1(folder), *LONG, "--dry-run", *arguments)) == 0
    assert files() == before
    return capsys.readouterr().out


def rows(printed: str) -> dict[tuple[int, str], int]:
    """The updates by fold and phase; the other figures are plausible."""
    found = {}
    for fold, phase, seconds, updates, memory, disk in ROW.findall(printed):
        assert 1e-4 < float(seconds) < 60
        assert 100 < mebibytes(memory) < 16_000
        assert int(disk) < 100
        found[int(fold), phase] = count(updates)
    return found


@pytest.mark.long
def test_a_long_training_tells_its_machine_and_what_it_will_take(killed):
    _, told = killed
    assert told.count(f"Training in float32 on {processor()}") == 1
    hours, updates, memory, disk = LINE.search(told).groups()
    assert 0 < int(hours) < 1000
    assert count(updates) == UPDATES * 99_999
    assert 100 < mebibytes(memory) < 16_000
    assert mebibytes(disk) < 100


@pytest.mark.long
def test_a_dry_run_tells_what_is_left_and_changes_nothing(killed, capsys, tmp_path, monkeypatch):
    folder, _ = killed
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = kept_units(folder / "out/synthetic/1")
    assert done >= 2
    printed = dry_run(folder, capsys, "--to_fold", 2, "--jobs", 2)
    # Fold 1 has the first phase behind it, fold 2 nothing yet.
    whole = {(2, "reconstruction"): UPDATES, (2, "joint"): UPDATES * 99_999}
    assert rows(printed) == {(1, "joint"): UPDATES * (100_000 - done)} | whole
    assert "Folds left: 2, 2 at a time: about" in printed
    assert list(tmp_path.glob("rehearsal-*")) == []


def test_a_dry_run_is_of_one_machine(capsys):
    assert trainer.main(["--db", "ucddb", "--dry-run", "--cluster", "tcp://localhost:1"]) == 2
    assert "leave --strategy and --cluster out" in capsys.readouterr().err
