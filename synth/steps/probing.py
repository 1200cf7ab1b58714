"""Linear probing: a head learns a task from a frozen encoder's embeddings (Lee et al., arXiv:2502.17481, section 4)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from evaluation.predictions import NightPredictions, classes
from runs.identity import LINEAR_PROBING
from synth.embeddings import EmbeddedNight, Embedder, scored_together
from synth.initialisation import draw_as_pytorch
from synth.models.classifier import Head
from synth.replicas import replicas
from synth.steps.labelled import LabelledStep, encoder_kind, require_scored
from synth.steps.step import Fold


class LinearProbingStep(LabelledStep):
    """Trains a head on stored embeddings; the arguments are those of :class:`LabelledStep`."""

    step = "linear_probing"
    decided_by = LINEAR_PROBING
    rate = "probing_rate"

    def __init__(self, fold: Fold, streams: tuple[str, ...], task: str, label_fraction: float) -> None:
        # This is too little work to share among devices.
        fold = replace(fold, replicas=replicas(None))
        super().__init__(fold, streams, task, label_fraction, f"linear probing of {task}")

    def prepare(self) -> None:
        """Embed the nights and make the head; InputError if labels are missing or all the same."""
        fold, training = self.fold, self.training
        require_scored(fold, self.task)
        # The embeddings are kept beside the encoder, unless that belongs to another run.
        kept = fold.folder / encoder_kind(fold.config) / self.encoder.name / "embeddings"
        embedder = Embedder(self.encoder, self.recipe, kept)

        def nights(part: str, subjects: tuple[int, ...]) -> list[EmbeddedNight]:
            return list(embedder.nights(fold.files(subjects), f"{part} nights", fold.bar))

        known, labels = scored_together(nights("labelled", fold.labelled), self.task)
        used = self.drawn(labels, training.probing_with_replacement)
        self.known, self.labels = known[used], labels[used]
        self.counted = self.importance(self.labels)
        self.loss_weights = self.weights(self.counted, self.counted).astype("float32")
        self.nights = {part: nights(part, getattr(fold.split, part)) for part in ("validation", "test")}
        self.batches = -(-len(used) // training.probing_batch)
        fold.draw_first_weights()
        features = known.shape[1]
        head = Head(features, len(classes(self.task)), self.config.model.head_dropout)
        self.judged = head
        self.network = keras.Sequential([keras.Input((features,)), head])
        draw_as_pytorch(self.network)
        self.begin(min(training.probing_batch, len(used)), training.probing_schedule, self.steps)

    @property
    def head(self) -> Head:
        return self.judged

    def losses(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.weighted(self.network(inputs["embeddings"], training=True), inputs)

    @property
    def steps(self) -> list[int]:
        return [self.batches] * self.training.probing_passes

    def train_unit(self, number: int, advance: Callable[[], Any]) -> dict[str, float]:
        order, losses = self.order(self.draws_of(number), self.counted), []
        for batch in np.array_split(order, self.batches):
            inputs = {"embeddings": self.known[batch], "labels": self.labels[batch].astype("int32")}
            inputs["weights"] = self.loss_weights[batch]
            losses.append(float(self.learner.step(inputs)["loss"]))
            advance()
        return {"loss": float(np.mean(losses))}

    def predicted(self, part: str) -> Iterator[NightPredictions]:
        for night in self.nights[part]:
            probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(self.judged(night.embeddings)))
            labels, stages = night.labels[self.task], night.labels["sleep_stage"]
            yield NightPredictions(night.name, self.task, labels, probabilities, stages)
