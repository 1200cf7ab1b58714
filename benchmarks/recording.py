"""How long does a recording take, to all results? ``python -m benchmarks.recording [--dir MODELS]``.

An 8-hour EDF of two EEG and five other channels at 256 Hz through ``predict.py --recording``, with the ten models of
``--dir`` (else ten with random weights) and with one: seconds of the whole command and where they go. Then, in one
process, the night through one network and through ten, in turns, and the milliseconds of a live epoch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HOURS, RATE = 8, 256
EPOCHS = HOURS * 120


def write_recording(path: Path) -> None:
    """An EDF of C4, M1 and five other channels; the EEG is noise of 1/f."""
    from benchmarks.measure import write_edf

    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=(2, HOURS * 3600 * RATE)), axis=1)
    spectrum /= np.maximum(np.fft.rfftfreq(HOURS * 3600 * RATE, 1 / RATE), 0.5)
    eeg = np.fft.irfft(spectrum, axis=1)
    eeg *= 20 / eeg.std()
    others = (rng.normal(0, 40, HOURS * 3600 * RATE) for _ in range(5))
    signals = dict(zip(("C4", "M1", "EOG L", "EOG R", "EMG", "ECG", "Flow"), (*eeg, *others), strict=True))
    write_edf(path, signals, RATE)


def write_models(folder: Path) -> None:
    """Ten networks of the published size with random weights."""
    from recsleep.model import RecSleepNet
    from runs.networks import save_model

    for fold in range(10):
        metadata = {"db": "sleepedfx", "channel": "EEG Fpz-Cz", "amplitude": 12.5, "split": {"test": [fold]}}
        save_model(folder / str(fold), RecSleepNet(), metadata)


def command(models: Path, recording: Path, out: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the whole command, and of its parts as its JSON tells them."""
    arguments = ["--recording", str(recording), "--dir", str(models), "--out", str(out), "--db", "sleepedfx"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "predict.py", *arguments, "--overwrite"], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    return seconds, json.loads((out / f"{recording.stem}.json").read_text())["took"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, help="folder of ten folds of sleepedfx (default: random weights)")
    arguments = parser.parse_args()
    from benchmarks.device import machine
    from benchmarks.measure import interleaved

    with tempfile.TemporaryDirectory() as folder:
        recording, models = Path(folder) / "night.edf", arguments.dir or Path(folder) / "models"
        write_recording(recording)
        if not arguments.dir:
            write_models(models)
        folds = sorted(path for path in models.iterdir() if path.name.isdecimal())
        one = Path(folder) / "sleepedfx" / "0"
        one.parent.mkdir()
        one.symlink_to(folds[0].resolve())
        runs: dict[int, list[Any]] = {number: [] for number in (1, len(folds))}
        for _ in range(3):
            for number, where in ((1, one), (len(folds), models)):
                runs[number].append(command(where, recording, Path(folder) / "results"))
        print(machine())
        print(f"{HOURS}-hour EDF, 7 channels at {RATE} Hz, {recording.stat().st_size / 2**20:.0f} MiB")
        for number, results in runs.items():
            seconds, took = sorted(results, key=lambda run: run[0])[len(results) // 2]
            parts = "   ".join(f"{part} {value:.1f}" for part, value in took.items())
            rest = seconds - sum(took.values())
            print(f"models: {number:2}   {seconds:5.1f} s in all   {parts}   starting and loading {rest:.1f}")

        from recsleep.live import LiveStager
        from recsleep.predictor import load_stager

        signals = np.random.default_rng(0).normal(0, 20, (EPOCHS, 3000)).astype("float32")
        stagers = {1: load_stager(one, "sleepedfx"), len(folds): load_stager(models, "sleepedfx")}
        night = {"eeg": signals}
        medians = interleaved({f"{n}": partial(s.predictors[0].probabilities, night) for n, s in stagers.items()})
        ratio = medians[f"{len(folds)}"] / medians["1"]
        print(f"{EPOCHS} epochs: one network {medians['1']:.2f} s, {len(folds)} {ratio:.1f} times that")
        for number, stager in stagers.items():
            live = LiveStager(stager)
            started = time.perf_counter()
            live.push(signals[:100].ravel())
            print(f"live, models: {number}   {(time.perf_counter() - started) * 10:.1f} ms an epoch")


if __name__ == "__main__":
    main()
