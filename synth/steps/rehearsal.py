"""Estimate what a fold of SynthSleepNet takes, from a few updates of every step with networks of the real size.

Everything happens in a temporary folder. Pretraining is rehearsed on the real nights. The later steps learn from one
made-up night, a real night with random labels, on an encoder that has hardly learnt; the time for their work on whole
nights is estimated from the encoder's speed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from data.nights.files import read_arrays, write_arrays
from data.nights.index import NightFile
from data.terms import EPOCH_SAMPLES, EVENTS, STAGES
from runs.budget import Cost
from runs.networks import load_model
from runs.saved import METADATA
from synth.embeddings import ENCODERS
from synth.in_training import EPOCHS_AT_ONCE, compiled, embed_epochs
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import SIZES, NeuroNetDescription, NeuroNetEncoder
from synth.replicas import replicas
from synth.steps.fine_tuning import FineTuningStep
from synth.steps.frozen import FrozenConvolutions
from synth.steps.labelled import encoder_kind, require_scored
from synth.steps.plan import FoldTask, fold_of
from synth.steps.pretraining import PretrainingStep
from synth.steps.probing import LinearProbingStep
from synth.steps.step import Fold, Step


def rehearse_fold(task: FoldTask) -> list[Cost]:
    """What the rest of a fold's steps costs; empty if they are finished.

    Raises:
        InputError: as in :func:`synth.steps.plan.train_fold`.
    """
    with TemporaryDirectory(prefix="rehearsal-") as folder:
        fold = fold_of(replace(task, folder=Path(folder), bar=False), replicas(None))
        from_labels = {"linear_probing", "fine_tuning"} & set(task.steps)
        if from_labels:
            require_scored(fold, task.task)
        parts = [("unimodal", task.config.database.streams(name)) for name in task.modalities]
        # Even a single step needs the results of the steps before it.
        if task.config.fused and task.steps != ("unimodal",):
            parts.append(("multimodal", task.streams))
        costs = []
        for kind, channels in parts:
            step = PretrainingStep(fold, kind, channels)
            found = step.rehearse(_real(task, step), partial(_judging, step))
            costs += found if kind in task.steps else []
            if not (step.folder / METADATA).is_file():
                step.save()
        if from_labels:
            costs += _labelled(task, fold)
        return costs


def _real(task: FoldTask, step: Step) -> Path:
    """The folder of the real results of a step that is rehearsed."""
    return task.folder / step.folder.relative_to(step.fold.folder)


def _judging(step: PretrainingStep, numbers: Sequence[int]) -> float:
    """The seconds to embed the nights that judge a pass, for all passes in rounds ``numbers``, and the test nights."""
    split = step.fold.split
    known, validation, test = (
        _epochs(step.chosen_nights(subjects, step.training.knn_nights))
        for subjects in (step.fold.labelled, split.validation, split.test)
    )
    passes = len({step.rounds[number][0] for number in numbers})
    shapes = dict.fromkeys(step.streams, (EPOCH_SAMPLES,))
    return (passes * (known + validation) + known + test) * _seconds_an_epoch(step.embed, shapes)


def _labelled(task: FoldTask, fold: Fold) -> list[Cost]:
    """What the steps that learn from labels cost."""
    encoder: keras.Model = load_model(fold.folder / encoder_kind(task.config) / "-".join(task.streams), ENCODERS)
    if isinstance(encoder, NeuroNetEncoder):
        # Only its speed matters, which does not depend on the weights.
        encoder = NeuroNetDescription((*task.streams,), {name: getattr(encoder, name) for name in SIZES})
    parts = (fold.split.validation, fold.split.test)
    known, *others = (_epochs(fold.files(subjects)) for subjects in (fold.labelled, *parts))
    small = _made_up(fold, known)
    scale = known / small.nights[0][0].epochs
    costs = []
    if "linear_probing" in task.steps:
        step = LinearProbingStep(small, (*task.streams,), task.task, task.label_fraction)
        seconds = (known + sum(others)) * _seconds_an_epoch(compiled(encoder), _signals(task))
        costs += step.rehearse(_real(task, step), lambda _: seconds)
    if "fine_tuning" in task.steps:
        costs += _fine_tuning(task, fold, small, encoder, known)
    return [replace(cost, updates=round(scale * cost.updates)) for cost in costs]


def _fine_tuning(
    task: FoldTask, fold: Fold, small: Fold, encoder: SynthSleepNetEncoder | NeuroNetDescription, known: int
) -> list[Cost]:
    training, signals, embed = task.config.training, _signals(task), compiled(encoder)
    judged = _epochs(fold.files(fold.split.validation)[: training.validation_nights])
    bytes_per_epoch = FrozenConvolutions(encoder, {}, fold.folder, "").bytes_per_epoch
    kept = (known + judged) * bytes_per_epoch <= training.frozen_gib * 2**30
    convolved = {name: (part.frames, part.backbone.flat) for name, part in encoder.backbones.items()}
    if not kept:
        small = replace(small, config=replace(task.config, training=replace(training, frozen_gib=0.0)))

    def whole_nights(numbers: Sequence[int]) -> float:
        once = (known + judged) * kept + _epochs(fold.files(fold.split.test))
        again = len(numbers) * judged * _seconds_an_epoch(embed, convolved if kept else signals)
        return once * _seconds_an_epoch(embed, signals) + again

    step = FineTuningStep(small, (*task.streams,), task.task, task.label_fraction, task.tcm)
    # What it would print is about the made-up night.
    with redirect_stdout(StringIO()):
        costs = step.rehearse(_real(task, step), whole_nights)
    more = known - small.nights[0][0].epochs
    disk, memory = (bytes_per_epoch * (more + judged), 0) if kept else (0, 4 * EPOCH_SAMPLES * len(signals) * more)
    return [replace(cost, disk=cost.disk + disk, memory=cost.memory + memory) for cost in costs]


def _signals(task: FoldTask) -> dict[str, tuple[int, ...]]:
    """The shape of an epoch for each stream."""
    return dict.fromkeys(task.streams, (EPOCH_SAMPLES,))


def _made_up(fold: Fold, known: int) -> Fold:
    """The fold with only one night for training, validation and test: it has random labels, signals from a real night,
    and enough epochs for two updates, if the labelled nights have as many."""
    training = fold.config.training
    stretches = training.fine_tuning_batch * training.fine_tuning_accumulation
    count = min(known, 2 * max(training.probing_batch, stretches * training.stretch_step) + training.stretch_epochs)
    real, rng = fold.files(fold.labelled)[0], np.random.default_rng(0)
    arrays = read_arrays(real.path, ("x", "ch_names", "about"))
    arrays["x"] = arrays["x"][np.arange(count) % real.epochs]
    arrays |= {"y": rng.integers(0, len(STAGES), count), "events": rng.integers(0, 2, (count, len(EVENTS)))}
    path = fold.folder / "made-up.npz"
    write_arrays(path, {**arrays, "event_names": np.array(EVENTS)})
    night = NightFile(path, count, real.amplitude, real.offset, 0)
    split = replace(fold.split, train=(0,), validation=(0,), test=(0,))
    return replace(fold, split=split, labelled=(0,), nights={0: [night]})


def _seconds_an_epoch(embed: Callable[[dict[str, Any]], Any], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """The seconds that ``embed`` takes for an epoch; ``shapes`` gives each stream's shape."""
    batch = {name: np.zeros((EPOCHS_AT_ONCE, *shape), "float32") for name, shape in shapes.items()}
    embed_epochs(embed, batch)
    started = time.monotonic()
    embed_epochs(embed, batch)
    return (time.monotonic() - started) / EPOCHS_AT_ONCE


def _epochs(files: Sequence[NightFile]) -> int:
    return sum(file.epochs for file in files)
