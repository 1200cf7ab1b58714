"""The fold of SynthSleepNet that the fixture ``trained`` trains: the trainer's arguments, and where it leaves what."""

import shutil
from pathlib import Path

import numpy as np

from data.terms import STAGES, TASKS
from runs.networks import load_model
from synth.models.classifier import FineTuning, Head
from synth.models.neuronet import NeuroNetEncoder

# With this seed the few labels of the smallest fraction are of several kinds for every task.
SETTINGS = (
    *("folds=3", "round_nights=3", "labelled_subjects=5", "seed=270", "knn_nights=1", "probing_passes=8"),
    "multimodal_passes=1",
)
SUBJECTS = range(200001, 200010)
MODALITIES = ("--modality", "airflow", "--modality", "eeg")


def command(folder: Path, *arguments: str | Path) -> list[str]:
    """The trainer's arguments for fold 1 of the nights in ``folder``, whose results go there too."""
    settings = [part for value in SETTINGS for part in ("--set", value)]
    where = ["--data", folder / "nights", "--out", folder / "out", "--from_fold", 1, "--to_fold", 1]
    whole = ["--model", "synthsleepnet", "--db", "shhs", "--preset", "tiny", *settings, *where, *arguments]
    return [str(argument) for argument in whole]


def fold_of(folder: Path) -> Path:
    return folder / "out" / "shhs" / "1"


def labels_of(synthetic: dict, task: str, subjects: list[int]) -> np.ndarray:
    """What the synthetic nights hold, by name."""
    nights = [synthetic[subject] for subject in subjects]
    if task == "sleep_stage":
        return np.array(STAGES)[np.concatenate([night["y"] for night in nights])]
    columns = [nights[0]["event_names"].tolist().index(name) for name in TASKS[task]]
    there = np.concatenate([night["events"][:, columns].any(axis=1) for night in nights])
    return np.where(there, task, f"no {task}")


def without(night: Path) -> None:
    """Remove the breathing events of a night."""
    with np.load(night) as file:
        arrays = dict(file)
    arrays["events"] = np.zeros_like(arrays["events"])
    np.savez(night, **arrays)


def prepared(trained, folder: Path) -> Path:
    """A folder with the nights and the encoders of ``trained``."""
    (folder / "nights").symlink_to(trained / "nights")
    shutil.copytree(fold_of(trained) / "multimodal", fold_of(folder) / "multimodal")
    return folder


def assert_same_weights(one: Path, other: Path) -> None:
    kinds = [NeuroNetEncoder, Head, FineTuning]
    ours, theirs = (load_model(folder, kinds).get_weights() for folder in (one, other))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
