"""Does pretraining help? ``python -m benchmarks.pretraining [FOLDER]``.

Synthetic nights, whose stages and events are known; fold 0, whose test subjects nothing has seen; the ``tiny`` preset
with more passes. A network whose pretraining had a learning rate of nearly 0 stands for random weights. From scratch
means: from those, all weights learning, on the same 5 % of the labels. Figures are of the test subjects.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from config import TASKS, TCMS, configure
from data.folds import find_nights, labelled_subjects, split
from data.night import check_nights
from model_folder import read_metadata
from synth.downstream import FineTuning
from synth.fine_tuning import FineTuningRun
from synth.pretraining import Fold
from synth.replicas import replicas

MODALITIES = ("eeg", "emg", "airflow")
SETTINGS = ("hours=1", "unimodal_passes=8", "multimodal_passes=8", "fine_tuning_passes=20", "probing_passes=60")
RANDOM = ("unimodal_passes=1", "multimodal_passes=1", "pretraining_rate=1e-12")


class FromScratch(FineTuningRun):
    """All weights learn, but for the statistics of batch normalisation and the fixed positions."""

    def _network(self, encoder: Path, tcm: str) -> FineTuning:
        network = super()._network(encoder, tcm)
        for variable in network.encoder.weights:
            variable.trainable = variable.name not in ("moving_mean", "moving_variance", "positions")
        return network


def trainer(folder: Path, suffix: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> None:
    chosen = [part for name in MODALITIES for part in ("--modality", name)]
    values = [part for value in settings for part in ("--set", value)]
    where = ["--data", str(folder / "nights"), "--out", str(folder), "--suffix", suffix]
    common = ["--model", "synthsleepnet", "--preset", "tiny", "--db", "synthetic", "--to_fold", "0"]
    subprocess.run([sys.executable, "trainer.py", *common, *where, *chosen, *values, *arguments], check=True)


def from_scratch(folder: Path, task: str, fraction: float) -> None:
    config = configure("synthetic", (*SETTINGS, *RANDOM), "tiny")
    channels = [dict(config.dataset.modalities)[name] for name in MODALITIES]
    nights = check_nights(find_nights(config.dataset, folder / "nights"), channels)
    part = split(config.dataset, 0, nights, config.training.seed, config.training.validation_fraction)
    labelled = labelled_subjects(part, config.training.labelled_subjects, config.training.seed)
    fold = Fold(config, part, labelled, nights, folder / "synthetic_random" / "0", replicas(None))
    FromScratch(fold, MODALITIES, task, fraction, TCMS[0]).train()


def figures(folder: Path, suffix: str, step: str, task: str, fraction: float, tcm: str = "") -> dict[str, Any]:
    results = folder / f"synthetic_{suffix}" / "0" / step / f"{task}_{fraction:g}" / "-".join(MODALITIES) / tcm
    return read_metadata(results)["test"]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/pretraining")
    print(machine())
    for step in ("unimodal", "multimodal"):
        trainer(folder, "pretrained", "--step", step)
        trainer(folder, "random", "--step", step, settings=(*SETTINGS, *RANDOM))
    trainer(folder, "random", "--step", "linear_probing", settings=(*SETTINGS, *RANDOM))
    for task in TASKS:
        trainer(folder, "pretrained", "--step", "linear_probing", "--task", task)
    for fraction in ("1", "0.05"):
        trainer(folder, "pretrained", "--step", "fine_tuning", "--label_fraction", fraction)
    from_scratch(folder, "sleep_stage", 0.05)
    trainer(folder, "pretrained", "--step", "fine_tuning", "--task", "apnea")
    for tcm in TCMS[1:]:
        trainer(folder, "pretrained", "--step", "fine_tuning", "--tcm", tcm)
    rows = [
        ("probing, random weights", ("random", "linear_probing", "sleep_stage", 1)),
        ("probing", ("pretrained", "linear_probing", "sleep_stage", 1)),
        *((f"fine-tuning, {tcm}", ("pretrained", "fine_tuning", "sleep_stage", 1, tcm)) for tcm in TCMS),
        ("fine-tuning, 5 % of the labels", ("pretrained", "fine_tuning", "sleep_stage", 0.05, TCMS[0])),
        ("from scratch, 5 % of the labels", ("random", "fine_tuning", "sleep_stage", 0.05, TCMS[0])),
    ]
    print(f"\n{'sleep stage':34}accuracy  macro-F1  kappa")
    for name, where in rows:
        found = figures(folder, *where)
        print(f"{name:34}{found['accuracy']:8.3f}{found['macro_f1']:10.3f}{found['kappa']:7.3f}")
    print(f"\n{'apnea':34}macro-F1  sensitivity  specificity  AUROC  prevalence")
    for step, tcm in (("linear_probing", ""), ("fine_tuning", TCMS[0])):
        found = figures(folder, "pretrained", step, "apnea", 1, tcm)
        print(
            f"{step.replace('_', ' '):34}{found['macro_f1']:8.3f}{found['sensitivity']:13.3f}"
            f"{found['specificity']:13.3f}{found['auroc']:7.3f}{found['prevalence']:12.3f}"
        )


if __name__ == "__main__":
    main()
