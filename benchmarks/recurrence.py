"""Mamba and Mamba-2 whose state space is a plain loop of the backend over the steps, to compare with.

On JAX that is ``lax.scan``, on TensorFlow ``tf.scan``, on PyTorch a loop in Python, whose steps may be compiled.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from synth.layers.mamba import Mamba, Mamba2


def advance(A: Any, h: Any, now: tuple[Any, ...]) -> tuple[Any, Any]:
    """One step of Mamba: state (B, E, N), and delta, delta · u (B, E), B and C (B, N) to the state and y (B, E)."""
    delta, delta_u, B, C = now
    h = ops.exp(delta[:, :, None] * A) * h + delta_u[:, :, None] * B[:, None, :]
    return h, ops.sum(h * C[:, None, :], axis=-1)


def advance2(A: Any, h: Any, now: tuple[Any, ...]) -> tuple[Any, Any]:
    """One step of Mamba-2: state (B, H, P, N), and delta (B, H), delta · u (B, H, P), B and C (B, N)."""
    delta, delta_u, B, C = now
    h = ops.exp(delta * A)[:, :, None, None] * h + delta_u[..., None] * B[:, None, None, :]
    return h, ops.sum(h * C[:, None, None, :], axis=-1)


def loop(step: Callable[..., Any], A: Any, h: Any, parts: tuple[Any, ...]) -> tuple[Any, Any]:
    """The outputs of all steps of ``parts`` (B, L, ...), and the state after the last."""
    if keras.backend.backend() == "torch":
        import torch

        outputs = []
        for now in zip(*(part.unbind(1) for part in parts), strict=True):
            h, y = step(A, h, now)
            outputs.append(y)
        return torch.stack(outputs, 1), h
    parts = tuple(ops.moveaxis(part, 1, 0) for part in parts)
    if keras.backend.backend() == "jax":
        import jax

        h, y = jax.lax.scan(lambda h, now: step(A, h, now), h, parts)
        return ops.moveaxis(y, 0, 1), h
    import tensorflow as tf

    states, y = tf.scan(lambda so_far, now: step(A, so_far[0], now), parts, (h, ops.zeros_like(h[..., 0])))
    return ops.moveaxis(y, 0, 1), states[-1]


class PlainMamba(Mamba):
    """Mamba, step by step."""

    advance = staticmethod(advance)

    def _state_space(self, delta: Any, delta_u: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        return loop(self.advance, -ops.exp(self.a_log), h, (delta, delta_u, B, C))


class PlainMamba2(Mamba2):
    """Mamba-2, step by step."""

    advance = staticmethod(advance2)

    def _state_space(self, u: Any, delta: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        u, B, C = (ops.cast(part, delta.dtype) for part in (u, B, C))
        y, h = loop(self.advance, -ops.exp(self.a_log), h, (delta, delta[..., None] * u, B, C))
        return ops.cast(y, self.compute_dtype), h


def compiled(layer: Mamba | Mamba2) -> Mamba | Mamba2:
    """The same with each step compiled by ``torch.compile``."""
    import torch

    layer.advance = torch.compile(layer.advance)
    return layer
