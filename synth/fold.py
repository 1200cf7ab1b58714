"""All steps of one fold of SynthSleepNet, in their order."""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from config import Config
from data.folds import Split, labelled_subjects
from data.night import NightFile
from synth.pretraining import Fold, multimodal, unimodal
from synth.probing import probe


@dataclass(frozen=True)
class FoldTask:
    """One fold to train: on what, where to, which steps, with which modalities, for what
    task and from what share of the labels, and whether progress bars are shown."""

    config: Config
    split: Split
    nights: dict[int, list[NightFile]]
    folder: Path
    steps: tuple[str, ...]
    modalities: tuple[str, ...]
    task: str
    label_fraction: float
    bar: bool = True


def train_fold(task: FoldTask) -> int:
    """Run the steps that are not finished, in whatever process this is; returns the fold's number.

    Raises:
        InputError: a folder holds another run's results, a step lacks what one before it makes, a night turned bad, or
            the training diverged.
    """
    # The same seed gives the same weights, bit for bit.
    tf.config.experimental.enable_op_determinism()
    split, training = task.split, task.config.training
    labelled = labelled_subjects(split, training.labelled_subjects, training.seed)
    print(
        f"fold {split.fold}: {len(split.train)} subjects train, {len(labelled)} of them with labels; "
        f"{len(split.validation)} validate, {len(split.test)} test.",
        flush=True,
    )
    fold = Fold(task.config, split, labelled, task.nights, task.folder, task.bar)
    if "unimodal" in task.steps:
        for modality in task.modalities:
            unimodal(fold, modality).train()
    if "multimodal" in task.steps:
        multimodal(fold, task.modalities).train()
    if "linear_probing" in task.steps:
        probe(fold, task.modalities, task.task, task.label_fraction)
    return split.fold
