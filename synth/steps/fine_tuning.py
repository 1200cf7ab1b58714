"""Fine-tuning: a pretrained fusion, frozen except for LoRA, and a temporal context module (TCM) learn a task together.

Lee et al., arXiv:2502.17481, section 4. For NeuroNet alone (Lee et al., arXiv:2404.17585), the last layers learn
instead. A stretch of consecutive epochs always lies within one night.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from data.nights.index import NightFile
from data.nights.night import read_night
from data.terms import UNSCORED
from evaluation.predictions import NightPredictions, classes
from evaluation.stages import transitions
from runs.identity import FINE_TUNING
from runs.networks import load_model
from runs.resumable import PROGRESS
from staging.predictor import predict, predict_nights
from synth.embeddings import ENCODERS
from synth.in_training import TrainingPredictor
from synth.initialisation import draw_as_pytorch
from synth.models.classifier import FineTuned, FineTuning, Head, NeuroNetFineTuning
from synth.models.neuronet import SIZES, NeuroNetEncoder, adopt
from synth.predictor import FineTunedPredictor, of_network
from synth.steps.frozen import FrozenConvolutions
from synth.steps.labelled import LabelledStep, require_scored
from synth.steps.step import Fold
from synth.terms import TCMS

CONVOLUTIONS = "convolutions"
"""Name of the folder for the outputs of frozen convolutions during a fine-tuning."""


@dataclass(frozen=True)
class LabelledNight:
    """A night with labels.

    ``signals`` are (epochs, 3000) for each stream, or the outputs of the frozen convolutions (epochs, frames, flat);
    ``labels`` are (epochs,); ``used``, bool (epochs,), says which labels may be used, and ``importance`` (epochs,) how
    much each of them counts.
    """

    signals: dict[str, np.ndarray]
    labels: np.ndarray
    used: np.ndarray
    importance: np.ndarray


class FineTuningStep(LabelledStep):
    """The fine-tuning of one fold for one task.

    The outputs of the frozen convolutions for the labelled and the validation subjects' nights are computed once and
    kept on disk if ``config.frozen_gib`` allows; otherwise the labelled nights' signals are held in memory, and
    convolved in every pass.

    Args:
        tcm: one of ``synth.terms.TCMS``.
        Others: see :class:`LabelledStep`.
    """

    step = "fine_tuning"
    decided_by = FINE_TUNING
    rate = "fine_tuning_rate"
    temporary = (PROGRESS, CONVOLUTIONS)

    def __init__(self, fold: Fold, streams: tuple[str, ...], task: str, label_fraction: float, tcm: str) -> None:
        super().__init__(fold, streams, task, label_fraction, f"fine-tuning for {task} ({tcm})", tcm=tcm)
        self.record["tcm_layers"] = TCMS[tcm]

    def make(self) -> FineTuned:
        """The network, with the pretrained encoder's weights."""
        model, precision = self.config.model, self.training.precision
        pretrained: keras.Model = load_model(self.encoder, ENCODERS, precision)
        # Loading has also drawn weights, so the seed is set again.
        self.fold.draw_first_weights()
        if isinstance(pretrained, NeuroNetEncoder):
            (stream,), sizes = self.recipe.channels, {name: getattr(pretrained, name) for name in SIZES}
            arguments = {"modalities": (stream,), "backbone": sizes}
            alone = NeuroNetFineTuning(arguments, len(classes(self.task)), self.record["tcm"], dtype=precision)
            draw_as_pytorch(alone)
            adopt(alone.encoder.backbones[stream], pretrained)
            return alone
        arguments = {name: getattr(pretrained, name) for name in ("modalities", "backbone", "dim", "heads", "depth")}
        settings = (self.record["tcm"], model.head_dropout, model.adaptation_rank, model.adaptation_alpha)
        network = FineTuning(arguments, len(classes(self.task)), *settings, dtype=precision)
        draw_as_pytorch(network)
        adopt(network.encoder, pretrained)
        return network

    def prepare(self) -> None:
        """Make the network and the stretches of labelled nights; InputError if labels are missing or all the same."""
        training, count = self.training, self.fold.replicas.count
        require_scored(self.fold, self.task)
        self.network = self.judged = self.make()
        self.predictor = TrainingPredictor(self.network, self.recipe, self.task, training.stretch_epochs)
        self.validation = self.chosen_nights(self.fold.split.validation, training.validation_nights)
        self._prepare_frozen()
        self.nights = self._labelled()
        self.cut()
        batch = max(min(training.fine_tuning_batch, len(self.stretches)) // count, 1) * count
        accumulation = min(training.fine_tuning_accumulation, max(len(self.stretches) // batch, 1))
        self.update_stretches = batch * accumulation
        self.begin(self.update_stretches, training.fine_tuning_schedule, self.steps, accumulation)

    @property
    def steps(self) -> list[int]:
        # The last update of a pass is filled up with stretches of weight 0, which were already drawn.
        return [-(-len(self.stretches) // self.update_stretches)] * self.training.fine_tuning_passes

    def _prepare_frozen(self) -> None:
        """Decide only from the nights' sizes whether convolutions are kept, so that a continued run does the same."""
        name = f"{self.record['encoder'][:16]}-{self.training.precision}"
        frozen = FrozenConvolutions(self.network.encoder, self.predictor.convolve, self.folder / CONVOLUTIONS, name)
        epochs = sum(file.epochs for file in (*self.fold.files(self.fold.labelled), *self.validation))
        gib = epochs * frozen.bytes_per_epoch / 2**30
        allowed = self.training.frozen_gib
        self.frozen = frozen if gib <= allowed else None
        what = "are kept on disk until it ends" if self.frozen else f"are not kept, being above frozen_gib={allowed:g}"
        print(f"{self.title}: outputs of frozen convolutions, {gib:.2g} GiB, {what}.")

    def _labelled(self) -> list[LabelledNight]:
        """The nights whose scoring may be used, with the labels of their epochs that are used."""
        files = self.fold.files(self.fold.labelled)
        bar = tqdm(files, "reading labelled nights", unit="night", leave=False, disable=not self.fold.bar)
        read = [self._read(file) for file in bar]
        labels = [own for own, _ in read]
        scored = np.flatnonzero(np.concatenate(labels) != UNSCORED)
        used = np.zeros(sum(map(len, labels)), bool)
        used[scored[self.drawn(np.concatenate(labels)[scored])]] = True
        importance = np.zeros(len(used))
        importance[used] = self.importance(np.concatenate(labels)[used])
        ends = np.cumsum([len(own) for own in labels])[:-1]
        of_nights = zip(read, np.split(used, ends), np.split(importance, ends), strict=True)
        return [LabelledNight(signals, own, chosen, counted) for (own, signals), chosen, counted in of_nights]

    def cut(self) -> None:
        """Cut the nights into stretches, and decide how much each stretch, and each of its labels, counts."""
        length, step = self.training.stretch_epochs, self.training.stretch_step
        self.stretches = [
            (number, first)
            for number, night in enumerate(self.nights)
            for first in _starts(len(night.labels), length, step)
            if night.used[first : first + length].any()
        ]
        self.counted = np.array([self._importance(*stretch) for stretch in self.stretches])
        self.loss_weights = self._loss_weights()

    def _importance(self, number: int, first: int) -> float:
        """How much a stretch counts: the mean importance of its used labels."""
        night, part = self.nights[number], slice(first, first + self.training.stretch_epochs)
        return float(night.importance[part][night.used[part]].mean())

    def _loss_weights(self) -> list[np.ndarray]:
        """For each night, the weights of its epochs' losses (epochs,); 0 where the label is not used."""
        drawn = [np.zeros(len(night.labels)) for night in self.nights]
        for (number, first), counted in zip(self.stretches, self.counted, strict=True):
            drawn[number][first : first + self.training.stretch_epochs] += counted
        used = np.concatenate([night.used for night in self.nights])
        importance = np.concatenate([night.importance for night in self.nights])
        weights = np.zeros(len(used))
        weights[used] = self.weights(importance[used], np.concatenate(drawn)[used])
        return np.split(weights, np.cumsum([len(own) for own in drawn])[:-1])

    def _read(self, file: NightFile) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A night's labels (epochs,), and its signals or convolutions by stream; InputError if it has no labels."""
        night = read_night(file.path, self.recipe.names)
        labels, signals = night.known_labels(self.task, self.recipe.labelled_wake_minutes), night.inputs(self.recipe)
        return labels, self.frozen.of(f"{night.name}-{file.checksum:08x}", signals) if self.frozen else signals

    @property
    def head(self) -> Head:
        return self.network.classifier.head

    def losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.weighted(self.network(inputs, training=True), inputs)

    def _inputs(self, stretches: list[tuple[int, int]]) -> dict[str, Any]:
        """Stretches (number of their night, first epoch) as inputs of the network, padded if a night is shorter."""
        length = self.training.stretch_epochs
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
            weights[row, :count] = self.loss_weights[number][part]
        return {"signals": signals, "mask": mask, "labels": labels, "weights": weights}

    def train_unit(self, number: int, advance: Callable[[], Any]) -> dict[str, float]:
        order, losses = self.order(self.draws_of(number), self.counted), []
        for first in range(0, len(order), self.update_stretches):
            own = order[first : first + self.update_stretches]
            inputs = self._inputs([self.stretches[i] for i in np.resize(np.r_[own, order], self.update_stretches)])
            inputs["weights"][len(own) :] = 0
            losses.append(float(self.learner.step(inputs)["loss"]))
            advance()
        return {"loss": float(np.mean(losses))}

    def save(self, **found: Any) -> None:
        if self.task == "sleep_stage":
            labels = [np.where(night.used, night.labels, UNSCORED) for night in self.nights]
            found["transitions"] = np.sum([transitions(own) for own in labels], axis=0).tolist()
        super().save(**found)
        if self.chief:
            # Loading the network writes its ONNX file, with which it will stage.
            _ = FineTunedPredictor(self.folder).network

    def predicted(self, part: str) -> Iterator[NightPredictions]:
        if part == "test":
            paths = [file.path for file in self.fold.files(self.fold.split.test)]
            network = of_network(self.network, self.recipe, self.task, self.training.stretch_epochs)
            yield from predict_nights(network, paths)
            return
        for file in self.validation:
            labels, signals = self._read(file)
            probabilities = predict(self.predictor, signals, file.path)
            yield NightPredictions(file.path.stem, self.task, labels, probabilities, labels)


def _starts(epochs: int, length: int, step: int) -> list[int]:
    """The first epochs of stretches that lie within a night and together cover it."""
    last = max(epochs - length, 0)
    return sorted({*range(0, last + 1, step), last})
