"""Mamba and Mamba-2 as Keras layers, in keras.ops: they run on TensorFlow (under XLA too), JAX and PyTorch.

Mamba: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752 (2023), section 3.
Mamba-2: Dao & Gu, "Transformers are SSMs", arXiv:2405.21060 (2024), sections 6 and 7.

Shapes, with the papers' letters: B sequences, L length, D features of the input (``d_model``), E inner features
(``expand`` · D), N state size (``d_state``), K steps of the convolution (``d_conv``), H heads of P features each
(E = H · P), J chunks of Q steps.

Values, also with the papers' letters: u is the input of the state space, h its state, delta the length of a step, A the
rates of decay, B and C the input and output matrices, D the weight with which u is added to the output. As in the
papers, B and D mean these values in an equation, but the numbers above in a shape.
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from runs.configured import Configured

LINEAR_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
}
"""Uniform between ±1 / sqrt(inputs), as PyTorch draws a linear layer."""

MASKED = -1e30
"""Used in an exponent instead of minus infinity, whose gradient would be NaN."""


def masked(x: Any, mask: Any) -> Any:
    """``x`` (B, L, C) with zeros where ``mask`` (B, L) is false."""
    return x if mask is None else x * ops.cast(ops.expand_dims(mask, -1), x.dtype)


class StateSpaceLayer(Configured):
    """What both layers share: projections in and out, a causal convolution, and a state carried along the sequence.

    A step whose ``mask`` is false does not change the state, enters the convolution as zeros, and gives zeros. State
    and decays are float32 under mixed precision.

    Attributes:
        channels: C, the channels of the convolution.
        state_shape: the shape of the state space's state, without the batch.
    """

    channels: int
    state_shape: tuple[int, ...]

    def __init__(self, d_model: int, d_state: int, d_conv: int, expand: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = expand * d_model
        self.supports_masking = True

    @property
    def state_dtype(self) -> str:
        """The dtype of the state, at least float32."""
        return "float32" if self.compute_dtype in ("bfloat16", "float16") else self.compute_dtype

    def _linear(self, name: str, inputs: int, outputs: int) -> Any:
        return self.add_weight(name=name, shape=(inputs, outputs), initializer=LINEAR_INITIALIZER)

    def _build_convolution(self) -> None:
        limit = 1 / math.sqrt(self.d_conv)
        uniform = keras.initializers.RandomUniform(-limit, limit)
        shape = (self.d_conv, self.channels)
        self.convolution_kernel = self.add_weight(name="convolution_kernel", shape=shape, initializer=uniform)
        self.convolution_bias = self.add_weight(name="convolution_bias", shape=shape[1:], initializer=uniform)

    def _step_bias(self, shape: tuple[int, ...], dtype: str) -> Any:
        """The b for which softplus(b) is log-uniform between 0.001 and 0.1."""
        step = ops.exp(keras.random.uniform(shape, math.log(1e-3), math.log(1e-1), dtype=dtype))
        return step + ops.log(-ops.expm1(-step))

    def initial_state(self, batch: Any) -> tuple[Any, Any]:
        """Zeros: the convolution's window (B, K - 1, C), and the state space's state (B, E, N) or (B, H, P, N)."""
        window = ops.zeros((batch, self.d_conv - 1, self.channels), self.compute_dtype)
        return window, ops.zeros((batch, *self.state_shape), self.state_dtype)

    def _convolve(self, x: Any, window: Any) -> tuple[Any, Any]:
        """Depthwise causal convolution and SiLU of ``x`` (B, L, C) after ``window``, the K - 1 steps before it."""
        length = ops.shape(x)[1]
        # Computed as K shifted products, because the gradients of a grouped convolution are much slower on a CPU.
        padded = ops.concatenate([ops.cast(window, x.dtype), x], axis=1)
        y, kernel = self._cast(self.convolution_bias), self._cast(self.convolution_kernel)
        for k in range(self.d_conv):
            y = y + padded[:, k : k + length] * kernel[k]
        return ops.silu(y), padded[:, length:]

    def _cast(self, weight: Any) -> Any:
        """``weight`` in the compute dtype; Keras casts it only inside ``__call__``."""
        return ops.cast(weight, self.compute_dtype)

    def _project(self, x: Any, kernel: Any) -> Any:
        return ops.matmul(self._cast(x), self._cast(kernel))

    def run(self, x: Any, state: Any = None, mask: Any = None) -> tuple[Any, Any]:
        """Run over ``x`` (B, L, D) from ``state`` (default zeros); ``mask`` (B, L) is true for steps that count.

        Returns:
            The outputs (B, L, D), and the state after the last step.
        """
        raise NotImplementedError

    def call(self, x: Any, mask: Any = None) -> Any:
        """The outputs (B, L, D) for ``x`` (B, L, D); ``mask`` (B, L) is true for steps that count."""
        return self.run(x, mask=mask)[0]

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        """One step: from ``x`` (B, D) and the state before it to the output (B, D) and the state after it."""
        y, state = self.run(x[:, None], state)
        return y[:, 0], state

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class Recurrence(keras.layers.RNN):
    """Runs a cell along a sequence, beginning with a given state; gives the outputs of all steps and the last state.

    Keras's ``ops.scan`` does not serve: on TensorFlow it cannot be differentiated under XLA, and its outputs must have
    the shape of the state.
    """

    def __init__(self, cell: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(cell, return_sequences=True, return_state=True, **kwargs)

    def run(self, parts: tuple[Any, ...], state: Any) -> tuple[Any, Any]:
        """From ``parts`` (B, L, features), joined, and ``state`` (B, ...) to outputs (B, L, ...) and last state."""
        flat = ops.reshape(state, (ops.shape(state)[0], self.cell.state_size))
        outputs, last = self(ops.concatenate(parts, axis=-1), initial_state=[flat])
        return outputs, ops.reshape(last, (ops.shape(state)[0], *state.shape[1:]))


@keras.saving.register_keras_serializable(package="synth")
class ChunkCell(Configured):
    """The step from one chunk to the next: h' = kept · h + added; the output is h, with which the chunk begins.

    Args:
        heads: how many parts of the state have their own decay: H for Mamba-2, E · N for Mamba.
        size: how many numbers a part has: P · N for Mamba-2, 1 for Mamba.
    """

    def __init__(self, heads: int, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.state_size = self.output_size = heads * size

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        """``inputs`` (B, heads + heads · size): kept, added; the state is (B, heads · size)."""
        kept, added = inputs[:, : self.heads], inputs[:, self.heads :]
        hidden = ops.reshape(states[0], (-1, self.heads, self.size)) * kept[:, :, None]
        return states[0], [ops.reshape(hidden, (-1, self.state_size)) + added]


@keras.saving.register_keras_serializable(package="synth")
class Mamba(StateSpaceLayer):
    """Mamba: a state space whose step, input and output matrices depend on the input (arXiv:2312.00752, algorithm 2).

    Args:
        d_model: D, features of input and output.
        d_state: N, states of each inner feature.
        d_conv: K, steps that the convolution sees.
        expand: E = expand · D inner features.
        chunk_size: Q, the steps of a chunk; except for rounding, the result does not depend on it.

    Example:

    >>> layer = Mamba(d_model=64)
    >>> tuple(layer(keras.ops.ones((2, 20, 64))).shape)
    (2, 20, 64)
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2, chunk_size: int = 16, **kwargs: Any
    ) -> None:
        super().__init__(d_model, d_state, d_conv, expand, **kwargs)
        self.rank = -(-d_model // 16)
        self.chunk_size = chunk_size
        self.channels, self.state_shape = self.d_inner, (self.d_inner, d_state)

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "d_model", self.d_model)
        inner, states = self.d_inner, self.d_state
        self.in_kernel = self._linear("in_kernel", self.d_model, 2 * inner)
        self._build_convolution()
        self.x_kernel = self._linear("x_kernel", inner, self.rank + 2 * states)
        limit = self.rank**-0.5
        uniform = keras.initializers.RandomUniform(-limit, limit)
        self.step_kernel = self.add_weight(name="step_kernel", shape=(self.rank, inner), initializer=uniform)
        self.step_bias = self.add_weight(name="step_bias", shape=(inner,), initializer=self._step_bias, autocast=False)
        self.a_log = self.add_weight(name="a_log", shape=(inner, states), initializer=self._a_log, autocast=False)
        carry = ChunkCell(inner * states, 1, dtype=self.state_dtype, name="carry_cell")
        self.carry = Recurrence(carry, dtype=self.state_dtype, name="carry")
        self.carry.build((None, None, 2 * inner * states))
        self.skip = self.add_weight(name="skip", shape=(inner,), initializer="ones", autocast=False)
        self.out_kernel = self._linear("out_kernel", inner, self.d_model)
        self.built = True

    @staticmethod
    def _a_log(shape: tuple[int, ...], dtype: str) -> Any:
        # Tiled, because PyTorch cannot assign to a broadcast tensor.
        return ops.tile(ops.log(ops.arange(1, shape[1] + 1, dtype=dtype))[None], (shape[0], 1))

    def run(self, x: Any, state: Any = None, mask: Any = None) -> tuple[Any, Any]:
        window, h = self.initial_state(ops.shape(x)[0]) if state is None else state
        u, z = ops.split(self._project(x, self.in_kernel), 2, axis=-1)
        u, window = self._convolve(masked(u, mask), window)  # (B, L, E)
        places = [self.rank, self.rank + self.d_state]
        delta, B, C = ops.split(self._project(u, self.x_kernel), places, axis=-1)
        delta = ops.cast(self._project(delta, self.step_kernel), self.state_dtype)
        # A masked step has length 0, so the state neither decays nor takes anything in.
        delta = masked(ops.softplus(delta + self.step_bias), mask)  # (B, L, E)
        u32, B, C = (ops.cast(v, self.state_dtype) for v in (u, B, C))
        D = self.skip
        y, h = self._state_space(delta, delta * u32, B, C, h)
        y = self._cast(y + D * u32) * ops.silu(z)
        return masked(self._project(y, self.out_kernel), mask), (window, h)

    def _state_space(self, delta: Any, delta_u: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        """The recurrence h' = exp(delta · A) h + delta · u · B, y = C · h', for all steps.

        A long sequence is cut into chunks that run side by side, so that there are few steps on large arrays. They run
        twice: first from zeros, which gives what each chunk adds to the state; then, after the state was carried from
        chunk to chunk, from the state with which each begins. A sequence of at most two chunks' steps is one chunk. The
        steps of a chunk are written out, because a loop would take longer than the steps.

        Args:
            delta, delta_u: delta and delta · u (B, L, E).
            B, C: (B, L, N).
            h: (B, E, N) before the first step.

        Returns:
            y (B, L, E), and the state after the last step.
        """
        batch, length = ops.shape(delta)[0], ops.shape(delta)[1]
        short = isinstance(length, int) and length <= 2 * self.chunk_size
        size = length if short else self.chunk_size
        count = 1 if short else -(-length // size)

        def steps(v: Any) -> list[Any]:
            """(B, L, ...) as Q times (B · J, ...), with the last chunk padded by steps of length 0."""
            if not short:
                v = ops.pad(v, [[0, 0], [0, count * size - length], [0, 0]])
            return ops.unstack(ops.reshape(v, (batch * count, size, v.shape[-1])), size, axis=1)

        A = -ops.exp(self.a_log)
        parts = [steps(v) for v in (delta, delta_u, B, C)]
        # The share of the state that each step keeps, and what it adds to the state (B · J, E, N).
        changes: Iterator[tuple[Any, Any]] = (
            (ops.exp(delta[..., None] * A), delta_u[..., None] * B[:, None])
            for delta, delta_u, B in zip(*parts[:3], strict=True)
        )
        if not short:
            kept_and_added = list(changes)
            local = kept_and_added[0][1]
            for kept, added in kept_and_added[1:]:
                local = kept * local + added
            whole = ops.exp(sum(parts[0])[..., None] * A)
            over_chunks = (ops.reshape(v, (batch, count, self.d_inner * self.d_state)) for v in (whole, local))
            before, last = self.carry.run(tuple(over_chunks), h)
            h = ops.reshape(before, (batch * count, self.d_inner, self.d_state))
            changes = iter(kept_and_added)
        outputs = []
        for (kept, added), C in zip(changes, parts[3], strict=True):
            h = kept * h + added
            outputs.append(ops.sum(C[:, None] * h, axis=-1))
        y = ops.reshape(ops.stack(outputs, axis=1), (batch, count * size, self.d_inner))
        return y[:, :length], (h if short else last)


@keras.saving.register_keras_serializable(package="synth")
class Mamba2(StateSpaceLayer):
    """Mamba-2: one decay per head, computed chunk by chunk as matrix products (arXiv:2405.21060, listing 1).

    Within a chunk, every step sees all earlier ones through a decaying matrix, as in attention; from chunk to chunk, a
    state is carried. The cost grows linearly with the length, and is almost only matrix products.

    Args:
        d_model, d_state, d_conv, expand: as in :class:`Mamba`.
        headdim: P, inner features of a head; E must be a multiple of it.
        chunk_size: Q, the steps of a chunk; except for rounding, the result does not depend on it.

    Example:

    >>> layer = Mamba2(d_model=64)
    >>> tuple(layer(keras.ops.ones((2, 20, 64))).shape)
    (2, 20, 64)
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        chunk_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(d_model, d_state, d_conv, expand, **kwargs)
        if self.d_inner % headdim:
            raise ValueError(f"expand * d_model = {self.d_inner} is not a multiple of headdim = {headdim}.")
        self.headdim, self.chunk_size = headdim, chunk_size
        self.heads = self.d_inner // headdim
        self.channels, self.state_shape = self.d_inner + 2 * d_state, (self.heads, headdim, d_state)

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "d_model", self.d_model)
        inner, states, heads = self.d_inner, self.d_state, self.heads
        self.in_kernel = self._linear("in_kernel", self.d_model, inner + self.channels + heads)
        self._build_convolution()
        self.step_bias = self.add_weight(name="step_bias", shape=(heads,), initializer=self._step_bias, autocast=False)
        self.a_log = self.add_weight(name="a_log", shape=(heads,), initializer=self._a_log, autocast=False)
        self.skip = self.add_weight(name="skip", shape=(heads,), initializer="ones", autocast=False)
        size = self.headdim * states
        cell = ChunkCell(heads, size, dtype=self.state_dtype, name="cell")
        self.recurrence = Recurrence(cell, dtype=self.state_dtype, name="recurrence")
        self.recurrence.build((None, None, heads + heads * size))
        self.norm_scale = self.add_weight(name="norm_scale", shape=(inner,), initializer="ones")
        self.out_kernel = self._linear("out_kernel", inner, self.d_model)
        self.built = True

    @staticmethod
    def _a_log(shape: tuple[int, ...], dtype: str) -> Any:
        return ops.log(keras.random.uniform(shape, 1.0, 16.0, dtype=dtype))

    def run(self, x: Any, state: Any = None, mask: Any = None) -> tuple[Any, Any]:
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        window, h = self.initial_state(batch) if state is None else state
        inner = self.d_inner
        z, uBC, delta = ops.split(self._project(x, self.in_kernel), [inner, inner + self.channels], axis=-1)
        uBC, window = self._convolve(masked(uBC, mask), window)
        u, B, C = ops.split(uBC, [inner, inner + self.d_state], axis=-1)
        u = ops.reshape(u, (batch, length, self.heads, self.headdim))
        # A masked step has length 0, so the state neither decays nor takes anything in.
        delta = masked(ops.softplus(ops.cast(delta, self.state_dtype) + self.step_bias), mask)  # (B, L, H)
        y, h = self._state_space(u, delta, B, C, h)
        D = ops.cast(self.skip, y.dtype)[:, None]
        y = ops.reshape(y + D * u, (batch, length, inner)) * ops.silu(z)
        y32 = ops.cast(y, self.state_dtype)
        y32 = y32 * ops.rsqrt(ops.mean(ops.square(y32), axis=-1, keepdims=True) + 1e-5)
        y = self._project(self._cast(y32) * self._cast(self.norm_scale), self.out_kernel)
        return masked(y, mask), (window, h)

    def _state_space(self, u: Any, delta: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        """The recurrence h' = exp(delta · A) h + delta · u ⊗ B, y = C · h', for all steps.

        Args:
            u: (B, L, H, P).
            delta: (B, L, H), in the state's dtype.
            B, C: (B, L, N).
            h: (B, H, P, N) before the first step.

        Returns:
            y (B, L, H, P), and the state after the last step.
        """
        batch, length = ops.shape(u)[0], ops.shape(u)[1]
        size = min(self.chunk_size, length) if isinstance(length, int) else self.chunk_size
        count = -(-length // size)
        padding = count * size - length

        def chunks(v: Any) -> Any:
            """(B, L, ...) as (B, J, Q, ...), with the last chunk padded by steps of length 0."""
            v = ops.pad(v, [[0, 0], [0, padding]] + [[0, 0]] * (len(v.shape) - 2))
            return ops.reshape(v, (batch, count, size, *v.shape[2:]))

        A = -ops.exp(self.a_log)
        u, delta, B, C = (chunks(v) for v in (u, delta, B, C))
        decay = ops.cumsum(delta * A, axis=2)  # (B, J, Q, H): log of the decay since the chunk began
        decay = ops.transpose(decay, (0, 1, 3, 2))  # (B, J, H, Q)
        delta_u = ops.cast(delta, u.dtype)[..., None] * u  # (B, J, Q, H, P)
        delta_u = ops.transpose(delta_u, (0, 1, 3, 2, 4))  # (B, J, H, Q, P)

        # Within the chunks: what step j took in reaches step i >= j, decayed by all steps in between.
        causal = ops.arange(size)[:, None] >= ops.arange(size)[None, :]
        between = ops.exp(ops.where(causal, decay[..., :, None] - decay[..., None, :], MASKED))  # (B, J, H, Q, Q)
        CB = ops.matmul(C, ops.swapaxes(B, -1, -2))  # (B, J, Q, Q)
        y = ops.matmul(ops.cast(between, u.dtype) * CB[:, :, None], delta_u)  # (B, J, H, Q, P)

        # From chunk to chunk: what each chunk adds to the state, and the state with which each begins.
        to_end = ops.exp(decay[..., -1:] - decay)[..., None]  # (B, J, H, Q, 1)
        B, C = (ops.cast(v, self.state_dtype)[:, :, None] for v in (B, C))  # (B, J, 1, Q, N)
        added = ops.matmul(ops.swapaxes(ops.cast(delta_u, self.state_dtype) * to_end, -1, -2), B)  # (B, J, H, P, N)
        kept = ops.exp(decay[..., -1])[..., None, None]  # (B, J, H, 1, 1)
        if isinstance(count, int) and count == 1:
            before = h[:, None]
            h = kept[:, 0] * h + added[:, 0]
        else:
            width = self.heads * self.headdim * self.d_state
            parts = ops.reshape(kept, (batch, count, self.heads)), ops.reshape(added, (batch, count, width))
            before, h = self.recurrence.run(parts, h)
            before = ops.reshape(before, (batch, count, *self.state_shape))
        carried = ops.matmul(C * ops.exp(decay)[..., None], ops.swapaxes(before, -1, -2))  # (B, J, H, Q, P)
        y = ops.transpose(y + ops.cast(carried, y.dtype), (0, 1, 3, 2, 4))
        return ops.reshape(y, (batch, count * size, self.heads, self.headdim))[:, :length], h
