"""Does adapting to a laboratory help? ``python -m benchmarks.adaptation [LABORATORIES] [FOLDER]``.

A small RecSleepNet learns from synthetic sleepers. Laboratories, three unless more are asked for, have other
sleepers, of another age, whose EEG comes from another montage (with more or less of the eyes in it) through another
amplifier (gain, band, noise). Each has two scored nights: one to train on, one to choose by. Four other sleepers of
each are staged by the network as it is, calibrated as every recording is, by the network that ``--init`` adapts, and by
one that learns from these two nights alone. A command that was stopped goes on.
"""

import sys
from pathlib import Path
from typing import cast

import numpy as np
from scipy import signal

from benchmarks.device import machine
from config import ADAPTATION, SyntheticConfig
from data.nights.files import write_arrays
from data.nights.folds import Split
from data.nights.index import check_nights
from data.prepare.synthetic import CHANNELS, ensure_nights, make_night
from data.terms import SAMPLING_RATE
from evaluation.paired import BeforeAndAfter
from evaluation.pooled import Pooled
from evaluation.predictions import total
from evaluation.stages import Scores
from recsleep.beginning import folds_in
from recsleep.fold import BEFORE, FoldTask, train_fold
from runs.settings import configure
from staging.evaluation import tested_in_training

HOURS, TRAINED, TESTED = 1.0, 2, 4
NETWORK = ("filters=32", "lstm_units=64", "dropout=0.2", "batch_nights=1")
FIRST = ("learning_rate=1e-3", "reconstruction_passes=1", "passes=20")
FROM_SCRATCH = ("learning_rate=1e-3", "reconstruction_passes=2", "passes=40")
ADAPTED = (*(f"{name}={value}" for name, value in ADAPTATION.items()), "learning_rate=3e-4")
"""As ``--init`` has it, at three tenths of the rate of the first training, too."""


def recorded(night: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A night's EEG (epochs, 3000) as one laboratory records it, which ``rng`` draws."""
    eeg, eyes = (night["x"][:, CHANNELS.index(name)].ravel().astype(float) for name in ("EEG C4-M1", "EOG L"))
    eeg = eeg + rng.uniform(-0.3, 0.6) * eyes
    band = (rng.uniform(0.1, 1.5), rng.uniform(12, 35))
    eeg = signal.sosfilt(signal.butter(1, band, "bandpass", fs=SAMPLING_RATE, output="sos"), eeg)
    noise = rng.uniform(0, 6)
    gain = np.exp(rng.uniform(-2, 2))
    return (gain * (eeg + noise * np.random.default_rng(len(eeg)).standard_normal(len(eeg)))).reshape(-1, 3000)


def laboratory(folder: Path, number: int) -> dict[int, list]:
    """The checked nights of a laboratory's subjects, made where they are absent."""
    paths = {}
    for subject in range(TRAINED + TESTED):
        path = paths[subject] = folder / f"subject{subject}_night.npz"
        if not path.exists():
            config = SyntheticConfig(hours=HOURS, synthetic_seed=1000 + number)
            night = make_night(subject, config, age=np.random.default_rng(1000 + number).uniform(20, 85))
            x = recorded(night, np.random.default_rng(number))
            write_arrays(path, {"x": x.astype("float32"), "y": night["y"], "fs": night["fs"]})
    return check_nights({subject: [path] for subject, path in paths.items()}, ["EEG"])


def first_network(folder: Path) -> Path:
    """The folder of the network that other sleepers trained."""
    config = configure("synthetic", [*NETWORK, *FIRST, f"hours={HOURS}"])
    spec = config.database
    ensure_nights(folder / "nights", spec, config.synthetic)
    paths = {s: [folder / "nights" / spec.night_patterns[0].format(subject=s)] for s in spec.subjects}
    split = Split(0, spec.subjects[2:], spec.subjects[:1], spec.subjects[1:2])
    train_fold(FoldTask(config, split, check_nights(paths, [spec.channel]), folder / "first", bar=False))
    return folder / "first"


def main() -> None:
    laboratories = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "output/adaptation")
    print(machine(), flush=True)
    (trained,) = folds_in(first_network(folder))
    found: dict[str, dict[int, Scores]] = {"before": {}, "adapted": {}, "from scratch": {}}
    for number in range(laboratories):
        nights = laboratory(folder / f"laboratory{number}", number)
        split = Split(number, (0,), (1,), tuple(range(TRAINED, TRAINED + TESTED)))
        for name, changes, init in (("adapted", ADAPTED, trained), ("from scratch", FROM_SCRATCH, None)):
            config = configure("custom", [*NETWORK, *changes, "channel=EEG"])
            task = FoldTask(config, split, nights, folder / name / str(number), bar=False, init=init)
            train_fold(task)
            for which, left_in in ((name, "predictions"), *([("before", BEFORE)] if init else ())):
                pooled = tested_in_training({number: task.folder}, [split], nights, "sleep_stage", left_in)
                for subject, scores in pooled.by_subject.items():
                    found[which][10 * number + subject] = cast(Scores, scores)
    print(f"\n{'laboratory':14}" + "".join(f"{name:>14}" for name in found) + "   (macro-F1 of four nights)")
    for number in range(laboratories):
        rows = [total([own[10 * number + subject] for subject in split.test]) for own in found.values()]
        print(f"{number:<14}" + "".join(f"{cast(Scores, scores).macro_f1:14.3f}" for scores in rows))
    for name, own in found.items():
        print(f"{name:14}{Pooled(own).text().splitlines()[0]}")
    print(f"\n{BeforeAndAfter(found['before'], found['adapted']).text()}")


if __name__ == "__main__":
    main()
