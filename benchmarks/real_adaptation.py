"""Does adapting help on real nights? ``python -m benchmarks.real_adaptation NIGHTS WEIGHTS [FOLDER]``.

``NIGHTS`` holds night files of the UCDDB (one EEG channel), among them subject 18's, of which alone all stages must be
scored. ``WEIGHTS`` is the folder of the published RecSleepNets of ``sleepedfx``, one folder for each fold. Every fold
is adapted to the other subjects' nights, of which the last validates, and stages subject 18's night, before and after.
A command that was stopped goes on.
"""

import sys
from pathlib import Path
from typing import cast

from benchmarks.device import machine
from config import ADAPTATION
from data.nights.folds import Split
from data.nights.index import check_nights
from evaluation.stages import Scores
from recsleep.beginning import folds_in
from recsleep.fold import BEFORE, FoldTask, train_fold
from runs.settings import configure
from staging.evaluation import tested_in_training

TESTED = 18
PASSES = 10
"""They are enough to see which way it goes."""


def main() -> None:
    nights, weights = Path(sys.argv[1]), Path(sys.argv[2])
    out = Path(sys.argv[3] if len(sys.argv) > 3 else "output/real_adaptation")
    print(machine(), flush=True)
    paths = {int(path.stem.removeprefix("ucddb")): [path] for path in sorted(nights.glob("ucddb*.npz"))}
    files = check_nights(paths, ["C3A2"])
    *trained, validated = (subject for subject in paths if subject != TESTED)
    split = Split(0, tuple(trained), (validated,), (TESTED,))
    changes = {**ADAPTATION, "passes": PASSES}
    config = configure("custom", ["channel=C3A2", *(f"{name}={value}" for name, value in changes.items())])
    folds = sorted((path for path in weights.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    found = []
    for fold in folds:
        (init,) = folds_in(fold)
        task = FoldTask(config, split, files, out / fold.name, bar=False, init=init)
        train_fold(task)
        pooled = [
            tested_in_training({0: task.folder}, [split], files, "sleep_stage", left_in).by_subject[TESTED]
            for left_in in (BEFORE, "predictions")
        ]
        found.append([cast(Scores, scores) for scores in pooled])
    print(f"\n{'fold':6}{'macro-F1 before':>16}{'after':>8}{'F1 after of W, N1, N2, N3, REM':>42}")
    for fold, (before, after) in zip(folds, found, strict=True):
        by_stage = " ".join(f"{value:.2f}" for value in after.by_stage["F1"])
        print(f"{fold.name:6}{before.macro_f1:16.3f}{after.macro_f1:8.3f}{by_stage:>42}")


if __name__ == "__main__":
    main()
