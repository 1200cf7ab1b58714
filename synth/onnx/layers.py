"""Layers that several parts of SynthSleepNet use, as nodes of an ONNX graph."""

import math
from typing import Any

import numpy as np
from keras.ops import convert_to_numpy

from staging.graph import Graph
from synth.layers.frames import BATCH_NORM
from synth.layers.lora import LoraDense


def values(weight: Any) -> np.ndarray:
    """The numbers of a weight, float32."""
    return np.asarray(convert_to_numpy(weight), np.float32)


def scale_and_shift(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Batch normalisation with its learned statistics, as x · scale + shift."""
    scale = values(norm.gamma) / np.sqrt(values(norm.moving_variance) + BATCH_NORM["epsilon"])
    return scale, values(norm.beta) - values(norm.moving_mean) * scale


def weights(layer: Any, norm: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a Dense layer, adapted or not, merged with the batch normalisation after it, if any."""
    kernel = values(layer.merged_kernel() if isinstance(layer, LoraDense) else layer.kernel)
    bias = values(layer.bias)
    if norm is None:
        return kernel, bias
    scale, shift = scale_and_shift(norm)
    return kernel * scale, bias * scale + shift


def linear(graph: Graph, x: str, kernel: np.ndarray, bias: np.ndarray) -> str:
    """``x`` (..., inputs) to (..., outputs); the bias may have more than one axis."""
    return graph.add("Add", graph.add("MatMul", x, graph.constant(kernel)), graph.constant(bias))


def silu(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def elu(graph: Graph, x: str) -> str:
    """ELU as the larger of x and exp(min(x, 0)) - 1; ONNX Runtime's own ELU takes longer than these four nodes."""
    one, zero = graph.constant(np.float32(1)), graph.constant(np.float32(0))
    below = graph.add("Sub", graph.add("Exp", graph.add("Min", x, zero)), one)
    return graph.add("Max", x, below)


def attention(graph: Graph, x: str, kernel: np.ndarray, bias: np.ndarray, heads: int) -> str:
    """Self-attention of ``x`` (B, T, D) before its last layer, (B, T, D).

    Args:
        kernel, bias: those of query, key and value side by side, (D, 3 D) and (3 D,).
        heads: the number of heads.
    """
    size = len(kernel) // heads
    # The scale of the products is applied to the query.
    scale = np.repeat(np.array([size**-0.5, 1, 1], np.float32), len(kernel))
    parts = graph.add("Reshape", linear(graph, x, kernel * scale, bias * scale), graph.constant([0, 0, 3, heads, size]))
    query, key, value = (
        graph.add(
            "Transpose",
            graph.add("Gather", parts, graph.constant(np.array(number)), axis=2),
            perm=(0, 2, 3, 1) if number == 1 else (0, 2, 1, 3),
        )
        for number in range(3)
    )
    seen = graph.add("Softmax", graph.add("MatMul", query, key), axis=-1)
    x = graph.add("Transpose", graph.add("MatMul", seen, value), perm=(0, 2, 1, 3))
    return graph.add("Reshape", x, graph.constant([0, 0, len(kernel)]))


def normalised(graph: Graph, x: str, norm: Any) -> str:
    """Layer normalisation of ``x`` (..., D)."""
    own = (graph.constant(values(weight)) for weight in (norm.gamma, norm.beta))
    return graph.add("LayerNormalization", x, *own, axis=-1, epsilon=norm.epsilon)


def transformer_block(graph: Graph, x: str, block: Any) -> str:
    """A :class:`synth.layers.transformer.TransformerBlock`, (B, T, D) to (B, T, D)."""
    attended = attention(graph, normalised(graph, x, block.norm1), *weights(block.qkv), block.heads)
    x = graph.add("Add", x, linear(graph, attended, *weights(block.proj)))
    hidden = linear(graph, normalised(graph, x, block.norm2), *weights(block.fc1))
    # GELU: x · (1 + erf(x / √2)) / 2, in the order that ONNX Runtime recognises and computes as one operation.
    erf = graph.add("Erf", graph.add("Div", hidden, graph.constant(np.float32(math.sqrt(2)))))
    hidden = graph.add("Mul", hidden, graph.add("Add", erf, graph.constant(np.float32(1))))
    hidden = graph.add("Mul", hidden, graph.constant(np.float32(0.5)))
    return graph.add("Add", x, linear(graph, hidden, *weights(block.fc2)))
