"""Do memory and open files stay as they are in long work? ``python -m benchmarks.long_runs FOLDER [PART ...]``.

``recordings``: 2,000 recordings of an hour, links to twenty, are staged by one process. ``training``: RecSleepNet
learns from 500 nights, links to twenty, for an hour. ``live``: a week of signal is staged second by second, as fast as
it goes.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.device import machine
from benchmarks.measure import linked
from config import SyntheticConfig
from data.databases import DATABASES
from data.prepare.synthetic import ensure_nights, write_recording
from data.terms import EPOCH_SECONDS, SAMPLING_RATE
from recsleep.live import LiveStager
from recsleep.model import RecSleepNet
from runs.networks import save_model
from runs.settings import configure

DIFFERENT, RECORDINGS, NIGHTS, MINUTES, DAYS = 20, 2000, 500, 60, 7
SAMPLED = 0.5
"""Seconds between two looks at a process."""


def watched(command: list[str], seconds: float = np.inf) -> tuple[pd.DataFrame, int]:
    """Of a command, and after how many seconds: MiB of memory and open files; and its exit code.

    It is stopped after so many ``seconds``.
    """
    process = psutil.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started, found = time.monotonic(), []
    while process.poll() is None:
        passed = time.monotonic() - started
        if passed > seconds:
            # A second signal would end it before it has tidied up.
            process.terminate()
            seconds = np.inf
        try:
            found.append((passed, process.memory_info().rss / 2**20, process.num_fds()))
        except psutil.Error:
            break
        time.sleep(SAMPLED)
    return pd.DataFrame(found, columns=["seconds", "memory", "files"]), process.wait()


def tell(name: str, found: pd.DataFrame) -> None:
    """Print the largest figures of each quarter of the time, but for the first twentieth, in which libraries load."""
    later = found[len(found) // 20 :]
    quarters = later.groupby(np.arange(len(later)) * 4 // len(later)).max()
    print(f"{name}, {found['seconds'].max() / 60:.0f} min, the most in each quarter of them:")
    print(f"  {', '.join(f'{value:.0f}' for value in quarters['memory'])} MiB of memory")
    print(f"  {', '.join(f'{value:.0f}' for value in quarters['files'])} open files", flush=True)


def recordings(folder: Path) -> None:
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    sources = [folder / "sources" / f"s{subject}.edf" for subject in range(DIFFERENT)]
    for subject, source in enumerate(sources):
        if not source.exists():
            write_recording(source, subject, SyntheticConfig(hours=1.0))
    raw = linked(folder / "recordings", (f"n{number:04}.edf" for number in range(RECORDINGS)), sources)
    metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [0]}, "amplitude": 12.5}
    if not (folder / "models").exists():
        save_model(folder / "models" / "0", RecSleepNet(), metadata)
    out = folder / "results"
    found, code = watched(["predict.py", "--dir", str(folder / "models"), "--recording", str(raw), "--out", str(out)])
    tell(f"{RECORDINGS} recordings of an hour, exit code {code}", found)
    table = pd.read_csv(out / "summary.csv")
    whole = sum(
        "statistics" in json.loads(path.read_text()) for path in out.glob("n*.json") if "_desc" not in path.name
    )
    print(
        f"  summary.csv has {len(table)} rows, {(table['status'] == 'staged').sum()} staged; {whole} results are whole"
    )


def training(folder: Path) -> None:
    settings = (f"subjects={tuple(range(DIFFERENT))}", "folds=4", "hours=1")
    config = configure("synthetic", list(settings))
    ensure_nights(folder / "few", config.database, config.synthetic)
    pattern = DATABASES["synthetic"].night_patterns[0]
    names = [pattern.format(subject=subject) for subject in range(NIGHTS)]
    nights = linked(folder / "nights", names, sorted((folder / "few").glob("*.npz")))
    (nights / "settings.json").write_text((folder / "few" / "settings.json").read_text())
    values = (f"subjects={tuple(range(NIGHTS))}", "folds=10", "hours=1", "filters=32", "lstm_units=32", "passes=100000")
    command = [
        "trainer.py",
        "--db",
        "synthetic",
        "--data",
        str(nights),
        "--out",
        str(folder / "trained"),
        "--to_fold",
        "0",
    ]
    found, code = watched([*command, *(part for value in values for part in ("--set", value))], MINUTES * 60)
    tell(f"training on {NIGHTS} nights, exit code {code} after it was told to stop", found)


def live(folder: Path) -> None:  # noqa: ARG001
    stager, rng = LiveStager(RecSleepNet(), None), np.random.default_rng(0)
    process, started, found, staged = psutil.Process(), time.monotonic(), [], 0
    for second in range(DAYS * 86_400):
        staged += len(stager.push(rng.normal(0, 15, SAMPLING_RATE)))
        if second % 600 == 0:
            found.append((time.monotonic() - started, process.memory_info().rss / 2**20, process.num_fds()))
    assert staged == DAYS * 86_400 // EPOCH_SECONDS
    tell(f"{DAYS} days staged live, {staged} epochs", pd.DataFrame(found, columns=["seconds", "memory", "files"]))


PARTS = {"recordings": recordings, "training": training, "live": live}


def main() -> None:
    folder = Path(sys.argv[1])
    print(machine(), f"at most {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files", sep="\n")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in sys.argv[2:] or PARTS:
        PARTS[name](folder / name)


if __name__ == "__main__":
    main()
