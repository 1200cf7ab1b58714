"""The classifier of a stretch of epochs, with its temporal context module (TCM), as nodes of an ONNX graph.

Shapes: L epochs of the stretch, D features of an embedding; those of the state spaces are as in
:mod:`synth.layers.mamba`.
"""

from typing import Any

import keras
import numpy as np

from staging.graph import Graph
from synth.layers.mamba import Mamba, Mamba2
from synth.layers.transformer import EncoderLayer
from synth.models.classifier import SelfAttention, SequenceClassifier
from synth.onnx.layers import attention, elu, linear, normalised, scale_and_shift, silu, values, weights


def logits(graph: Graph, classifier: SequenceClassifier, embeddings: str) -> str:
    """``embeddings`` (L, D) to logits (L, classes)."""
    x = embeddings
    if classifier.norm is not None:
        scale, shift = map(graph.constant, scale_and_shift(classifier.norm))
        x = graph.add("Add", graph.add("Mul", x, scale), shift)
    added = x
    for layer in classifier.context_layers:
        added = _context(graph, layer, added)
    x = added if classifier.plain or added == x else graph.add("Add", x, added)
    head = classifier.head
    for layer, norm in zip(head.linears, head.norms, strict=True):
        x = elu(graph, linear(graph, x, *weights(layer, norm)))
    return linear(graph, x, *weights(head.logits))


def _context(graph: Graph, layer: Any, x: str) -> str:
    """A layer of the TCM: ``x`` (L, D) to (L, D)."""
    if isinstance(layer, Mamba):
        return _mamba(graph, layer, x)
    if isinstance(layer, Mamba2):
        return _mamba2(graph, layer, x)
    if isinstance(layer, SelfAttention):
        return _self_attention(graph, layer.attention, x)
    if isinstance(layer, EncoderLayer):
        x = normalised(graph, graph.add("Add", x, _self_attention(graph, layer.attention, x)), layer.norm1)
        hidden = graph.add("Relu", linear(graph, x, *weights(layer.fc1)))
        return normalised(graph, graph.add("Add", x, linear(graph, hidden, *weights(layer.fc2))), layer.norm2)
    return _lstm(graph, layer, x)


def _self_attention(graph: Graph, own: keras.layers.MultiHeadAttention, x: str) -> str:
    axis = graph.constant([0])
    parts = (own.query_dense, own.key_dense, own.value_dense)
    # Keras's kernels are (D, heads, features of a head).
    kernel = np.concatenate([values(part.kernel).reshape(part.kernel.shape[0], -1) for part in parts], axis=1)
    bias = np.concatenate([values(part.bias).ravel() for part in parts])
    x = attention(graph, graph.add("Unsqueeze", x, axis), kernel, bias, own.num_heads)
    last = own.output_dense
    return linear(graph, graph.add("Squeeze", x, axis), values(last.kernel).reshape(len(kernel), -1), values(last.bias))


def _lstm(graph: Graph, layer: Any, x: str) -> str:
    def gates(weight: Any) -> np.ndarray:
        """From Keras's order (input, forget, candidate, output) to ONNX's (input, output, forget, candidate)."""
        i, f, c, o = np.split(values(weight), 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1)

    cell = layer.cell
    bias = gates(cell.bias)
    # The second half is the bias of the recurrent product, which Keras's LSTM does not have.
    parts = (gates(cell.kernel).T, gates(cell.recurrent_kernel).T, np.concatenate([bias, np.zeros_like(bias)]))
    x = graph.add("Unsqueeze", x, graph.constant([1]))
    steps = graph.add("LSTM", x, *(graph.constant(part[None]) for part in parts), hidden_size=layer.units)
    return graph.add("Squeeze", steps, graph.constant([1, 2]))


def _mamba(graph: Graph, layer: Mamba, x: str) -> str:
    u, z = _split(graph, _projected(graph, x, layer.in_kernel), [layer.d_inner] * 2)
    u = _causal_convolution(graph, layer, u)
    sizes = [layer.rank, layer.d_state, layer.d_state]
    delta, B, C = _split(graph, _projected(graph, u, layer.x_kernel), sizes)
    delta = _step(graph, _projected(graph, delta, layer.step_kernel), layer)
    last, middle = graph.constant([2]), graph.constant([1])
    A = graph.constant(-np.exp(values(layer.a_log)))
    decay = graph.add("Exp", graph.add("Mul", graph.add("Unsqueeze", delta, last), A))  # (L, E, N)
    delta_u = graph.add("Unsqueeze", graph.add("Mul", delta, u), last)
    added = graph.add("Mul", delta_u, graph.add("Unsqueeze", B, middle))
    states = _recurrence(graph, decay, added, layer.state_shape)
    y = graph.add("Squeeze", graph.add("MatMul", states, graph.add("Unsqueeze", C, last)), last)
    y = graph.add("Add", y, graph.add("Mul", u, graph.constant(values(layer.skip))))
    return _projected(graph, graph.add("Mul", y, silu(graph, z)), layer.out_kernel)


def _mamba2(graph: Graph, layer: Mamba2, x: str) -> str:
    inner, states = layer.d_inner, layer.d_state
    z, uBC, delta = _split(graph, _projected(graph, x, layer.in_kernel), [inner, layer.channels, layer.heads])
    u, B, C = _split(graph, _causal_convolution(graph, layer, uBC), [inner, states, states])
    u = graph.add("Reshape", u, graph.constant([-1, layer.heads, layer.headdim, 1]))
    delta = _step(graph, delta, layer)
    decay = graph.add("Exp", graph.add("Mul", delta, graph.constant(-np.exp(values(layer.a_log)))))
    delta, decay = (graph.add("Unsqueeze", part, graph.constant([2, 3])) for part in (delta, decay))  # (L, H, 1, 1)
    B, C = graph.add("Unsqueeze", B, graph.constant([1, 2])), graph.add("Unsqueeze", C, graph.constant([1, 3]))
    added = graph.add("Mul", graph.add("Mul", delta, u), B)  # (L, H, P, N)
    y = graph.add("MatMul", _recurrence(graph, decay, added, layer.state_shape), C)  # (L, H, P, 1)
    y = graph.add("Add", y, graph.add("Mul", u, graph.constant(values(layer.skip)[:, None, None])))
    y = graph.add("Mul", graph.add("Reshape", y, graph.constant([-1, inner])), silu(graph, z))
    square = graph.add("ReduceMean", graph.add("Mul", y, y), graph.constant([1]))
    root = graph.add("Sqrt", graph.add("Add", square, graph.constant(np.float32(1e-5))))
    y = graph.add("Mul", graph.add("Div", y, root), graph.constant(values(layer.norm_scale)))
    return _projected(graph, y, layer.out_kernel)


def _split(graph: Graph, x: str, sizes: list[int]) -> list[str]:
    """The parts of ``x`` (L, features) that have ``sizes`` features."""
    names = [f"{x}_part_{number}" for number in range(len(sizes))]
    graph.add("Split", x, graph.constant(sizes), outputs=names, axis=1)
    return names


def _projected(graph: Graph, x: str, kernel: Any) -> str:
    return graph.add("MatMul", x, graph.constant(values(kernel)))


def _step(graph: Graph, delta: str, layer: Mamba | Mamba2) -> str:
    """The length of each step, from what the layer projected."""
    return graph.add("Softplus", graph.add("Add", delta, graph.constant(values(layer.step_bias))))


def _causal_convolution(graph: Graph, layer: Mamba | Mamba2, x: str) -> str:
    """Each channel of ``x`` (L, C) convolved with the steps before, then SiLU."""
    row = graph.add("Unsqueeze", graph.add("Transpose", x, perm=(1, 0)), graph.constant([0]))
    # Ours is (steps, channels).
    kernel = values(layer.convolution_kernel).T[:, None]
    own = graph.constant(kernel), graph.constant(values(layer.convolution_bias))
    row = graph.add("Conv", row, *own, group=layer.channels, pads=(layer.d_conv - 1, 0))
    return silu(graph, graph.add("Transpose", graph.add("Squeeze", row, graph.constant([0])), perm=(1, 0)))


def _recurrence(graph: Graph, decay: str, added: str, shape: tuple[int, ...]) -> str:
    """The states (L, *shape) of h' = decay · h + added after each step, from zeros."""
    body = Graph(f"{graph.name}_step", graph)
    body.add("Add", body.add("Mul", "decay", "state"), "added", outputs=["next_state"])
    body.add("Identity", "next_state", outputs=["state_after"])
    inputs, outputs = (dict.fromkeys(names) for names in (("state", "decay", "added"), ("next_state", "state_after")))
    states = f"{graph.name}_states"
    zeros = graph.constant(np.zeros(shape, np.float32))
    step = body.between(inputs, outputs)
    graph.add("Scan", zeros, decay, added, outputs=[f"{states}_last", states], body=step, num_scan_inputs=2)
    return states
