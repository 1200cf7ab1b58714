"""All steps of one fold of SynthSleepNet, or of NeuroNet alone, in their order."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from data.nights.folds import Split, labelled_subjects
from data.nights.index import NightFile
from data.terms import InputError
from runs.saved import METADATA, read_metadata, require_unseen
from synth.replicas import Replicas, replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.labelled import LabelledStep
from synth.steps.pretraining import PretrainingStep
from synth.steps.probing import LinearProbingStep
from synth.steps.step import Fold

if TYPE_CHECKING:
    from runs.settings import Config


@dataclass(frozen=True)
class FoldTask:
    """One fold to train: its settings, subjects, nights and folder; the steps to run; modalities, task, share of the
    labels and temporal context module; the strategy for several devices; whether to show progress bars; and, as
    ``init``, the fold of another run whose pretrained networks are used, if any."""

    config: "Config"
    split: Split
    nights: dict[int, list[NightFile]]
    folder: Path
    steps: tuple[str, ...]
    modalities: tuple[str, ...]
    task: str
    label_fraction: float
    tcm: str
    strategy: str | None
    bar: bool = True
    init: Path | None = None

    def __post_init__(self) -> None:
        """Raise InputError if a network of ``init`` was, or may have been, trained on the fold's test nights."""
        if self.init is None:
            return
        tested = [night.path.name for subject in self.split.test for night in self.nights[subject]]
        encoders = [f"unimodal/{modality}" for modality in self.modalities]
        for folder in (self.init / part for part in (f"multimodal/{'-'.join(self.streams)}", *encoders)):
            if (folder / METADATA).is_file():
                require_unseen(folder, read_metadata(folder), self.config.database.db, self.split.fold, tested)

    @property
    def streams(self) -> dict[str, str]:
        """The channel of each stream that the fusion takes."""
        found: dict[str, str] = {}
        for modality in self.modalities:
            channels = self.config.database.streams(modality)
            of_each_channel = self.config.training.multimodal_streams == "channel"
            found |= channels if of_each_channel else {modality: channels[modality]}
        return found


def train_fold(task: FoldTask) -> tuple[int, dict[str, Path]]:
    """Run the steps that are not finished, in this process.

    Returns:
        The fold's number, and the folder of each step that was tested, by the step's name in print; of several
        workers, only the chief returns folders, because it writes the results.

    Raises:
        InputError: a folder holds another run's results, an earlier step is missing, a night could no longer be read,
            the training diverged, or a process on another machine ended.
    """
    shared = replicas(task.strategy)
    fold = fold_of(task, shared)
    whole = fold.taken_over("multimodal", "-".join(task.streams))
    if task.init:
        encoders = [f"unimodal/{modality}" for modality in task.modalities if fold.taken_over("unimodal", modality)]
        taken = [f"multimodal/{'-'.join(task.streams)}"] if whole else encoders
        if not taken:
            raise InputError(
                f"--init {task.init} holds no pretrained network of {', '.join(task.streams)}: name another fold, or "
                "choose other modalities with --modality."
            )
        print(f"fold {task.split.fold} uses {', '.join(taken)} from {task.init}.")
    with shared.scope():
        if "unimodal" in task.steps and not whole:
            for modality in task.modalities:
                if fold.taken_over("unimodal", modality):
                    continue
                PretrainingStep(fold, "unimodal", task.config.database.streams(modality)).train()
        if "multimodal" in task.steps and not whole:
            PretrainingStep(fold, "multimodal", task.streams).train()
    tested: list[LabelledStep] = []
    # Not shared among workers, because it is little work: the embeddings are computed only once.
    if "linear_probing" in task.steps and shared.chief:
        tested.append(LinearProbingStep(fold, (*task.streams,), task.task, task.label_fraction))
        tested[-1].train()
    if "fine_tuning" in task.steps:
        with shared.scope():
            tested.append(FineTuningStep(fold, (*task.streams,), task.task, task.label_fraction, task.tcm))
            tested[-1].train()
    shared.wait()
    return task.split.fold, {step.name: step.folder for step in tested if shared.chief}


def fold_of(task: FoldTask, shared: Replicas) -> Fold:
    """The fold of a task, whose batches are shared by the devices ``shared``; its numbers of subjects are printed."""
    # The same seed gives the same weights, bit for bit.
    tf.config.experimental.enable_op_determinism()
    split, training = task.split, task.config.training
    labelled = labelled_subjects(split, training.labelled_subjects, training.seed, training.labelled_last)
    print(
        f"fold {split.fold}: {len(split.train)} subjects train, {len(labelled)} of them with labels; "
        f"{len(split.validation)} validate, {len(split.test)} test.",
    )
    return Fold(task.config, split, labelled, task.nights, task.folder, shared, task.bar, task.init)
