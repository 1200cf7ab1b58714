"""What linear probing and fine-tuning share: they learn a task from the labels of few subjects, and test it."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from data.nights.files import read_about
from data.nights.night import read_scoring
from data.recipe import Recipe
from data.terms import InputError, modality_of
from evaluation.events import EventScores
from evaluation.predictions import NightPredictions, pooled
from evaluation.stages import Scores
from runs.saved import METADATA, WEIGHTS, read_metadata, read_recipe
from synth.models.classifier import Head
from synth.steps.step import Fold, Step

if TYPE_CHECKING:
    from runs.settings import Config


def require_scored(fold: Fold, task: str) -> None:
    """Raise InputError if a labelled, validation or test night of the fold was not scored for the ``task``."""
    # All nights have stages.
    if task == "sleep_stage":
        return
    for file in fold.files((*fold.labelled, *fold.split.validation, *fold.split.test)):
        read_scoring(file.path).known_labels(task, fold.config.training.labelled_wake_minutes)


def encoder_kind(config: "Config") -> str:
    """The name of the step, and of its folder, that pretrains the encoder for steps with labels."""
    return "multimodal" if config.fused else "unimodal"


class LabelledStep(Step):
    """A step that learns a task on a pretrained fusion, or on NeuroNet alone.

    The best pass is the one with the highest macro-F1 of stages, or average precision of events, on the validation
    subjects: if few epochs hold an event, a network that never finds one could have the best macro-F1.

    Args:
        fold: the fold, whose encoder of ``streams`` must be pretrained.
        streams: the streams of the encoder.
        task: one of ``data.terms.TASKS``.
        label_fraction: share of the labelled subjects' epochs whose labels are used, drawn by the seed.
        title: the name of the step in messages.
        variant: what else distinguishes the step from others for the same task, if anything.

    Attributes:
        step: the name of the step.

    Raises:
        InputError: the encoder is not pretrained.
    """

    step: str

    def __init__(
        self, fold: Fold, streams: tuple[str, ...], task: str, label_fraction: float, title: str, **variant: str
    ) -> None:
        kind = encoder_kind(fold.config)
        self.encoder = fold.pretrained(kind, "-".join(streams))
        if not (self.encoder / METADATA).is_file():
            raise InputError(f"{self.encoder} holds no pretrained encoder: run --step {kind} first.")
        of_encoder = read_metadata(self.encoder)
        self.task, self.label_fraction = task, label_fraction
        minutes = fold.config.training.labelled_wake_minutes
        self._recipe = replace(read_recipe(self.encoder, of_encoder), labelled_wake_minutes=minutes)
        if fold.taken_over(kind, "-".join(streams)):
            # The nights of the other run may have had other channels.
            database, about = fold.config.database, read_about(fold.files(fold.labelled)[0].path)
            channels = {stream: database.streams(modality_of(stream))[stream] for stream in streams}
            self._recipe = Recipe.of_nights(database, channels, about, self._recipe.scaled, minutes)
        self.name = title
        self.chosen_by = ("macro_f1",) if task == "sleep_stage" else ("average_precision",)
        self.balance = "none" if task == "sleep_stage" else fold.config.training.event_balance
        about = {"task": task, "label_fraction": label_fraction, **variant}
        about["encoder"] = of_encoder["sha256"][WEIGHTS]
        folder = fold.folder.joinpath(self.step, f"{task}_{label_fraction:g}", "-".join(streams), *variant.values())
        super().__init__(fold, folder, "/".join((self.step, task, *variant.values())), title, about)

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @abstractmethod
    def predicted(self, part: str) -> Iterator[NightPredictions]:
        """The nights of ``part``: ``validation`` predicted by the network as it is, or ``test`` by it in float32."""

    def importance(self, labels: np.ndarray) -> np.ndarray:
        """How much each of the used ``labels`` counts, 1 on average; with balancing, both classes count the same."""
        if self.balance == "none":
            return np.ones(len(labels))
        _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return len(labels) / len(counts) / counts[classes]

    def order(self, rng: np.random.Generator, importance: np.ndarray) -> np.ndarray:
        """The order of a pass's examples: each once, or, with the sampler, in proportion to its ``importance``."""
        if self.balance == "sampler":
            return rng.choice(len(importance), len(importance), p=importance / importance.sum())
        return rng.permutation(len(importance))

    def weights(self, importance: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The weights of the labels' losses, so that each label counts with its ``importance`` on average.

        The sampler draws some labels more often, in proportion to ``drawn``; drawn labels have weight 1 on average.
        """
        return importance * drawn.mean() / drawn if self.balance == "sampler" else importance

    def weighted(self, logits: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """The loss of a batch: the weighted mean over the ``labels`` that are used, whose ``weights`` are above 0."""
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(inputs["labels"], tf.cast(logits, "float32"))
        # Divided by the number of used labels: if divided by the sum of weights, large weights would count less in a
        # batch of large weights. The number is the mean over devices, because one may hold more labels than another.
        used = self.fold.replicas.mean(tf.reduce_sum(tf.cast(inputs["weights"] > 0, "float32")))
        return {"loss": tf.math.divide_no_nan(tf.reduce_sum(entropy * inputs["weights"]), used)}

    def judge(self, number: int) -> dict[str, float | None]:
        figures = pooled(list(self.predicted("validation"))).to_json()
        return {name: figures[name] for name in dict.fromkeys(("accuracy", "macro_f1", *self.chosen_by))}

    @property
    @abstractmethod
    def head(self) -> Head:
        """The head that gives the logits of the task's classes."""

    def finish(self) -> Scores | EventScores:
        if self.best and None in self.best.values():
            print(
                f"{self.title}: the validation nights hold {self.task} in none of their epochs, or in all of them, so "
                "they cannot tell which pass is best, and the last one is kept."
            )
        found: dict[str, Any] = {}
        if self.task != "sleep_stage":
            found["threshold"] = self._settle_threshold()
        nights = list(self.predicted("test"))
        for night in nights if self.chief else ():
            night.save(self.folder / "predictions" / f"{night.name}.csv")
        scores = pooled(nights)
        self.save(test=scores.to_json(), **found)
        print(f"fold {self.fold.split.fold} test, {self.name}: {scores.line()}")
        return scores

    def _settle_threshold(self) -> float:
        """Find the threshold of the probability with the best F1 on the validation subjects' events.

        The last layer's bias is then changed so that this probability becomes 0.5. So the same rule finds events with
        every network, alone or averaged with those of other folds: the probability is above 0.5.

        Returns:
            The threshold before the bias was changed.
        """
        scores = pooled(list(self.predicted("validation")))
        assert isinstance(scores, EventScores)
        threshold = min(max(scores.best_threshold, 1e-6), 1 - 1e-6)
        bias = self.head.logits.bias
        bias.assign(keras.ops.convert_to_numpy(bias) - np.array([0, np.log(threshold / (1 - threshold))], "float32"))
        return threshold

    def drawn(self, labels: np.ndarray, with_replacement: bool = False) -> np.ndarray:
        """The positions in all labelled subjects' ``labels`` that are used; InputError if these labels are equal."""
        rng = np.random.default_rng((self.training.seed, self.fold.split.fold))
        count = max(1, round(self.label_fraction * len(labels)))
        used = rng.integers(0, len(labels), count) if with_replacement else rng.permutation(len(labels))[:count]
        held = set(labels[used])
        if len(held) < 2:
            what = f"{self.task} in {'all' if held == {1} else 'none'} of them"
            what = "only one stage" if self.task == "sleep_stage" else what
            raise InputError(
                f"fold {self.fold.split.fold}: the {len(used)} labelled epochs hold {what}, from which nothing can be "
                "learnt: raise --label_fraction or --set labelled_subjects."
            )
        return used
