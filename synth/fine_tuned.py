"""A fine-tuned model as it lies in its fold's folder: what its metadata tell, and its network when it is needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from data.terms import MODALITIES, TASKS, InputError
from runs.saved import METADATA, WEIGHTS, load_model, read_metadata
from synth.embeddings import embed_epochs
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNetEncoder
from synth.terms import TCMS


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model.

    Attributes:
        folder: where it lies.
        db: the database that it was trained on.
        task: one of ``config.TASKS``.
        channels: the night files' channel of each modality, by the modality's name.
        label_fraction: share of the labelled subjects' epochs whose labels were used.
        tcm: one of ``config.TCMS``.
        subjects: whom it was tested on, and never saw.
        validation_macro_f1: by which its pass was chosen.
        sha256: of its weights.
        training: the values of ``config.SynthSleepNetTraining`` that it was trained with.
    """

    folder: Path
    db: str
    task: str
    channels: dict[str, str]
    label_fraction: float
    tcm: str
    subjects: tuple[int, ...]
    validation_macro_f1: float
    sha256: str
    training: SimpleNamespace

    @classmethod
    def of(cls, folder: Path) -> "FineTuned":
        """The model in ``folder``.

        Raises:
            InputError: there is none, or it is damaged.
        """
        told = read_metadata(folder)
        try:
            model = cls(
                folder,
                told["db"],
                told["task"],
                dict(told["channels"]),
                float(told["label_fraction"]),
                told["tcm"],
                tuple(told["split"]["test"]),
                _chosen_by(told["best"]),
                told["sha256"][WEIGHTS],
                SimpleNamespace(**told["config"]["training"]),
            )
            sizes = (model.training.stretch_epochs, model.training.fine_tuning_batch)
            known = model.task in TASKS and model.tcm in TCMS and set(model.channels) <= set(MODALITIES)
        except (KeyError, TypeError, ValueError, AttributeError):
            known = False
        if not known or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise InputError(f"{folder / METADATA} does not describe a fine-tuned model: train it again.")
        return model

    @property
    def variant(self) -> str:
        """What distinguishes it from others for the same task: modalities, module, and share of the labels."""
        return f"{'-'.join(self.channels)} {self.tcm}, {self.label_fraction:.3g} of the labels"

    @cached_property
    def _halves(self) -> tuple[Callable, Callable]:
        return halves(load_model(self.folder, [FineTuning]))

    def stage(self, signals: np.ndarray) -> np.ndarray:
        """Probabilities (epochs, classes) of a night of scaled signals (epochs, channels, 3000)."""
        by_modality = dict(zip(self.channels, np.moveaxis(signals, 1, 0), strict=True))
        return whole_night(*self._halves, by_modality, self.training)


def is_fold(folder: Path) -> bool:
    """Whether ``folder`` is a fold that holds a fine-tuned model."""
    return any(_folders(folder))


def fine_tuned_in(fold: Path) -> list[FineTuned]:
    """All fine-tuned models of a fold.

    Raises:
        InputError: one is damaged.
    """
    return [FineTuned.of(folder) for folder in sorted(_folders(fold))]


def _folders(fold: Path) -> Sequence[Path]:
    return [path.parent for path in fold.glob(f"fine_tuning/*/*/*/{METADATA}")]


def _chosen_by(best: dict[str, Any]) -> float:
    """The figure by which the pass was chosen; 0 where the validation subjects gave none."""
    return float(best["macro_f1"] if "macro_f1" in best else best["average_precision"] or 0)


def convolutions(encoder: SynthSleepNetEncoder) -> dict[str, Callable]:
    """The compiled convolutions of each modality, for any number of epochs (epochs, 3000)."""
    signature = [tf.TensorSpec((None, 3000))]
    return {name: tf.function(part.convolve, input_signature=signature) for name, part in encoder.backbones.items()}


def halves(network: FineTuning, convolve: dict[str, Callable] | None = None) -> tuple[Callable, Callable]:
    """The network, compiled in two: from epochs of each modality to embeddings, and from stretches of these, with their
    mask, to probabilities. The :func:`convolutions` of its encoder are used if they are at hand."""
    convolve, describe = convolve or convolutions(network.encoder), tf.function(network.encoder)

    def embed(signals: dict[str, np.ndarray]) -> tf.Tensor:
        # What frozen convolutions made of the signals has one axis more.
        return describe({name: convolve[name](part) if part.ndim == 2 else part for name, part in signals.items()})

    def classify(embeddings: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(network.classifier(embeddings, mask=mask), "float32"))

    return embed, tf.function(classify)


def whole_night(embed: Callable, classify: Callable, signals: Mapping[str, np.ndarray], training: Any) -> np.ndarray:
    """Probabilities (epochs, classes) of a night, stretch after stretch, none overlapping.

    Args:
        embed: the first of a network's :func:`halves`.
        classify: the second.
        signals: of each modality (epochs, ...), as the network takes them.
        training: how long a stretch is, and how many are classified at once.
    """
    embeddings, found = embed_epochs(embed, signals), []
    length, batch = training.stretch_epochs, training.fine_tuning_batch
    for first in range(0, len(embeddings), length * batch):
        part = embeddings[first : first + length * batch]
        padded = np.zeros((batch * length, part.shape[1]), "float32")
        padded[: len(part)] = part
        mask = (np.arange(batch * length) < len(part)).reshape(batch, length)
        # A stretch of padding alone, which is cut off, must not attend to nothing at all.
        mask = mask | ~mask.any(axis=1, keepdims=True)
        outputs = classify(tf.constant(padded.reshape(batch, length, -1)), tf.constant(mask)).numpy()
        found.append(outputs.reshape(batch * length, -1)[: len(part)])
    return np.concatenate(found)
