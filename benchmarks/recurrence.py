"""Mamba and Mamba-2 whose state space is a plain PyTorch loop over the steps, to compare with."""

from collections.abc import Callable
from typing import Any

import torch

from synth.layers.mamba import Mamba, Mamba2


def advance(h: Any, now: tuple[Any, ...], A: Any) -> tuple[Any, Any]:
    """One step of Mamba: state (B, E, N), and delta, delta · u (B, E), B and C (B, N) to y (B, E) and the state."""
    delta, delta_u, B, C = now
    h = torch.exp(delta[:, :, None] * A) * h + delta_u[:, :, None] * B[:, None, :]
    return (h * C[:, None, :]).sum(-1), h


def advance2(h: Any, now: tuple[Any, ...], A: Any) -> tuple[Any, Any]:
    """One step of Mamba-2: state (B, H, P, N), and delta (B, H), delta · u (B, H, P), B and C (B, N)."""
    delta, delta_u, B, C = now
    h = torch.exp(delta * A)[:, :, None, None] * h + delta_u[..., None] * B[:, None, None, :]
    return (h * C[:, None, None, :]).sum(-1), h


def loop(step: Callable[..., Any], parts: tuple[Any, ...], h: Any, A: Any) -> tuple[Any, Any]:
    outputs = []
    for now in zip(*(part.unbind(1) for part in parts), strict=True):
        y, h = step(h, now, A)
        outputs.append(y)
    return torch.stack(outputs, 1), h


class PlainMamba(Mamba):
    """Mamba, step by step."""

    advance = staticmethod(advance)

    def _state_space(self, delta: Any, delta_u: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        return loop(self.advance, (delta, delta_u, B, C), h, -torch.exp(self.a_log.value))


class PlainMamba2(Mamba2):
    """Mamba-2, step by step."""

    advance = staticmethod(advance2)

    def _state_space(self, u: Any, delta: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        u, B, C = (part.to(delta.dtype) for part in (u, B, C))
        y, h = loop(self.advance, (delta, delta[..., None] * u, B, C), h, -torch.exp(self.a_log.value))
        return y.to(getattr(torch, self.compute_dtype)), h


class CompiledMamba(PlainMamba):
    """Mamba, step by step, a step compiled by ``torch.compile``."""

    advance = staticmethod(torch.compile(advance))


class CompiledMamba2(PlainMamba2):
    """Mamba-2, step by step, a step compiled by ``torch.compile``."""

    advance = staticmethod(torch.compile(advance2))
