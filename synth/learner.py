"""How SynthSleepNet's networks learn: a compiled update on one TensorFlow device or several."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers import schedules

from synth.replicas import Replicas

EPSILON = 1e-8
"""AdamW's epsilon. Keras's default is ten times as large; this is the default of PyTorch, in which the published code
is written, but PyTorch adds it in another place; see docs/protocols.md."""


def scheduled(kind: str, rate: float, updates: Sequence[int]) -> float | schedules.LearningRateSchedule:
    """The learning rate of each update, by one of the schedules in ``config.Schedule``.

    Args:
        kind: the schedule's name.
        rate: the rate at the beginning.
        updates: the number of updates in each pass.
    """
    if kind == "constant":
        return rate
    if kind == "cosine":
        return schedules.CosineDecay(rate, sum(updates))
    rates = rate * (1 + np.cos(np.pi * np.arange(len(updates)) / len(updates))) / 2
    # A boundary is the last update, counted from 0, of its pass.
    boundaries = [int(number) - 1 for number in np.cumsum(updates[:-1])]
    return schedules.PiecewiseConstantDecay(boundaries, rates.tolist()) if boundaries else rate


class Learner:
    """Computes losses and gradients, and updates the trainable variables by AdamW with clipped gradients.

    Args:
        network: the network whose trainable variables learn.
        losses: gives the losses of a batch of inputs; the one called ``loss`` is minimised.
        rate: the learning rate, or a schedule of it; see :func:`scheduled`.
        weight_decay: that of AdamW.
        clip_norm: bound on the gradient's global norm, or None.
        accumulation: the number of batches whose gradients are added up for one update.
        replicas: the devices that share each batch; the network must be made under their strategy's scope.

    Attributes:
        differentiate: compiled function from a shared batch to its losses and gradients.
        update: compiled function that updates the weights from gradients.
    """

    def __init__(
        self,
        network: keras.Model,
        losses: Callable[[Any], dict[str, Any]],
        *,
        rate: float | schedules.LearningRateSchedule,
        weight_decay: float,
        clip_norm: float | None,
        accumulation: int,
        replicas: Replicas,
    ) -> None:
        self.network, self.replicas, self.accumulation = network, replicas, accumulation
        self.optimizer = keras.optimizers.AdamW(
            rate,
            epsilon=EPSILON,
            weight_decay=weight_decay,
            # Keras clips the gradients first, and then adds up those of the devices.
            global_clipnorm=clip_norm / replicas.count if clip_norm else None,
        )
        self.optimizer.build(network.trainable_variables)
        replicas.unite(network)

        def differentiate(inputs: Any) -> Any:
            learning = [variable.value for variable in network.trainable_variables]
            # By default, TensorFlow would watch frozen variables too.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(learning)
                found = losses(inputs)
            return replicas.mean((found, tape.gradient(found["loss"], learning)))

        def update(gradients: list[tf.Tensor]) -> None:
            parts = accumulation * replicas.count
            # A division by 1 is left out, because it would read and write all gradients.
            shares = [gradient / parts for gradient in gradients] if parts > 1 else gradients
            self.optimizer.apply(shares, network.trainable_variables)

        # Not lambdas: TensorFlow would count how often all learners together compile their code, and warn.
        self.differentiate = tf.function(partial(replicas.run, differentiate), autograph=False)
        self.update = tf.function(partial(replicas.run, update), autograph=False)

        # Keras has no public way to visit layers inside layers.
        dropouts = (layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout))
        self._generators = [dropout.seed_generator for dropout in dropouts if dropout.rate > 0]

        def reseed(own: tf.Tensor) -> None:
            for number, generator in enumerate(self._generators):
                generator.state.assign(own[0, number])

        self._reseed = tf.function(partial(replicas.run, reseed), autograph=False)

    def step(self, batches: Any) -> dict[str, tf.Tensor]:
        """Make one update from nested tensors, whose first axis holds ``accumulation`` batches one after another.

        Returns:
            The losses before the update, averaged over the batches.
        """
        size = len(tf.nest.flatten(batches)[0]) // self.accumulation
        parts = []
        for first in range(0, size * self.accumulation, size):
            batch = tf.nest.map_structure(lambda values, first=first: values[first : first + size], batches)
            parts.append(self.differentiate(self.replicas.share(batch)))
        losses, gradients = tf.nest.map_structure(lambda *values: tf.add_n(values), *parts) if parts[1:] else parts[0]
        self.update(gradients)
        return {name: value / self.accumulation for name, value in losses.items()}

    def reseed_dropout(self, seed: np.random.SeedSequence) -> None:
        """Let all later dropout be drawn from ``seed``, differently on each device."""
        count = self.replicas.count
        states = seed.generate_state(2 * count * len(self._generators)).reshape(count, -1, 2)
        self._reseed(self.replicas.share(states))

    def state(self) -> list[np.ndarray]:
        """What :meth:`restore` needs: the network's weights and the optimizer's variables."""
        return [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def restore(self, state: list[np.ndarray]) -> None:
        """Continue from the state of another learner of the same network.

        Raises:
            ValueError: the state is that of another network.
        """
        if [value.shape for value in state] != [tuple(variable.shape) for variable in self._variables]:
            raise ValueError("it does not hold this network's weights")
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    @property
    def _variables(self) -> list[Any]:
        return [*self.network.weights, *self.optimizer.variables]
