"""Several trained networks as one: one graph, one pass over the night, the mean of their probabilities."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from data.terms import InputError
from recsleep.model import RecSleepNet


class Ensemble(keras.Model):
    """Networks of one architecture, whose probabilities are averaged; staged with like a single :class:`RecSleepNet`.

    The weights are stacked and one network's graph is mapped over them, so that it is traced once for all, and a
    network's recurrence, which leaves the processor idle, runs beside the others' convolutions.

    Args:
        networks: the members, whose weights are copied.

    Raises:
        InputError: they differ in architecture.
    """

    def __init__(self, networks: Sequence[RecSleepNet], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.network = networks[0]
        variables = [network.trainable_variables for network in networks]
        shapes = [[variable.shape for variable in of_network] for of_network in variables]
        strides = [(n.samples, n.first_stride, n.first_pool, n.second_pool) for n in networks]
        if any(other != shapes[0] for other in shapes) or len(set(strides)) > 1:
            raise InputError("these models differ in architecture, so they cannot be averaged: name one of them.")
        self.members = len(networks)
        self.stacked = []
        for number, weights in enumerate(zip(*variables, strict=True)):
            about = {"name": f"stacked_{number}", "dtype": weights[0].dtype, "trainable": False}
            shape = (self.members, *weights[0].shape)
            self.stacked.append(self.add_weight(shape=shape, initializer="zeros", **about))
            self.stacked[-1].assign(ops.stack([weight.value for weight in weights]))
        self.built = True

    def initial_state(self, nights: int) -> tuple[Any, Any]:
        """Every member's state before a night: hidden and cell, zeros of shape (nights, members, U)."""
        return tuple(ops.zeros((nights, self.members, self.network.lstm_units)) for _ in range(2))

    def call(self, inputs: dict[str, Any]) -> tuple[Any, tuple[Any, Any]]:
        """Logits of the members' mean probabilities (N, E, classes), and the state after the last epoch.

        Args:
            inputs: ``signals`` (N, E, samples) and ``state``, as :meth:`initial_state`.
        """
        rest = [variable.value for variable in self.network.non_trainable_variables]

        def one(member: tuple[Any, Any]) -> tuple[Any, tuple[Any, Any]]:
            weights, state = member
            outputs, _ = self.network.stateless_call(
                list(weights), rest, {"signals": inputs["signals"], "state": tuple(state)}
            )
            logits, state = outputs
            return ops.softmax(logits), tuple(state)

        state = tuple(ops.swapaxes(part, 0, 1) for part in inputs["state"])
        probabilities, state = ops.map(one, ([stacked.value for stacked in self.stacked], state))
        return ops.log(ops.mean(probabilities, axis=0)), tuple(ops.swapaxes(part, 0, 1) for part in state)
