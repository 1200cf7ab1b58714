"""What staging and evaluation need from a network, and how it predicts night files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from data.nights.night import MissingChannel, read_night
from data.recipe import Recipe
from data.terms import InputError
from evaluation.predictions import NightPredictions


class Predictor(Protocol):
    """A network for one task, or several networks whose probabilities are averaged.

    Attributes:
        task: one of ``data.terms.TASKS``.
        recipe: how the signals that it takes are prepared.
        variant: what distinguishes it from other networks for the same task; "" if there are none.
        models: the folder of each network and the SHA-256 of its weights.
        transitions: how often each stage followed each in the training nights, int (5, 5); None if not known.
    """

    @property
    def task(self) -> str: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def variant(self) -> str: ...
    @property
    def models(self) -> list[dict[str, str]]: ...
    @property
    def transitions(self) -> np.ndarray | None: ...

    def probabilities(self, signals: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probabilities float32 (epochs, classes) of one night's consecutive epochs.

        Args:
            signals: float32 (epochs, 3000) for each stream of the recipe, prepared by it. A network of one modality
                also takes several channels (channels, epochs, 3000) and then returns (channels, epochs, classes).
        """
        ...


def predict(predictor: Predictor, signals: Mapping[str, np.ndarray], where: Path) -> np.ndarray:
    """The probabilities (epochs, classes) for the signals of the file ``where``; InputError if one is not finite."""
    probabilities = predictor.probabilities(signals)
    if not np.isfinite(probabilities).all():
        raise InputError(f"{where}: the network's output is not finite: check the units of the channels.")
    return probabilities


def predict_nights(
    predictor: Predictor, paths: Iterable[Path], leave_out: Callable[[str], None] | None = None
) -> Iterator[NightPredictions]:
    """Read night files, local or remote, one after another and predict each with ``predictor``.

    The nights are calibrated only if the recipe says so, because they were prepared like the training nights. A night
    that lacks a channel, or was not scored for the task, is left out, and ``leave_out`` is called with the reason;
    without ``leave_out``, it is an error.

    Raises:
        InputError: a file is not a valid night, or a probability is not finite.
    """
    for path in paths:
        try:
            night = read_night(path, predictor.recipe.names)
            labels = night.labels(predictor.task, predictor.recipe.labelled_wake_minutes)
            if labels is None:
                raise MissingChannel(
                    f"{path} was not scored for breathing events, so {predictor.task} cannot be tested."
                )
        except MissingChannel as error:
            if leave_out is None:
                raise
            leave_out(f"left out: {error}")
            continue
        probabilities = predict(predictor, night.inputs(predictor.recipe), path)
        yield NightPredictions(night.name, predictor.task, labels, probabilities, night.stages, night.events_in_sleep)
