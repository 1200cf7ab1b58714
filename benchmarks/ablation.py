"""What is each part good for? ``python -m benchmarks.ablation [FOLDER]``.

Both models as a whole and without one part at a time, on short synthetic nights of ten sleepers: two folds, so that
each sleeper is tested once, by networks that never saw one of its nights. SynthSleepNet is of the preset ``tiny`` with
more passes, RecSleepNet of a quarter of its filters. Each row is one training: rows that lie within a few hundredths
say that these nights do not tell the difference. A command that was stopped goes on.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.device import machine
from evaluation.stages import Scores
from runs.saved import read_metadata
from runs.settings import ABLATIONS
from synth.terms import DEFAULT_TCM, TCMS

FOLDS = 2
NIGHTS = ("hours=1", f"folds={FOLDS}")
SETTINGS = {
    "recsleepnet": (
        *("filters=32", "lstm_units=64", "batch_nights=1", "learning_rate=1e-3", "dropout=0.2"),
        *("reconstruction_passes=2", "passes=30"),
    ),
    "synthsleepnet": ("unimodal_passes=6", "multimodal_passes=8", "probing_passes=60", "fine_tuning_passes=20"),
}
MODALITIES = ("eeg", "eog", "emg")
SUBSETS = (("eeg",), ("eeg", "eog"))
WHOLE = "whole"


def train(folder: Path, model: str, variant: str, *options: str) -> None:
    values = [part for value in (*NIGHTS, *SETTINGS[model]) for part in ("--set", value)]
    where = ["--data", str(folder / "nights"), "--out", str(folder / model), "--suffix", variant]
    preset = ["--preset", "tiny"] if model == "synthsleepnet" else []
    command = [sys.executable, "trainer.py", "--model", model, "--db", "synthetic", *where, *preset, *values, *options]
    subprocess.run(command, check=True)


def named(modalities: Sequence[str]) -> list[str]:
    return [part for name in modalities for part in ("--modality", name)]


def fold_folders(folder: Path, model: str, variant: str) -> list[Path]:
    return [folder / model / f"synthetic_{variant}" / str(fold) for fold in range(FOLDS)]


def figures(folders: Sequence[Path]) -> str:
    """Those of the test subjects of all folds together, from the folders of their models."""
    matrices = [read_metadata(folder)["test"]["confusion_matrix"] for folder in folders]
    scores = Scores(np.sum(matrices, axis=0))
    found = (scores.accuracy, scores.macro_f1, scores.kappa, scores.by_stage["F1"]["N1"])
    return "".join(f"{figure:10.3f}" for figure in found)


def train_all(folder: Path) -> None:
    for model in SETTINGS:
        train(folder, model, WHOLE)
        for part in ABLATIONS[model]:
            if part == "fusion_lora":
                # It begins with the same encoders.
                for whole, own in zip(*(fold_folders(folder, model, each) for each in (WHOLE, part)), strict=True):
                    shutil.copytree(whole / "unimodal", own / "unimodal", dirs_exist_ok=True)
            train(folder, model, part, "--without", part)
    for tcm in TCMS:
        train(folder, "synthsleepnet", WHOLE, "--step", "fine_tuning", "--tcm", tcm)
    for subset in SUBSETS:
        train(folder, "synthsleepnet", WHOLE, *named(subset))


def print_table(folder: Path) -> None:
    def row(title: str, model: str, variant: str, *steps: str) -> None:
        print(f"{title:42}{figures([fold.joinpath(*steps) for fold in fold_folders(folder, model, variant)])}")

    def of_synth(title: str, variant: str, modalities: Sequence[str] = MODALITIES, tcm: str = DEFAULT_TCM) -> None:
        # The probe has no module.
        own = ("-".join(modalities), *([tcm] if step == "fine_tuning" else []))
        row(title, "synthsleepnet", variant, step, "sleep_stage_1", *own)

    print(f"\n{'':42}{'accuracy':>10}{'macro-F1':>10}{'kappa':>10}{'F1 of N1':>10}")
    row("RecSleepNet", "recsleepnet", WHOLE)
    for part in ABLATIONS["recsleepnet"]:
        row(f"  --without {part}", "recsleepnet", part)
    for step in ("linear_probing", "fine_tuning"):
        of_synth(f"SynthSleepNet, {step.replace('_', ' ')}", WHOLE)
        for part in ABLATIONS["synthsleepnet"]:
            of_synth(f"  --without {part}", part)
        for subset in SUBSETS:
            of_synth(f"  {' '.join(named(subset))}", WHOLE, subset)
    for tcm in TCMS:
        if tcm != DEFAULT_TCM:
            of_synth(f"  --tcm {tcm}", WHOLE, tcm=tcm)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/ablation")
    print(machine(), flush=True)
    train_all(folder)
    print_table(folder)


if __name__ == "__main__":
    main()
