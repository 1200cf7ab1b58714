"""How SynthSleepNet's networks learn: one update, compiled, on one TensorFlow device or several."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers import schedules

from synth.replicas import Replicas

EPSILON = 1e-8
"""Of AdamW. Keras's own is ten times as large; that of PyTorch, in which the published code is written, is this, but
added at another place: see docs/protocols.md."""


def scheduled(kind: str, rate: float, updates: Sequence[int]) -> float | schedules.LearningRateSchedule:
    """The learning rate of each update, by a schedule that ``config.Schedule`` names.

    Args:
        kind: of the schedule.
        rate: at first.
        updates: how many each pass has.
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
    """Forward, backward, and an update of what learns: AdamW, the gradient's norm clipped.

    Args:
        network: whose trainable variables learn.
        losses: of a batch of inputs; the one called ``loss`` is what falls.
        rate: of learning, or what gives it for each update; see :func:`scheduled`.
        weight_decay: of AdamW.
        clip_norm: bound on the gradient's global norm, or None.
        accumulation: batches whose gradients make one update.
        replicas: the devices that share each batch; the network was made under their strategy's scope.

    Attributes:
        differentiate: compiled, from a shared batch to its losses and gradients.
        update: compiled, from gradients to new weights.
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
            # Keras clips, and then sums what the devices bring.
            global_clipnorm=clip_norm / replicas.count if clip_norm else None,
        )
        self.optimizer.build(network.trainable_variables)
        replicas.unite(network)

        def differentiate(inputs: Any) -> Any:
            learning = [variable.value for variable in network.trainable_variables]
            # TensorFlow would watch what is frozen too.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(learning)
                found = losses(inputs)
            return replicas.mean((found, tape.gradient(found["loss"], learning)))

        def update(gradients: list[tf.Tensor]) -> None:
            parts = accumulation * replicas.count
            # A division by 1 would be a pass over all gradients.
            shares = [gradient / parts for gradient in gradients] if parts > 1 else gradients
            self.optimizer.apply(shares, network.trainable_variables)

        self.differentiate = tf.function(lambda inputs: replicas.run(differentiate, inputs), autograph=False)
        self.update = tf.function(lambda gradients: replicas.run(update, gradients), autograph=False)

    def step(self, batches: Any) -> dict[str, tf.Tensor]:
        """Make one update from a nest of tensors, whose first axis is ``accumulation`` batches one after another.

        Returns:
            The losses before it, a mean over the batches.
        """
        size = len(tf.nest.flatten(batches)[0]) // self.accumulation
        parts = []
        for first in range(0, size * self.accumulation, size):
            batch = tf.nest.map_structure(lambda values, first=first: values[first : first + size], batches)
            parts.append(self.differentiate(self.replicas.share(batch)))
        losses, gradients = tf.nest.map_structure(lambda *values: tf.add_n(values), *parts) if parts[1:] else parts[0]
        self.update(gradients)
        return {name: value / self.accumulation for name, value in losses.items()}

    def state(self) -> list[np.ndarray]:
        """All that :meth:`restore` needs: the network's weights and the optimizer's variables."""
        return [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def restore(self, state: list[np.ndarray]) -> None:
        """Take up where another learner of the same network left.

        Raises:
            ValueError: the state is another network's.
        """
        if [value.shape for value in state] != [tuple(variable.shape) for variable in self._variables]:
            raise ValueError("it does not hold this network's weights")
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    @property
    def _variables(self) -> list[Any]:
        return [*self.network.weights, *self.optimizer.variables]


def reseed_dropout(network: keras.Model, seed: np.random.SeedSequence, replicas: Replicas) -> None:
    """Draw all dropouts to come from ``seed``, on each device others."""
    # Keras has no public way to visit the layers within layers.
    dropouts = (layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout))
    generators = [dropout.seed_generator for dropout in dropouts if dropout.rate > 0]
    states = seed.generate_state(2 * replicas.count * len(generators)).reshape(replicas.count, -1, 2)

    def assign(own: np.ndarray | tf.Tensor) -> None:
        for number, generator in enumerate(generators):
            generator.state.assign(own[0, number])

    shared = replicas.share(states)
    tf.function(lambda: replicas.run(assign, shared))()
