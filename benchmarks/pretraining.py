"""Does pretraining help? ``python -m benchmarks.pretraining [FOLDER]``.

Synthetic nights, whose stages and events are known; fold 0, whose test subjects nothing has seen; the ``tiny`` preset
with more passes. A network whose pretraining had a learning rate of nearly 0 has random weights; its batch
normalisation, however, has met the signals, which alone helps: it is probed with and without that. From scratch means:
from those weights, with fitted normalisation, all of them learning, on the same 5 % of the labels. Figures are of the
test subjects.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.device import machine
from benchmarks.measure import interleaved, trainer
from config import SynthSleepNetTraining
from data.nights.folds import find_nights, labelled_subjects, split
from data.nights.index import check_nights
from data.terms import TASKS
from runs.networks import load_model, save_model
from runs.saved import read_metadata
from runs.settings import configure
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNetEncoder
from synth.predictor import FineTunedPredictor
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.step import Fold
from synth.terms import DEFAULT_TCM, TCMS

MODALITIES = ("eeg", "emg", "airflow")
SETTINGS = ("hours=2", "unimodal_passes=6", "multimodal_passes=8", "fine_tuning_passes=20", "probing_passes=60")
RANDOM = ("unimodal_passes=1", "multimodal_passes=1", "pretraining_rate=1e-12")


class FromScratch(FineTuningStep):
    """All weights learn, but for the statistics of batch normalisation and the fixed positions."""

    def make(self) -> FineTuning:
        network = super().make()
        for variable in network.encoder.weights:
            variable.trainable = variable.name not in ("moving_mean", "moving_variance", "positions")
        return network


def train(folder: Path, suffix: str, *arguments: str, settings: tuple[str, ...] = SETTINGS) -> None:
    chosen = [part for name in MODALITIES for part in ("--modality", name)]
    options = ("--to_fold", "0", "--suffix", suffix, *chosen, *arguments)
    subprocess.run(trainer(folder / "nights", folder, settings, *options), check=True)


def forget_statistics(folder: Path) -> None:
    """A fold like the random one, whose batch normalisation has not met any signal."""
    pretrained, fold = Path("0") / "multimodal" / "-".join(MODALITIES), folder / "synthetic_initial"
    encoder = load_model(folder / "synthetic_random" / pretrained, [SynthSleepNetEncoder])
    told = read_metadata(folder / "synthetic_random" / pretrained)
    for variable in encoder.weights:
        if variable.name in ("moving_mean", "moving_variance"):
            variable.assign(np.full(variable.shape, float(variable.name == "moving_variance")))
    save_model(fold / pretrained, encoder, {name: told[name] for name in told.keys() - {"sha256", "parameters"}})


def from_scratch(folder: Path, task: str, fraction: float) -> None:
    # Its convolutions are not frozen.
    config = configure("synthetic", (*SETTINGS, *RANDOM, "frozen_gib=0"), "tiny")
    channels = [channel for name in MODALITIES for channel in config.database.streams(name).values()]
    nights = check_nights(find_nights(config.database, folder / "nights"), channels)
    assert isinstance(config.training, SynthSleepNetTraining)
    part = split(config.database, 0, nights, config.training.seed, config.training.validation_fraction)
    labelled = labelled_subjects(part, config.training.labelled_subjects, config.training.seed)
    fold = Fold(config, part, labelled, nights, folder / "synthetic_random" / "0", replicas(None))
    FromScratch(fold, MODALITIES, task, fraction, DEFAULT_TCM).train()


def results(folder: Path, suffix: str, step: str, task: str, fraction: float, tcm: str = "") -> Path:
    return folder / f"synthetic_{suffix}" / "0" / step / f"{task}_{fraction:g}" / "-".join(MODALITIES) / tcm


def figures(*where: Any) -> dict[str, Any]:
    return read_metadata(results(*where))["test"]


def seconds_per_night(folder: Path) -> dict[str, tuple[float, float]]:
    """Of each temporal context module: seconds of a night of 960 epochs, by the network and by the module alone."""
    tasks: dict[str, Callable[[], Any]] = {}
    rng = np.random.default_rng(0)
    signals = {name: rng.normal(size=(960, 3000)).astype("float32") for name in MODALITIES}
    for tcm in TCMS:
        model = FineTunedPredictor(results(folder, "pretrained", "fine_tuning", "sleep_stage", 1, tcm))
        network = load_model(model.folder, [FineTuning])
        stretches = rng.normal(size=(48, 20, network.encoder.dim)).astype("float32")
        module = tf.function(network.classifier.context or tf.identity)
        tasks[tcm] = partial(model.probabilities, signals)
        tasks[f"{tcm} alone"] = partial(lambda module, inputs: module(inputs).numpy(), module, stretches)
    found = interleaved(tasks, rounds=5)
    return {tcm: (found[tcm], found[f"{tcm} alone"]) for tcm in TCMS}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/pretraining")
    print(machine())
    for step in ("unimodal", "multimodal"):
        train(folder, "pretrained", "--step", step)
        train(folder, "random", "--step", step, settings=(*SETTINGS, *RANDOM))
    forget_statistics(folder)
    for suffix in ("initial", "random"):
        train(folder, suffix, "--step", "linear_probing", settings=(*SETTINGS, *RANDOM))
    for task in TASKS:
        train(folder, "pretrained", "--step", "linear_probing", "--task", task)
    for fraction in ("1", "0.05"):
        train(folder, "pretrained", "--step", "fine_tuning", "--label_fraction", fraction)
    train(folder, "pretrained", "--step", "linear_probing", "--label_fraction", "0.05")
    from_scratch(folder, "sleep_stage", 0.05)
    train(folder, "pretrained", "--step", "fine_tuning", "--task", "apnea")
    for tcm in TCMS:
        train(folder, "pretrained", "--step", "fine_tuning", "--tcm", tcm)
    rows = [
        ("probing, random weights", ("initial", "linear_probing", "sleep_stage", 1)),
        ("the same, normalisation fitted", ("random", "linear_probing", "sleep_stage", 1)),
        ("probing", ("pretrained", "linear_probing", "sleep_stage", 1)),
        *((f"fine-tuning, {tcm}", ("pretrained", "fine_tuning", "sleep_stage", 1, tcm)) for tcm in TCMS),
        ("probing, 5 % of the labels", ("pretrained", "linear_probing", "sleep_stage", 0.05)),
        ("fine-tuning, 5 % of the labels", ("pretrained", "fine_tuning", "sleep_stage", 0.05, DEFAULT_TCM)),
        ("from scratch, 5 % of the labels", ("random", "fine_tuning", "sleep_stage", 0.05, DEFAULT_TCM)),
    ]
    print(f"\n{'sleep stage':34}accuracy  macro-F1  kappa")
    for name, where in rows:
        found = figures(folder, *where)
        print(f"{name:34}{found['accuracy']:8.3f}{found['macro_f1']:10.3f}{found['kappa']:7.3f}")
    print("\nan 8-hour night through the whole network, and through its temporal context module alone")
    for tcm, (whole, alone) in seconds_per_night(folder).items():
        print(f"{tcm:34}{whole:8.2f} s{alone * 1e3:10.1f} ms")
    print(f"\n{'apnea':34}macro-F1  sensitivity  specificity  AUROC  prevalence")
    for step, tcm in (("linear_probing", ""), ("fine_tuning", DEFAULT_TCM)):
        found = figures(folder, "pretrained", step, "apnea", 1, tcm)
        print(
            f"{step.replace('_', ' '):34}{found['macro_f1']:8.3f}{found['sensitivity']:13.3f}"
            f"{found['specificity']:13.3f}{found['auroc']:7.3f}{found['prevalence']:12.3f}"
        )


if __name__ == "__main__":
    main()
