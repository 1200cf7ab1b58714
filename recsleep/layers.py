"""RecSleepNet's layers, in keras.ops: they run on the TensorFlow, JAX and PyTorch backends.

Shapes: N nights (or other items of a batch), E epochs of 30 s, T time steps, C channels, U units.
"""

import math
from typing import Any

import keras
from keras import ops

from runs.configured import Configured

KERNEL_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0, "mode": "fan_in", "distribution": "truncated_normal"},
}


def pool_right_padded(x: keras.KerasTensor, size: int) -> keras.KerasTensor:
    """Maximum over ``size`` steps, with the input padded with zeros on its right to a multiple of ``size``.

    Keras's own "same" padding puts zeros on both sides, which shifts every window. The zeros count, as in the
    reference: use it for values that are, or will become, non-negative.

    Args:
        x: (N, T, C); the result is (N, ceil(T / size), C).
        size: steps of a window, which is also the distance between windows.
    """
    x = ops.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0)))
    return ops.max_pool(x, pool_size=size, strides=size, padding="valid")


@keras.saving.register_keras_serializable(package="recsleep")
class ConvolutionalReconstructionBlock(Configured):
    """CRB: three convolutions; two more must be able to reconstruct the first one's output from the third one's.

    All five are "same"-padded, without bias, followed by ReLU.

    Args:
        filters: filters of every convolution; the input must have as many channels.
        kernel_size: steps of every convolution's kernel.

    Example:

    >>> block = ConvolutionalReconstructionBlock(filters=128, kernel_size=8)
    >>> tuple(block(keras.ops.ones((2, 63, 128))).shape)
    (2, 63, 128)

    A model that also learns from the reconstruction loss, here with a weight of 0.1:

    >>> class Learning(keras.layers.Layer):
    ...     def call(self, output_and_loss):
    ...         output, loss = output_and_loss
    ...         self.add_loss(0.1 * loss)
    ...         return output
    >>> x = keras.Input((63, 128))
    >>> y = Learning()(block(x, reconstruct=True))
    >>> model = keras.Model(x, keras.layers.Dense(1)(GlobalMaxAveragePooling()(y)))
    >>> model.compile("adam", "mse")
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, kernel_size
        self.forward_convolutions = [self._convolution(f"forward_{n}") for n in (1, 2, 3)]
        self.backward_convolutions = [self._convolution(f"backward_{n}") for n in (1, 2)]

    def _convolution(self, name: str) -> keras.layers.Conv1D:
        own = {"kernel_initializer": KERNEL_INITIALIZER, "dtype": self.dtype_policy, "name": name}
        return keras.layers.Conv1D(
            self.filters, self.kernel_size, padding="same", use_bias=False, activation="relu", **own
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.require_last_axis(input_shape, "filters", self.filters, "channels")
        for convolution in self.forward_convolutions + self.backward_convolutions:
            convolution.build(input_shape)
        self.built = True

    def call(self, x: keras.KerasTensor, reconstruct: bool = False) -> Any:
        """Transform ``x`` of shape (N, T, C).

        Returns:
            (N, T, filters); with ``reconstruct`` also the reconstruction loss, a float32 scalar: the mean squared
            difference between the first convolution's output and its reconstruction by the two backward convolutions.
            Gradients flow into both. Without ``reconstruct``, the backward convolutions do not run, so in training they
            have no gradients: if Keras warns of that, all is as it should be.
        """
        middle = self.forward_convolutions[0](x)
        output = self.forward_convolutions[2](self.forward_convolutions[1](middle))
        if not reconstruct:
            return output
        rebuilt = self.backward_convolutions[1](self.backward_convolutions[0](output))
        return output, ops.mean(ops.square(ops.cast(middle - rebuilt, self.variable_dtype)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.filters)

    def compute_output_spec(self, x: keras.KerasTensor, reconstruct: bool = False) -> Any:
        # By itself, Keras would take the shape above for all that a call returns.
        output = keras.KerasTensor(self.compute_output_shape(x.shape), self.compute_dtype)
        return (output, keras.KerasTensor((), self.variable_dtype)) if reconstruct else output


@keras.saving.register_keras_serializable(package="recsleep")
class GlobalMaxAveragePooling(keras.layers.Layer):
    """GMAPB: the average over time, then the maximum over time, side by side: (N, T, C) to (N, 2C)."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return ops.concatenate([ops.mean(x, axis=1), ops.max(x, axis=1)], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[0], 2 * input_shape[-1])


POOLINGS: dict[str, type[keras.layers.Layer]] = {
    "both": GlobalMaxAveragePooling,
    "average": keras.layers.GlobalAveragePooling1D,
    "maximum": keras.layers.GlobalMaxPooling1D,
}
"""What may describe an epoch: the GMAPB, or, to measure its use, only one half of it."""


@keras.saving.register_keras_serializable(package="recsleep")
class PeepholeLSTMCell(Configured):
    """One time step of :class:`PeepholeLSTM`, for :class:`keras.layers.RNN`; it takes the input's part of the gates.

    The kernel's initial values are between ``-kernel_limit`` and ``kernel_limit``.
    """

    def __init__(self, units: int, forget_bias: float = 1.0, kernel_limit: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.forget_bias, self.kernel_limit = units, forget_bias, kernel_limit
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "4 * units", 4 * self.units)
        uniform = keras.initializers.RandomUniform(-self.kernel_limit, self.kernel_limit)
        self.kernel = self.add_weight(name="kernel", shape=(self.units, 4 * self.units), initializer=uniform)
        self.peephole_i, self.peephole_f, self.peephole_o = (
            self.add_weight(name=f"peephole_{gate}", shape=(self.units,), initializer="glorot_uniform")
            for gate in "ifo"
        )
        self.built = True

    def call(self, gates: keras.KerasTensor, states: list[keras.KerasTensor]) -> tuple[Any, list[Any]]:
        """One step: ``gates`` (N, 4U), ``states`` hidden and cell (N, U) each."""
        hidden, cell = states
        i, j, f, o = ops.split(gates + ops.matmul(hidden, self.kernel), 4, axis=-1)
        i = ops.sigmoid(i + self.peephole_i * cell)
        f = ops.sigmoid(f + self.forget_bias + self.peephole_f * cell)
        cell = f * cell + i * ops.tanh(j)
        hidden = ops.sigmoid(o + self.peephole_o * cell) * ops.tanh(cell)
        return hidden, [hidden, cell]


@keras.saving.register_keras_serializable(package="recsleep")
class PeepholeLSTM(Configured):
    """LSTM whose gates see the cell: the input and forget gates its previous value, the output gate its new one.

    As in Gers, Schraudolph & Schmidhuber, "Learning Precise Timing with LSTM Recurrent Networks", JMLR 3 (2002), and as
    TensorFlow 1's ``LSTMCell(use_peepholes=True)``: gate order i, j, f, o, a forget bias added inside the gate.
    The input's part of the gates is one matrix product over all steps; only the hidden state's part is recurrent.

    Args:
        units: the number of units, U.
        forget_bias: added to the forget gate's argument.

    Example:

    >>> x = keras.Input((20, 16))
    >>> outputs, state = PeepholeLSTM(units=8)(x)
    >>> outputs.shape
    (None, 20, 8)

    A model that takes the state in and gives it back, so that it can go on where it stopped:

    >>> before = keras.Input((8,)), keras.Input((8,))
    >>> model = keras.Model((x, before), PeepholeLSTM(units=8)(x, before))
    """

    def __init__(self, units: int, forget_bias: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.forget_bias = units, forget_bias

    def build(self, input_shape: Any) -> None:
        features = input_shape[-1]
        # Glorot's limit for one matrix for both input and hidden state, as the published code has it.
        limit = math.sqrt(6 / (features + self.units + 4 * self.units))
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.kernel = self.add_weight(name="kernel", shape=(features, 4 * self.units), initializer=uniform)
        self.bias = self.add_weight(name="bias", shape=(4 * self.units,), initializer="zeros")
        self.cell = PeepholeLSTMCell(self.units, self.forget_bias, limit, dtype=self.dtype_policy, name="cell")
        self.recurrence = keras.layers.RNN(
            self.cell, return_sequences=True, return_state=True, dtype=self.dtype_policy, name="recurrence"
        )
        self.recurrence.build((None, None, 4 * self.units))
        self.built = True

    def call(self, x: keras.KerasTensor, initial_state: tuple[Any, Any] | None = None) -> tuple[Any, tuple[Any, Any]]:
        """Run over ``x`` of shape (N, E, features) from ``initial_state``, hidden and cell of shape (N, U) each.

        Without ``initial_state``, both begin as zeros.

        Returns:
            The hidden states (N, E, U), and the state after the last step.
        """
        gates = ops.matmul(x, self.kernel) + self.bias
        state = None if initial_state is None else list(initial_state)
        outputs, hidden, cell = self.recurrence(gates, initial_state=state)
        return outputs, (hidden, cell)
