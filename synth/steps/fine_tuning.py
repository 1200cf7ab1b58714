"""Fine-tuning: a pretrained fusion, frozen but for LoRA, learns a task together with a temporal context module (TCM).

Lee et al., arXiv:2502.17481, section 4. Stretches of consecutive epochs never leave their night.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data.nights.index import NightFile
from data.nights.night import read_night
from data.store import read_json, write_json
from data.streams.epochs import scaled
from data.terms import UNSCORED, InputError
from evaluation.events import EventScores
from evaluation.predictions import classes, save_predictions, scores_of
from evaluation.stages import Scores
from runs import resumable
from runs.saved import METADATA, load_model, read_metadata, save_model, versions
from synth.embeddings import labels_for
from synth.fine_tuned import whole_night
from synth.learner import Learner, reseed_dropout
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import adopt
from synth.steps.frozen import FrozenConvolutions
from synth.steps.pretraining import Fold, settings_of
from synth.steps.probing import drawn_labels

CONVOLUTIONS = "convolutions"
"""Folder of what frozen convolutions make of nights, while a fine-tuning lasts."""


@dataclass(frozen=True)
class LabelledNight:
    """A night's signals (epochs, 3000) of each modality, or what the frozen convolutions made of them (epochs, frames,
    flat); its labels (epochs,), and which of them may be used, bool (epochs,)."""

    signals: dict[str, np.ndarray]
    labels: np.ndarray
    used: np.ndarray


class FineTuningRun:
    """The fine-tuning of one fold for one task, in passes that survive being killed: each finished one is kept.

    What the frozen convolutions make of the labelled and the validation subjects' nights is computed once and kept on
    disk, as far as ``config.frozen_gib`` allows; else the labelled nights' signals are held in memory, and convolved in
    every pass. The network of the pass with the best macro-F1 on the validation subjects is kept.

    Args:
        fold: what is trained on; its fusion of ``modalities`` is pretrained.
        modalities: of the encoder.
        task: one of ``config.TASKS``.
        label_fraction: share of the labelled subjects' epochs whose labels are used: those that linear probing uses.
        tcm: one of ``config.TCMS``.

    Raises:
        InputError: the fusion is not pretrained.
    """

    def __init__(self, fold: Fold, modalities: tuple[str, ...], task: str, label_fraction: float, tcm: str) -> None:
        self.fold, self.task, self.label_fraction = fold, task, label_fraction
        self.folder = fold.folder / "fine_tuning" / f"{task}_{label_fraction:g}" / "-".join(modalities) / tcm
        self.name = f"fine-tuning for {task} ({tcm})"
        encoder = fold.folder / "multimodal" / "-".join(modalities)
        if not (encoder / METADATA).is_file():
            raise InputError(f"{encoder} holds no pretrained encoder: run --step multimodal first.")
        of_encoder = read_metadata(encoder)
        self.channels, self.modalities = of_encoder["channels"], modalities
        self.seed = (fold.config.training.seed, fold.split.fold, *self.name.encode())
        self.run = {
            "config": resumable.json_values(settings_of(fold.config, ("probing",))),
            "split": {**fold.split.to_json(), "labelled": list(fold.labelled)},
            "task": task,
            "label_fraction": label_fraction,
            "tcm": tcm,
            "encoder": of_encoder["sha256"]["model.weights.h5"],
        }
        self.network = self._network(encoder, tcm)
        self.probabilities = tf.function(lambda inputs: tf.nn.softmax(tf.cast(self.network(inputs), "float32")))
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: list[np.ndarray] = []

    def _network(self, encoder: Path, tcm: str) -> FineTuning:
        model, training = self.fold.config.model, self.fold.config.training
        pretrained = load_model(encoder, [SynthSleepNetEncoder], training.precision)
        keras.utils.set_random_seed(training.seed + self.fold.split.fold)
        arguments = {name: getattr(pretrained, name) for name in ("modalities", "backbone", "dim", "heads", "depth")}
        network = FineTuning(
            arguments,
            len(classes(self.task)),
            tcm,
            model.head_dropout,
            model.adaptation_rank,
            model.adaptation_alpha,
            dtype=training.precision,
        )
        adopt(network.encoder, pretrained)
        return network

    def train(self) -> Scores | EventScores | None:
        """Run the passes that are left, test the best network and save it; None if that was done before.

        Raises:
            InputError: a night is not scored for the task, the labels used are all the same, the training diverged, or
                the folder holds another run's results.
        """
        fold, training = self.fold, self.fold.config.training
        if (self.folder / METADATA).is_file():
            before = read_metadata(self.folder)
            resumable.require_same_run(self.folder, {name: before.get(name) for name in self.run}, self.run)
            resumable.finish(self.folder)
            shutil.rmtree(self.folder / CONVOLUTIONS, ignore_errors=True)
            print(f"fold {fold.split.fold} {self.name} is finished: skipped.")
            return None
        files = fold.files(fold.split.validation)
        order = np.random.default_rng(self.seed[:2]).permutation(len(files))
        self.judged = [files[i] for i in sorted(order[: training.validation_nights])]
        self._prepare_frozen()
        self.nights = self._labelled()
        self.stretches = [
            (number, first)
            for number, night in enumerate(self.nights)
            for first in _starts(len(night.labels), training.stretch_epochs, training.stretch_step)
            if night.used[first : first + training.stretch_epochs].any()
        ]
        count = fold.replicas.count
        batch = max(min(training.fine_tuning_batch, len(self.stretches)) // count, 1) * count
        accumulation = min(training.fine_tuning_accumulation, max(len(self.stretches) // batch, 1))
        self.update_stretches = batch * accumulation
        # The last update of a pass is filled with stretches drawn again, of weight 0.
        self.updates = -(-len(self.stretches) // self.update_stretches)
        self.learner = Learner(
            self.network,
            self._losses,
            rate=training.fine_tuning_rate * self.update_stretches / 256,
            updates=self.updates * training.fine_tuning_passes,
            weight_decay=training.weight_decay,
            clip_norm=training.clip_norm,
            accumulation=accumulation,
            replicas=fold.replicas,
        )
        self._continue()
        done, passes = len(self.history), training.fine_tuning_passes
        with tqdm(
            total=passes * self.updates,
            initial=done * self.updates,
            unit="step",
            desc=f"fold {fold.split.fold} {self.name}",
            mininterval=0.5,
            disable=not fold.bar,
        ) as bar:
            for number in range(done, passes):
                self.one_pass(number, bar)
        return self._finish()

    def _prepare_frozen(self) -> None:
        """Settle whether convolutions are kept, by the nights' sizes alone: a run that continues does the same."""
        name = f"{self.run['encoder'][:16]}-{self.fold.config.training.precision}"
        frozen = FrozenConvolutions(self.network.encoder, self.folder / CONVOLUTIONS, name)
        epochs = sum(file.epochs for file in (*self.fold.files(self.fold.labelled), *self.judged))
        gib = epochs * frozen.bytes_per_epoch / 2**30
        allowed = self.fold.config.training.frozen_gib
        self.frozen = frozen if gib <= allowed else None
        told = "are kept on disk meanwhile" if self.frozen else f"would take more than frozen_gib={allowed:g}: not kept"
        print(f"fold {self.fold.split.fold} {self.name}: frozen convolutions, {gib:.2g} GiB, {told}.", flush=True)

    def _labelled(self) -> list[LabelledNight]:
        """The nights whose scoring may be used, and which of their epochs' labels."""
        files = self.fold.files(self.fold.labelled)
        bar = tqdm(files, "reading labelled nights", unit="night", leave=False, disable=not self.fold.bar)
        read = [self._read(file) for file in bar]
        scored = [labels[there] for _, labels, there in read]
        chosen = drawn_labels(self.fold, np.concatenate(scored), self.task, self.label_fraction)
        used = np.zeros(sum(map(len, scored)), bool)
        used[chosen] = True
        nights = []
        for (signals, labels, there), own in zip(
            read, np.split(used, np.cumsum([len(labels) for labels in scored])[:-1]), strict=True
        ):
            mask = np.zeros(len(labels), bool)
            mask[there] = own
            nights.append(LabelledNight(signals, labels, mask))
        return nights

    def _read(self, file: NightFile, again: bool = True) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """A night's signals or their convolutions, by modality, its labels, and which epochs are scored.

        ``again`` tells whether it will be read in every pass.
        """
        night = read_night(file.path, tuple(self.channels.values()))
        signals = night.signals if self.fold.config.database.scaled else scaled(night.signals)
        by_modality = dict(zip(self.channels, np.moveaxis(signals, 1, 0), strict=True))
        if again and self.frozen:
            by_modality = self.frozen.of(f"{night.name}-{file.checksum:08x}", by_modality)
        return by_modality, labels_for(night, self.task), night.stages != UNSCORED

    def _losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        logits = tf.cast(self.network(inputs, training=True), "float32")
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(inputs["labels"], logits)
        # All devices' labels together: one may hold more of them than another.
        there = self.fold.replicas.mean(tf.reduce_sum(inputs["weights"]))
        return {"loss": tf.math.divide_no_nan(tf.reduce_sum(entropy * inputs["weights"]), there)}

    def _inputs(self, stretches: list[tuple[int, int]]) -> dict[str, Any]:
        """Stretches (number of their night, first epoch) as the network takes them, padded where a night is short."""
        length = self.fold.config.training.stretch_epochs
        shape = (len(stretches), length)
        signals = {
            name: np.zeros((*shape, *values.shape[1:]), "float32") for name, values in self.nights[0].signals.items()
        }
        labels, weights, mask = np.zeros(shape, "int32"), np.zeros(shape, "float32"), np.zeros(shape, bool)
        for row, (number, first) in enumerate(stretches):
            night = self.nights[number]
            part = slice(first, first + length)
            count = len(night.labels[part])
            for name, values in night.signals.items():
                signals[name][row, :count] = values[part]
            mask[row, :count] = True
            labels[row, :count] = np.where(night.used[part], night.labels[part], 0)
            weights[row, :count] = night.used[part]
        return {"signals": signals, "mask": mask, "labels": labels, "weights": weights}

    def one_pass(self, number: int, bar: tqdm) -> None:
        """Pass ``number``: train, validate, keep."""
        seed, started = np.random.SeedSequence((*self.seed, number)), time.monotonic()
        training = self.fold.config.training
        reseed_dropout(self.network, seed, self.fold.replicas)
        order = np.random.default_rng(seed.spawn(1)[0]).permutation(len(self.stretches))
        losses = []
        for first in range(0, len(order), self.update_stretches):
            own = order[first : first + self.update_stretches]
            inputs = self._inputs([self.stretches[i] for i in np.resize(np.r_[own, order], self.update_stretches)])
            inputs["weights"][len(own) :] = 0
            losses.append(float(self.learner.step(inputs)["loss"]))
            bar.update()
        row = {"pass": number + 1, "loss": float(np.mean(losses))}
        if not np.isfinite(row["loss"]):
            raise InputError(
                f"the loss of fold {self.fold.split.fold} {self.name} became {row['loss']} in pass {number + 1}: "
                "try a lower fine_tuning_rate with --set, and look at the nights' units."
            )
        row |= self._validate()
        row["seconds"] = round(time.monotonic() - started, 1)
        self.history.append(row)
        if self.best is None or row["val_macro_f1"] > self.best["macro_f1"]:
            self.best = {"pass": number + 1, "macro_f1": row["val_macro_f1"]}
            self.best_weights = self.network.get_weights()
        if self.fold.replicas.chief:
            # Before the pass is kept: a kill in between has it logged again, never forgotten.
            resumable.log(self.folder, self.history)
            self._keep()
        best = " (best so far)" if self.best["pass"] == number + 1 else ""
        bar.write(
            f"fold {self.fold.split.fold} {self.name} pass {number + 1}/{training.fine_tuning_passes}: "
            f"loss {row['loss']:.4g}  validation macro-F1 {row['val_macro_f1']:.3f}{best}  {row['seconds']:.0f} s"
        )

    def _validate(self) -> dict[str, float]:
        found = [self.stage(file)[1] for file in self.judged]
        pooled = sum(found[1:], found[0])
        if isinstance(pooled, Scores):
            return {"val_accuracy": pooled.accuracy, "val_macro_f1": pooled.macro_f1}
        return {"val_accuracy": pooled.figures["accuracy"], "val_macro_f1": pooled.figures["macro_f1"]}

    def stage(self, file: NightFile, again: bool = True) -> tuple[np.ndarray, Scores | EventScores, np.ndarray]:
        """Labels, scores and probabilities (epochs, classes) of a night's scored epochs.

        Stretches cover the night without overlap; the last one may be short. ``again`` as in reading.
        """
        signals, labels, scored = self._read(file, again)
        found = whole_night(self.probabilities, signals, self.fold.config.training)[scored]
        return labels[scored], scores_of(self.task, labels[scored], found), found

    def _keep(self) -> None:
        def fill(folder: Path) -> None:
            np.savez(folder / "training.npz", *self.learner.state())
            np.savez(folder / "best.npz", *self.best_weights)
            write_json(folder / "state.json", {"run": self.run, "history": self.history, "best": self.best})

        resumable.keep(self.folder, len(self.history), fill)

    def _continue(self) -> None:
        kept = resumable.newest(self.folder)
        if kept is None:
            return
        with resumable.restoring(kept):
            state = read_json(kept / "state.json")
            resumable.require_same_run(self.folder, state["run"], self.run)
            self.history, self.best = state["history"], state["best"]
            if len(self.history) != int(kept.name):
                raise ValueError("its history is not that of its passes")
            with np.load(kept / "training.npz", allow_pickle=False) as arrays:
                self.learner.restore([arrays[name] for name in arrays.files])
            with np.load(kept / "best.npz", allow_pickle=False) as arrays:
                self.best_weights = [arrays[name] for name in arrays.files]
        print(f"fold {self.fold.split.fold} {self.name} continues after pass {len(self.history)}.")

    def _finish(self) -> Scores | EventScores:
        self.network.set_weights(self.best_weights)
        found = []
        for file in self.fold.files(self.fold.split.test):
            labels, scores, probabilities = self.stage(file, again=False)
            found.append(scores)
            if self.fold.replicas.chief:
                path = self.folder / "predictions" / f"{file.path.stem}.csv"
                save_predictions(path, self.task, labels, probabilities)
        pooled = sum(found[1:], found[0])
        if self.fold.replicas.chief:
            about = {"db": self.fold.config.database.db, "channels": self.channels, "best": self.best}
            about |= {"versions": versions(), "test": pooled.to_json()}
            save_model(self.folder, self.network, {**self.run, **about})
            resumable.finish(self.folder)
        self.fold.replicas.wait()
        if self.fold.replicas.chief:
            shutil.rmtree(self.folder / CONVOLUTIONS, ignore_errors=True)
        print(f"fold {self.fold.split.fold} test, {self.name}: {pooled.line()}", flush=True)
        return pooled


def _starts(epochs: int, length: int, step: int) -> list[int]:
    """The first epochs of stretches that lie within a night and together hold all of it."""
    last = max(epochs - length, 0)
    return sorted({*range(0, last + 1, step), last})
