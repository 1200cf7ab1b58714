"""A fine-tuned model as it lies in its fold's folder: what its metadata tell, and its network when it is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from data.terms import MODALITIES, TASKS, InputError
from runs.saved import METADATA, WEIGHTS, load_model, read_metadata
from synth.models.classifier import FineTuning
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
                float(told["best"]["macro_f1"]),
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
    def _probabilities(self) -> Any:
        network = load_model(self.folder, [FineTuning])
        return tf.function(lambda inputs: tf.nn.softmax(network(inputs)))

    def stage(self, signals: np.ndarray) -> np.ndarray:
        """Probabilities (epochs, classes) of a night of scaled signals (epochs, channels, 3000)."""
        by_modality = dict(zip(self.channels, np.moveaxis(signals, 1, 0), strict=True))
        return whole_night(self._probabilities, by_modality, self.training)


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


def whole_night(probabilities: Any, signals: Mapping[str, np.ndarray], training: Any) -> np.ndarray:
    """Probabilities (epochs, classes) of a night, stretch after stretch, none overlapping.

    Args:
        probabilities: of the network's inputs, (stretches, epochs, classes).
        signals: of each modality (epochs, ...), as the network takes them.
        training: how long a stretch is, and how many are computed at once.
    """
    length, batch = training.stretch_epochs, training.fine_tuning_batch
    epochs, found = len(next(iter(signals.values()))), []
    for first in range(0, epochs, length * batch):
        there = np.arange(first, first + length * batch) < epochs
        mask = there.reshape(batch, length)
        # A stretch of padding alone, which is cut off, must not attend to nothing at all.
        mask = mask | ~mask.any(axis=1, keepdims=True)
        padded = {}
        for name, values in signals.items():
            part = np.zeros((len(there), *values.shape[1:]), "float32")
            part[there] = values[first : first + len(there)]
            padded[name] = tf.constant(part.reshape(batch, length, *values.shape[1:]))
        outputs = probabilities({"signals": padded, "mask": tf.constant(mask)}).numpy()
        found.append(outputs.reshape(len(there), -1)[there])
    return np.concatenate(found)
