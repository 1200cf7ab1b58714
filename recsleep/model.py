"""RecSleepNet, in keras.ops."""

from typing import Any

import keras
import numpy as np
from keras import ops

from recsleep.layers import (
    KERNEL_INITIALIZER,
    POOLINGS,
    ConvolutionalReconstructionBlock,
    PeepholeLSTM,
    pool_right_padded,
)
from runs.configured import Configured


@keras.saving.register_keras_serializable(package="recsleep")
class EpochEncoder(Configured):
    """The part of RecSleepNet that describes a single epoch: convolution, CRB, GMAPB.

    Args:
        filters: filters of every convolution.
        first_kernel: samples of the first convolution's kernel.
        first_stride: samples between its outputs.
        block_kernel: steps of the CRB's kernels.
        first_pool: steps of the max-pooling before the CRB.
        second_pool: steps of the max-pooling after it.
        dropout: rate after the first pooling and on the features.
        global_pooling: one of :data:`recsleep.layers.POOLINGS`, of which ``both`` is the GMAPB.

    Attributes:
        features: the number of features of an epoch: 2 · filters, or, without the GMAPB, filters.
    """

    def __init__(
        self,
        filters: int,
        first_kernel: int,
        first_stride: int,
        block_kernel: int,
        first_pool: int,
        second_pool: int,
        dropout: float,
        global_pooling: str = "both",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.first_kernel, self.first_stride = filters, first_kernel, first_stride
        self.block_kernel, self.first_pool, self.second_pool = block_kernel, first_pool, second_pool
        self.dropout, self.global_pooling = dropout, global_pooling
        self.features = 2 * filters if global_pooling == "both" else filters
        own = {"dtype": self.dtype_policy}
        like_block = {"padding": "same", "use_bias": False, "kernel_initializer": KERNEL_INITIALIZER}
        self.convolution = keras.layers.Conv1D(
            filters, first_kernel, strides=first_stride, **like_block, name="convolution", **own
        )
        self.block = ConvolutionalReconstructionBlock(filters, block_kernel, name="block", **own)
        self.pooling = POOLINGS[global_pooling](name="pooling", **own)
        self.block_dropout = keras.layers.Dropout(dropout, name="block_dropout", **own)
        self.feature_dropout = keras.layers.Dropout(dropout, name="feature_dropout", **own)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.convolution.build((None, input_shape[-1], 1))
        self.block.build((None, None, self.filters))
        self.built = True

    def call(self, signals: keras.KerasTensor, training: bool = False, reconstruct: bool = False) -> Any:
        """The features of each epoch, (N, features).

        Args:
            signals: (N, samples).
            training: whether dropout is on.
            reconstruct: whether to return the CRB's reconstruction loss too, after the features.
        """
        x = self.convolution(signals[..., None])
        # The ReLU comes after the pooling, which gives the same result with an eighth of the work.
        x = ops.relu(pool_right_padded(x, self.first_pool))
        x = self.block_dropout(x, training=training)
        x, loss = self.block(x, reconstruct=True) if reconstruct else (self.block(x), None)
        x = self.feature_dropout(self.pooling(pool_right_padded(x, self.second_pool)), training=training)
        return (x, loss) if reconstruct else x

    @property
    def regularized_kernels(self) -> list[keras.Variable]:
        """The kernels under L2 regularisation: the first convolution's and the CRB's three forward ones."""
        return [self.convolution.kernel, *(convolution.kernel for convolution in self.block.forward_convolutions)]


@keras.saving.register_keras_serializable(package="recsleep")
class RecSleepNet(Configured, keras.Model):
    """RecSleepNet: 859,909 parameters for 3000-sample epochs with the published values, which are the defaults.

    Each epoch goes through :class:`EpochEncoder`; a unidirectional peephole LSTM runs along the night; a dense layer
    gives the logits of W, N1, N2, N3, REM. The LSTM's state is an input and an output, so the same network can take
    windows in training, whole nights, and epochs that arrive one by one. With mixed precision, the encoder computes in
    bfloat16; the LSTM, its state and the logits stay in float32.

    Args:
        samples: the number of samples in an epoch, at 100 Hz.
        classes: the number of stages.
        lstm_units: the number of units of the LSTM, U.
        Others: see :class:`EpochEncoder`.

    Example:

    >>> network = RecSleepNet()
    >>> night = {"signals": keras.ops.zeros((1, 20, 3000)), "state": network.initial_state(1)}
    >>> logits, state = network(night)
    >>> tuple(logits.shape)
    (1, 20, 5)
    """

    def __init__(
        self,
        samples: int = 3000,
        classes: int = 5,
        filters: int = 128,
        first_kernel: int = 50,
        first_stride: int = 6,
        block_kernel: int = 8,
        first_pool: int = 8,
        second_pool: int = 4,
        lstm_units: int = 128,
        dropout: float = 0.5,
        global_pooling: str = "both",
        **kwargs: Any,
    ) -> None:
        # Without autocast: the state must not be rounded to the compute dtype when it comes in.
        super().__init__(autocast=False, **kwargs)
        self.samples, self.classes, self.lstm_units, self.dropout = samples, classes, lstm_units, dropout
        self.filters, self.first_kernel, self.first_stride = filters, first_kernel, first_stride
        self.block_kernel, self.first_pool, self.second_pool = block_kernel, first_pool, second_pool
        self.global_pooling = global_pooling
        sizes = (filters, first_kernel, first_stride, block_kernel, first_pool, second_pool)
        self.encoder = EpochEncoder(*sizes, dropout, global_pooling, dtype=self.dtype_policy, name="encoder")
        own = {"dtype": self.variable_dtype}
        self.lstm = PeepholeLSTM(lstm_units, name="lstm", **own)
        self.lstm_dropout = keras.layers.Dropout(dropout, name="lstm_dropout", **own)
        self.head = keras.layers.Dense(classes, kernel_initializer=KERNEL_INITIALIZER, name="head", **own)
        self.encoder.build((None, samples))
        self.lstm.build((None, None, self.encoder.features))
        self.head.build((None, None, lstm_units))
        self.built = True

    def initial_state(self, nights: int) -> tuple[Any, Any]:
        """The LSTM's state before a night: hidden and cell, zeros of shape (nights, U)."""
        return tuple(ops.zeros((nights, self.lstm_units), dtype=self.variable_dtype) for _ in range(2))

    def reseed_dropout(self, seeds: np.ndarray) -> None:
        """Set the random state of the three dropout layers: ``seeds`` is uint32 (3, 2)."""
        layers = (self.encoder.block_dropout, self.encoder.feature_dropout, self.lstm_dropout)
        for layer, seed in zip(layers, seeds, strict=True):
            if layer.rate > 0:
                layer.seed_generator.state.assign(seed)

    def call(self, inputs: dict[str, Any], training: bool = False, reconstruct: bool = False) -> Any:
        """The logits of each epoch.

        Args:
            inputs: ``signals`` (N, E, samples) and ``state``, from :meth:`initial_state` or from the call on the epochs
                before.
            training: whether dropout is on.
            reconstruct: whether to return the reconstruction loss too.

        Returns:
            Logits (N, E, classes) and the state after the last epoch; with ``reconstruct`` also the reconstruction loss
            over all N · E epochs.
        """
        signals = inputs["signals"]
        nights, epochs = ops.shape(signals)[:2]
        x = self.encoder(ops.reshape(signals, (-1, self.samples)), training=training, reconstruct=reconstruct)
        x, loss = x if reconstruct else (x, None)
        x = ops.reshape(x, (nights, epochs, x.shape[-1]))
        x, state = self.lstm(x, initial_state=inputs["state"])
        logits = self.head(self.lstm_dropout(x, training=training))
        return (logits, state, loss) if reconstruct else (logits, state)
