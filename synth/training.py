"""How SynthSleepNet's networks learn: one compiled step, on TensorFlow."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Learner:
    """Forward, backward, and an update of what learns: AdamW, the gradient's norm clipped.

    Args:
        network: whose trainable variables learn.
        losses: of a batch of inputs; the one called ``loss`` is what falls.
        optimizer: not yet built.
    """

    def __init__(
        self, network: keras.Model, losses: Callable[[Any], dict[str, Any]], optimizer: keras.optimizers.Optimizer
    ) -> None:
        self.network, self.optimizer = network, optimizer
        optimizer.build(network.trainable_variables)

        @tf.function
        def step(inputs: Any) -> dict[str, tf.Tensor]:
            learning = [variable.value for variable in network.trainable_variables]
            # TensorFlow would watch what is frozen too.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(learning)
                found = losses(inputs)
            optimizer.apply(tape.gradient(found["loss"], learning), network.trainable_variables)
            return found

        self.step = step

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


def adamw(rate: float, steps: int, weight_decay: float, clip_norm: float, accumulation: int) -> Any:
    """AdamW whose rate falls to 0 along a cosine within so many ``steps``, ``accumulation`` of which make an update."""
    return keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(rate, max(steps, 1)),
        weight_decay=weight_decay,
        global_clipnorm=clip_norm,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )


def reseed_dropout(network: keras.Model, seed: np.random.SeedSequence) -> None:
    """Draw all dropouts to come from ``seed``."""
    # Keras has no public way to visit the layers within layers.
    dropouts = (layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout))
    generators = [dropout.seed_generator for dropout in dropouts if dropout.rate > 0]
    states = seed.generate_state(2 * max(len(generators), 1)).reshape(-1, 2)
    for generator, state in zip(generators, states, strict=False):
        generator.state.assign(state)
