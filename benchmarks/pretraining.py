"""Does pretraining help? ``python -m benchmarks.pretraining [FOLDER]``.

Synthetic nights of an hour, whose stages and events are known; fold 0, whose six test subjects nothing has seen; the
``tiny`` preset with more passes, by both protocols; eight labelled subjects. A network whose pretraining had a learning
rate of nearly 0 has random weights; its batch normalisation, however, has met the signals, which alone helps: it is
probed with and without that. Figures are of the test subjects, with 95 % intervals over them. A command that was
stopped goes on.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from benchmarks.device import machine
from benchmarks.measure import RANDOM, interleaved, trainer
from config import Balance
from evaluation.pooled import Pooled
from evaluation.predictions import saved_scores
from runs.networks import load_model, save_model
from runs.saved import read_metadata
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNetEncoder
from synth.predictor import FineTunedPredictor
from synth.terms import DEFAULT_TCM, TCMS

EVENT_TASKS, LABELLED = ("apnea", "hypopnea"), ("linear_probing", "fine_tuning")
MODALITIES = ("eeg", "emg", "airflow")
TESTED = range(6)
SETTINGS = (
    *(f"subjects={tuple(range(24))}", "folds=4", "hours=1", "labelled_subjects=8"),
    *("unimodal_passes=4", "multimodal_passes=6", "fine_tuning_passes=20", "probing_passes=60"),
)
FRACTIONS = (1, 0.2, 0.05)
"""Of the labelled subjects' labels, 960 in all."""
BALANCES = get_args(Balance)
KINDS: dict[str, tuple[str, ...]] = {
    "random": RANDOM,
    "initial": RANDOM,
    "corrected": (),
    "published": (),
    **{balance: (f"event_balance={balance}",) for balance in BALANCES},
}
"""Trainings by their names, and the values of config.py that are theirs."""


def train(
    folder: Path, kind: str, step: str, task: str = "sleep_stage", fraction: float = 1, tcm: str = DEFAULT_TCM
) -> None:
    modalities = [part for name in MODALITIES for part in ("--modality", name)]
    options = ("--to_fold", "0", "--suffix", kind, "--step", step, "--task", task, "--tcm", tcm, *modalities)
    protocol = "published" if kind == "published" else "corrected"
    settings = (*SETTINGS, *KINDS[kind])
    own = ("--protocol", protocol, "--label_fraction", f"{fraction:g}")
    subprocess.run(trainer("synthetic", folder / "nights", folder, settings, *options, *own), check=True)


def forget_statistics(folder: Path) -> None:
    """A fold like the random one, whose batch normalisation has not met any signal."""
    pretrained, fold = Path("0") / "multimodal" / "-".join(MODALITIES), folder / "synthetic_initial"
    encoder = load_model(folder / "synthetic_random" / pretrained, [SynthSleepNetEncoder])
    told = read_metadata(folder / "synthetic_random" / pretrained)
    for variable in encoder.weights:
        if variable.name in ("moving_mean", "moving_variance"):
            variable.assign(np.full(variable.shape, float(variable.name == "moving_variance")))
    save_model(fold / pretrained, encoder, {name: told[name] for name in told.keys() - {"sha256", "parameters"}})


def results(folder: Path, suffix: str, step: str, task: str, fraction: float, tcm: str = "") -> Path:
    return folder / f"synthetic_{suffix}" / "0" / step / f"{task}_{fraction:g}" / "-".join(MODALITIES) / tcm


def row(title: str, figures: tuple[str, ...], folder: Path, *where: Any) -> None:
    """Print these figures of the test subjects, each with its interval."""
    tables, task = results(folder, *where) / "predictions", where[2]
    pooled = Pooled({subject: saved_scores(tables / f"synthetic{subject:02d}.csv", task) for subject in TESTED})
    told = pooled.to_json()
    limits = {name: f" ({low:.3f} to {high:.3f})" for name, (low, high) in pooled.intervals.items()}
    print(f"{title:48}{'  '.join(f'{told[name]:.3f}{limits.get(name, str())}' for name in figures)}")


def seconds_per_night(folder: Path) -> dict[str, tuple[float, float]]:
    """Of each temporal context module: seconds of a night of 960 epochs, by the network and by the module alone."""
    tasks: dict[str, Callable[[], Any]] = {}
    rng = np.random.default_rng(0)
    signals = {name: rng.normal(size=(960, 3000)).astype("float32") for name in MODALITIES}
    for tcm in TCMS:
        model = FineTunedPredictor(results(folder, "corrected", "fine_tuning", "sleep_stage", 1, tcm))
        network = load_model(model.folder, [FineTuning])
        stretches = rng.normal(size=(48, 20, network.encoder.dim)).astype("float32")
        module = tf.function(network.classifier.context or tf.identity)
        tasks[tcm] = partial(model.probabilities, signals)
        tasks[f"{tcm} alone"] = partial(lambda module, inputs: module(inputs).numpy(), module, stretches)
    found = interleaved(tasks, rounds=5)
    return {tcm: (found[tcm], found[f"{tcm} alone"]) for tcm in TCMS}


def train_all(folder: Path) -> None:
    for kind in ("random", "corrected", "published"):
        for step in ("unimodal", "multimodal"):
            train(folder, kind, step)
        for fraction in FRACTIONS:
            train(folder, kind, "linear_probing", fraction=fraction)
            if kind != "random":
                train(folder, kind, "fine_tuning", fraction=fraction)
    forget_statistics(folder)
    train(folder, "initial", "linear_probing")
    pretrained = folder / "synthetic_corrected" / "0" / "multimodal"
    for balance in BALANCES:
        shutil.copytree(pretrained, folder / f"synthetic_{balance}" / "0" / "multimodal", dirs_exist_ok=True)
    for task in EVENT_TASKS:
        train(folder, "random", "linear_probing", task)
        for step in LABELLED:
            for kind in (*BALANCES, "published"):
                train(folder, kind, step, task)
    for tcm in TCMS:
        train(folder, "corrected", "fine_tuning", tcm=tcm)


def print_tables(folder: Path) -> None:
    figures: tuple[str, ...] = ("accuracy", "macro_f1", "kappa")
    for fraction in FRACTIONS:
        print(f"\nsleep stages by {fraction:.0%} of the labels: {', '.join(figures)}")
        kinds = {"initial": "random weights"} if fraction == 1 else {}
        kinds |= {"random": "random weights, fitted normalisation", "corrected": "corrected", "published": "published"}
        for kind, title in kinds.items():
            row(f"probing, {title}", figures, folder, kind, "linear_probing", "sleep_stage", fraction)
        for tcm in TCMS if fraction == 1 else (DEFAULT_TCM,):
            row(f"fine-tuning, {tcm}", figures, folder, "corrected", "fine_tuning", "sleep_stage", fraction, tcm)
        row("fine-tuning, published", figures, folder, "published", "fine_tuning", "sleep_stage", fraction, DEFAULT_TCM)
    figures = ("prevalence", "average_precision", "auroc", "f1")
    for task in EVENT_TASKS:
        print(f"\n{task}: {', '.join(figures)}")
        row("probing, random weights, fitted normalisation", figures, folder, "random", "linear_probing", task, 1)
        for step in LABELLED:
            tcm = DEFAULT_TCM if step == "fine_tuning" else ""
            for kind in (*BALANCES, "published"):
                row(f"{step.replace('_', ' ')}, {kind}", figures, folder, kind, step, task, 1, tcm)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "output/pretraining")
    print(machine())
    train_all(folder)
    print_tables(folder)
    print("\nan 8-hour night through the whole network, and through its temporal context module alone")
    for tcm, (whole, alone) in seconds_per_night(folder).items():
        print(f"{tcm:34}{whole:8.2f} s{alone * 1e3:10.1f} ms")


if __name__ == "__main__":
    main()
