"""Does killed work end with the same bytes? ``python -m benchmarks.kills FOLDER [COMMAND ...]``.

Each long command runs once undisturbed. Then it is started again and again in another folder, and killed by SIGKILL at
random moments, ten times, before it may end: what is in its folder must then be what the undisturbed run left, but for
times, and of no killed command may a process live on for ten seconds. On a cluster, it is the workers that are killed.
"""

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.device import machine
from config import SyntheticConfig
from data.prepare.synthetic import write_recording
from data.terms import STAGES

KILLS, RECORDINGS = 10, 8
SETTINGS = ("subjects=(0, 1, 2, 3, 4, 5)", "folds=3", "hours=0.4")
RECSLEEPNET = ("filters=8", "lstm_units=8", "passes=6", "reconstruction_passes=2", "batch_nights=1")
SYNTHSLEEPNET = (
    "labelled_subjects=3",
    "unimodal_passes=3",
    "multimodal_passes=3",
    "probing_passes=20",
    "fine_tuning_passes=5",
)
SPEC = f"""
recordings = "*.edf"
scoring = "{{name}}.txt"
form = "any"
subject = "([0-9]+)"
channels = {{"EEG C4-M1" = [], "EMG" = []}}
labels = {{{", ".join(f'{stage} = "{stage}"' for stage in STAGES)}}}
"""
QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
STEPS = ("unimodal", "multimodal", "linear_probing", "fine_tuning")
VARYING = ("took", "seconds", "written", "date", "status")
"""Of JSON files and of columns, what differs from run to run: times, and whether a result was kept."""


def training(nights: Path, out: Path, model: str, settings: tuple[str, ...], *options: str) -> list[str]:
    values = [part for value in (*SETTINGS, *settings) for part in ("--set", value)]
    places = ["--model", model, "--db", "synthetic", "--data", str(nights), "--out", str(out), "--to_fold", "0"]
    return ["trainer.py", *places, *values, *options]


def commands(folder: Path, out: Path, address: str) -> dict[str, list[str]]:
    """Each command's line, by its name; the results are in ``out``."""
    raw, models = folder / "raw", folder / "whole" / "training"
    staging = ["predict.py", "--dir", str(models / "synthetic"), "--recording", str(raw), "--out", str(out / "staging")]
    synth = ("--preset", "tiny", "--modality", "eeg", "--modality", "emg")
    spec = ["--db", "custom", "--spec", str(folder / "lab.toml"), "--data", str(raw), "--out", str(out / "preparation")]
    return {
        "preparation": ["-m", "data.prepare", *spec, "--jobs", "2"],
        "training": training(folder / "nights", out / "training", "recsleepnet", RECSLEEPNET),
        "staging": [*staging, "--jobs", "2"],
        "cluster": [*staging[:-1], str(out / "cluster"), "--cluster", address],
        **{
            step: training(folder / "nights", out / "synth", "synthsleepnet", SYNTHSLEEPNET, *synth, "--step", step)
            for step in STEPS
        },
    }


def place(name: str) -> Path:
    """Where a command's results are."""
    return Path("synth", "synthetic", "0", name) if name in STEPS else Path(name)


def results(folder: Path) -> dict[str, str]:
    """Of each file in the folder of a command's results, a digest; times are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        content = json.dumps(_lasting(json.loads(content)), sort_keys=True).encode()
    elif path.name in ("log.csv", "summary.csv", "nights.csv"):
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        content = repr([_lasting(row) for row in rows]).encode()
    elif path.suffix == ".html":
        # Pages tell when they were written.
        content = re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", content)
    # Where a file lies differs by the folder alone.
    return hashlib.sha256(content.replace(b"/killed/", b"/whole/")).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(part) for key, part in value.items() if not any(name in str(key) for name in VARYING)}
    return [_lasting(part) for part in value] if isinstance(value, list) else value


def start(line: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *line], **QUIET)


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill the process alone; whether all its children ended by themselves within ten seconds."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return psutil.wait_procs(children, timeout=10)[1] == []


def killed(line: list[str], out: Path, whole_seconds: float, draws: random.Random) -> bool:
    """Kill a command ten times and let it end; whether no process of it ever lived on."""
    ended = True
    for _ in range(KILLS):
        process = start(line)
        time.sleep(draws.uniform(0.1, whole_seconds))
        if process.poll() is None:
            ended &= kill(process)
        else:
            # It had nothing left to do: again from the beginning.
            shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, *line], check=True, **QUIET)
    return ended


def workers_killed(line: list[str], workers: "Workers", whole_seconds: float, draws: random.Random, out: Path) -> bool:
    """Kill one worker after another while the command runs; another one takes its place."""
    for _ in range(KILLS):
        shutil.rmtree(out, ignore_errors=True)
        process = start(line)
        time.sleep(draws.uniform(0.1, whole_seconds))
        workers.replace(draws.randrange(2))
        if process.wait():
            return False
    return True


class Workers:
    """A Dask scheduler with two workers, of which one may be killed and replaced."""

    def __init__(self, port: int) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = start(["-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", str(port)])
        self.workers = [self._start() for _ in range(2)]

    def _start(self) -> subprocess.Popen[bytes]:
        options = ["--nthreads", "1", "--no-dashboard", "--no-nanny"]
        return start(["-m", "distributed.cli.dask_worker", self.address, *options])

    def replace(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._start()

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@contextmanager
def cluster() -> Iterator[Workers]:
    workers = Workers(18786)
    try:
        yield workers
    finally:
        workers.close()


def write_inputs(folder: Path) -> None:
    """Recordings, and the specification by which they are prepared."""
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    for subject in range(RECORDINGS):
        if not (folder / "raw" / f"n{subject}.edf").exists():
            write_recording(folder / "raw" / f"n{subject}.edf", subject, SyntheticConfig(hours=1.0))
    (folder / "lab.toml").write_text(SPEC)


def main() -> None:
    folder, chosen = Path(sys.argv[1]).absolute(), sys.argv[2:]
    os.environ["PYTHONPATH"] = str(Path.cwd())
    write_inputs(folder)
    print(machine())
    print(f"{'command':16}{'seconds alone':>14}  after {KILLS} kills")
    draws = random.Random(0)
    with cluster() as workers:
        whole = commands(folder, folder / "whole", workers.address)
        disturbed = commands(folder, folder / "killed", workers.address)
        for name, line in whole.items():
            started = time.monotonic()
            subprocess.run([sys.executable, *line], check=True, **QUIET)
            seconds = time.monotonic() - started
            there, out = (folder / kind / place(name) for kind in ("whole", "killed"))
            if chosen and name not in chosen:
                shutil.copytree(there, out, dirs_exist_ok=True)
                continue
            if name == "cluster":
                ended = workers_killed(disturbed[name], workers, seconds, draws, out)
            else:
                ended = killed(disturbed[name], out, seconds, draws)
            expected, found = results(there), results(out)
            differing = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
            told = f"{len(differing)} files differ: {', '.join(differing[:5])}" if differing else "the same files"
            print(f"{name:16}{seconds:14.1f}  {told}{'' if ended else ', processes left or an error'}", flush=True)


if __name__ == "__main__":
    main()
