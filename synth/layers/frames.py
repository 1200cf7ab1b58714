"""Frames of an epoch, and the convolutional backbone that describes each frame.

Lee et al., "NeuroNet", arXiv:2404.17585 (2024): a multi-scale one-dimensional ResNet with squeeze and excitation.

Shapes: B epochs, F frames of an epoch, S samples of a frame, T time steps, C channels.
"""

from typing import Any

import keras
from keras import ops

from data.terms import EPOCH_SAMPLES, SAMPLING_RATE
from runs.configured import Configured
from synth.layers.lora import as_lora, call_dense, dense

BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}
WIDTHS = (64, 128, 128, 256)
STRIDES = (1, 1, 2, 2)
POOLING = {3: 16, 5: 11, 7: 6}
"""For each branch, by its kernel, the number of steps over which its last features are averaged."""
SQUEEZE = 16


def frame_starts(window: float, step: float) -> range:
    """The first samples of an epoch's whole frames of ``window`` s, every ``step`` s."""
    size = round(window * SAMPLING_RATE)
    # As in the published code, only whole samples count: NeuroNet's step of 0.375 s is 37 samples. The small number
    # added keeps a step such as 0.29 s from being rounded down by a sample.
    return range(0, EPOCH_SAMPLES - size + 1, int(step * SAMPLING_RATE + 1e-9))


def cut_frames(signals: Any, window: float, step: float) -> Any:
    """The frames (B, F, S) of epochs (B, 3000)."""
    size = round(window * SAMPLING_RATE)
    return ops.stack([signals[:, first : first + size] for first in frame_starts(window, step)], axis=1)


def sums(*values: Any) -> Any:
    """The sums over all positions of each of ``values`` (B, 1, T, C), stacked as (number, C)."""
    # The outermost axes are summed first: TensorFlow takes twice as long if all are summed at once.
    return ops.stack([ops.sum(ops.sum(x, axis=(0, 1)), axis=0) for x in values])


def normalised(y: Any, gamma: Any, beta: Any, synchronized: bool) -> tuple[Any, Any, Any]:
    """Batch normalisation. Ioffe & Szegedy, arXiv:1502.03167 (2015), section 3.

    Its gradient, also through the statistics, is written out: automatic differentiation would read the features many
    more times, and memory access limits the speed of all operations except matrix products.

    Args:
        y: features (B, 1, T, C).
        gamma, beta: the scale and shift of the features (C).
        synchronized: whether the statistics are those of all replicas, which have equal shares of the batch.

    Returns:
        The normalised features, and their mean and variance (C).
    """
    shape = ops.shape(y)
    positions = ops.cast(shape[0] * shape[2], y.dtype)

    def means(totals: Any) -> list[Any]:
        """The means per position from two rows of sums, over all replicas if synchronized."""
        own = totals / positions
        return ops.unstack(ops.moments(own[None], axes=(0,), synchronized=True)[0] if synchronized else own, 2)

    known = ops.stop_gradient(y)
    mean, square = means(sums(known, ops.square(known)))
    variance = ops.maximum(square - ops.square(mean), 0)

    @ops.custom_gradient
    def function(y: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        deviation = ops.rsqrt(variance + BATCH_NORM["epsilon"])
        scale = gamma * deviation

        def gradients(*arguments: Any, upstream: Any = None) -> tuple[Any, ...]:
            upstream = arguments[0] if upstream is None else upstream
            of_beta, product = ops.unstack(sums(upstream, upstream * y), 2)
            of_gamma = (product - mean * of_beta) * deviation
            # With n = (y - mean) · deviation, this is scale · (upstream - mean(upstream) - n · mean(upstream · n)).
            mean_upstream, mean_product = means(ops.stack([of_beta, of_gamma]))
            slope = mean_product * deviation
            of_y = scale * upstream - (scale * slope) * y + scale * (slope * mean - mean_upstream)
            return of_y, of_gamma, of_beta, ops.zeros_like(mean), ops.zeros_like(variance)

        return y * scale + (beta - mean * scale), gradients

    # Copies are given, because TensorFlow refuses variables as arguments of such a function.
    return function(y, ops.copy(gamma), ops.copy(beta), mean, variance), mean, variance


@keras.saving.register_keras_serializable(package="synth")
class NormalisedConvolution(Configured):
    """A convolution without bias, batch normalisation, and, by default, ELU.

    Outside training, with the learned statistics, this is one convolution with a bias, because the statistics are
    folded into the kernel. In training, with the batch's own statistics, everything except the products is computed in
    float32, which takes no longer under mixed precision.

    Args:
        filters: C of the output.
        kernel_size: steps of the kernel.
        stride: steps from one output to the next.
        padding: steps of zeros on each side.
        elu: whether ELU comes last.
    """

    def __init__(
        self, filters: int, kernel_size: int, stride: int = 1, padding: int = 0, elu: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.filters, self.kernel_size, self.stride, self.padding = filters, kernel_size, stride, padding
        self.elu = elu
        # The same name as in Keras's batch normalisation: whether TensorFlow's replicas share their statistics.
        self.synchronized = False

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(self.kernel_size, input_shape[-1], self.filters))
        own = {"shape": (self.filters,)}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **own)
        self.beta = self.add_weight(name="beta", initializer="zeros", **own)
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", trainable=False, **own)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", trainable=False, **own)
        self.built = True

    def _convolve(self, x: Any, kernel: Any) -> Any:
        x = ops.cast(x, self.compute_dtype)
        if self.padding:
            x = ops.pad(x, ((0, 0), (0, 0), (self.padding, self.padding), (0, 0)))
        return ops.conv(x, ops.cast(kernel, x.dtype)[None], (1, self.stride), data_format="channels_last")

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, 1, T, C) to (B, 1, T', filters)."""
        if training:
            y = ops.cast(self._convolve(x, self.kernel), self.variable_dtype)
            y, mean, variance = normalised(y, self.gamma, self.beta, self.synchronized)
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * BATCH_NORM["momentum"] + value * (1 - BATCH_NORM["momentum"]))
        else:
            scale = self.gamma * ops.rsqrt(self.moving_variance + BATCH_NORM["epsilon"])
            shift = self.beta - self.moving_mean * scale
            y = self._convolve(x, self.kernel * scale) + ops.cast(shift, self.compute_dtype)
        return ops.elu(y) if self.elu else y


@keras.saving.register_keras_serializable(package="synth")
class ResidualBlock(Configured):
    """Two convolutions with squeeze and excitation, whose output is added to the block's input.

    The convolutions pad by 1 whatever their kernel, so the output is shorter if the kernel is above 3; then the input
    is cut on its right to that length.

    Args:
        filters: C of the output.
        kernel_size: steps of both kernels.
        stride: stride of the first convolution.
    """

    def __init__(self, filters: int, kernel_size: int, stride: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.filters, self.kernel_size, self.stride = filters, kernel_size, stride
        own = {"dtype": self.dtype_policy}
        self.conv1 = NormalisedConvolution(filters, kernel_size, stride, padding=1, name="conv1", **own)
        self.conv2 = NormalisedConvolution(filters, kernel_size, padding=1, elu=False, name="conv2", **own)
        self.squeeze = keras.layers.Dense(filters // SQUEEZE, "relu", use_bias=False, name="squeeze", **own)
        self.excite = keras.layers.Dense(filters, "sigmoid", use_bias=False, name="excite", **own)
        self.shortcut: NormalisedConvolution | None = None

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        if self.stride != 1 or channels != self.filters:
            own = {"elu": False, "dtype": self.dtype_policy}
            self.shortcut = NormalisedConvolution(self.filters, 1, self.stride, name="shortcut", **own)
            self.shortcut.build((None, 1, None, channels))
        self.conv1.build((None, 1, None, channels))
        self.conv2.build((None, 1, None, self.filters))
        self.squeeze.build((None, 1, None, self.filters))
        self.excite.build((None, 1, None, self.filters // SQUEEZE))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, 1, T, C) to (B, 1, T', filters)."""
        y = self.conv2(self.conv1(x, training=training), training=training)
        excited = self.excite(self.squeeze(ops.mean(y, axis=2, keepdims=True)))
        if self.shortcut is not None:
            x = self.shortcut(x, training=training)
        if x.shape[2] != y.shape[2]:
            x = ops.slice(x, (0, 0, 0, 0), (ops.shape(x)[0], 1, *y.shape[2:]))
        y, excited, x = (ops.cast(part, self.variable_dtype) for part in (y, excited, x))
        return ops.elu(y * excited + x)


@keras.saving.register_keras_serializable(package="synth")
class FrameBackbone(Configured):
    """The features of each frame: a stem, three branches of kernels 3, 5 and 7, and two linear layers.

    All frames of all epochs are one batch, so that batch normalisation has one set of statistics over all of them; the
    published code has one for each frame. Inference is the same.

    Args:
        window: length of a frame in seconds.
        lora: LoRA for the layers that it names (``linear1``, ``linear2``).

    Example:

    >>> tuple(FrameBackbone(window=4)(keras.ops.ones((2, 27, 400))).shape)
    (2, 27, 3328)
    """

    def __init__(self, window: float, lora: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window, self.lora = window, as_lora(lora)
        own = {"dtype": self.dtype_policy}
        self.stem = NormalisedConvolution(WIDTHS[0], 7, 2, padding=3, name="stem", **own)
        self.branches = [
            [
                ResidualBlock(width, kernel, stride, name=f"branch{kernel}_{number}", **own)
                for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True), 1)
            ]
            for kernel in POOLING
        ]

    def build(self, input_shape: Any) -> None:
        self.samples = round(self.window * SAMPLING_RATE)
        self.require_last_axis(input_shape, f"window * {SAMPLING_RATE}", self.samples, "samples per frame")
        self.stem.build((None, 1, self.samples, 1))
        steps = 0
        for kernel, blocks in zip(POOLING, self.branches, strict=True):
            length, channels = ((self.samples - 1) // 2 + 1 - 1) // 2 + 1, WIDTHS[0]
            for block in blocks:
                block.build((None, 1, length, channels))
                length = (length + 2 - kernel) // block.stride + 1 + 2 - kernel + 1
                channels = block.filters
            steps += length - POOLING[kernel] + 1
        self.flat = steps * WIDTHS[-1]
        self.features = self.flat // 2
        own = {"dtype": self.dtype_policy}
        self.linear1 = dense(self.features, self.lora.get("linear1"), name="linear1", **own)
        self.linear2 = dense(self.features, self.lora.get("linear2"), name="linear2", **own)
        self.linear1.build((None, self.flat))
        self.linear2.build((None, self.features))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """Frames (B, F, S) to features (B, F, D)."""
        return self.describe(self.convolve(x, training), training)

    def convolve(self, x: Any, training: bool = False) -> Any:
        """Frames (B, F, S) to the outputs of the branches (B, F, flat)."""
        batch, frames = ops.shape(x)[0], x.shape[1]
        # As images one pixel high: TensorFlow fuses only two-dimensional convolutions with the operations after them.
        x = self.stem(ops.reshape(x, (-1, 1, self.samples, 1)), training=training)
        # ELU is never below -1, so this padding is never the maximum.
        x = ops.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=-2.0)
        x = ops.max_pool(x, (1, 3), (1, 2), "valid", "channels_last")
        outputs = []
        for kernel, blocks in zip(POOLING, self.branches, strict=True):
            y = x
            for block in blocks:
                y = block(y, training=training)
            y = ops.average_pool(y, (1, POOLING[kernel]), 1, "valid", "channels_last")
            outputs.append(ops.cast(y[:, 0], self.compute_dtype))
        y = ops.transpose(ops.concatenate(outputs, axis=1), (0, 2, 1))
        return ops.reshape(y, (batch, frames, self.flat))

    def describe(self, convolved: Any, training: bool = False) -> Any:
        """The outputs of :meth:`convolve` (B, F, flat) to features (B, F, D)."""
        batch, frames = ops.shape(convolved)[0], convolved.shape[1]
        y = ops.reshape(ops.cast(convolved, self.compute_dtype), (-1, self.flat))
        y = ops.elu(call_dense(self.linear1, y, training))
        y = call_dense(self.linear2, y, training)
        return ops.reshape(y, (batch, frames, self.features))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:2], self.features)
