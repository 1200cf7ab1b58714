"""RecSleepNet as an ONNX file; ``python -m recsleep.onnx`` writes one.

One network, or several whose probabilities are averaged, become one graph (opset 18, float32). Its inputs are

- ``signals`` (channels, epochs, samples): any number of consecutive epochs of one night, prepared as the recipe says.
  The networks are divided among the channels: network ``k`` takes channel ``k`` modulo the number of channels;
- ``hidden`` and ``cell`` (members, units): each network's state after the epochs before, zeros before the night.

Its outputs are

- ``probabilities`` (epochs, classes): the mean over the networks;
- ``logits`` (members, epochs, classes): the logits of each network;
- ``next_hidden`` and ``next_cell`` (members, units): the state after the last epoch.

Its metadata are JSON texts: ``format`` (the number of this description), ``db`` (the database that the networks were
trained on), ``stages`` (the names of the classes), ``recipe`` (channels, unit, sampling rate and level of the signals),
and ``models`` (for each network the SHA-256 of its files, the weights first).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data.terms import InputError
from staging.graph import Graph, Shapes

if TYPE_CHECKING:
    from recsleep.model import RecSleepNet


def to_onnx(networks: Sequence["RecSleepNet"], about: Mapping[str, Any] | None = None) -> bytes:
    """The content of an ONNX file with one or several networks.

    Args:
        networks: the networks, which must have one architecture.
        about: the metadata, JSON values by name.

    Raises:
        InputError: the networks differ in architecture.
    """
    first, members = networks[0], len(networks)
    sizes = {name: value for name, value in first.get_config().items() if name not in ("name", "dtype", "trainable")}
    if any(not sizes.items() <= network.get_config().items() for network in networks):
        raise InputError("these models differ in architecture, so they cannot be averaged: name one of them.")
    graph = Graph("RecSleepNet")
    channels = graph.add("Gather", graph.add("Shape", "signals"), graph.constant(0))
    outputs = []
    for number, network in enumerate(networks):
        own = graph.add("Gather", "signals", graph.add("Mod", graph.constant(number), channels), axis=0)
        # A convolution over time becomes a two-dimensional one of height 1, which ONNX Runtime computes faster.
        signals = graph.add("Reshape", own, graph.constant([-1, 1, 1, first.samples]))
        outputs.append(_member(graph, network, number, signals))
    logits, hidden, cell = (list(each) for each in zip(*outputs, strict=True))
    graph.add("Concat", *logits, outputs=["logits"], axis=0)
    each = graph.add("Softmax", "logits", axis=-1)
    graph.add("ReduceMean", each, graph.constant([0]), outputs=["probabilities"], keepdims=0)
    for name, states in (("next_hidden", hidden), ("next_cell", cell)):
        graph.add("Squeeze", graph.add("Concat", *states, axis=0), graph.constant([1]), outputs=[name])
    state = (members, first.lstm_units)
    taken: Shapes = {"signals": ("channels", "epochs", first.samples), "hidden": state, "cell": state}
    found: Shapes = {"probabilities": ("epochs", first.classes), "logits": (members, "epochs", first.classes)}
    return graph.file(taken, {**found, "next_hidden": state, "next_cell": state}, about or {})


def _member(graph: Graph, network: "RecSleepNet", number: int, signals: str) -> tuple[str, str, str]:
    """Add a network to the graph; return the names of its logits (1, epochs, classes) and two states (1, 1, units)."""
    from keras.ops import convert_to_numpy

    def convolved(x: str, convolution: Any) -> str:
        # Keras's kernel is (steps, channels, filters).
        kernel = convert_to_numpy(convolution.kernel).transpose(2, 1, 0)[:, :, None]
        strides = (1, convolution.strides[0])
        return graph.add("Conv", x, graph.constant(kernel), auto_pad="SAME_UPPER", strides=strides)

    def pooled(x: str, size: int) -> str:
        # Missing steps of the last window are ignored here and are zeros in Keras. Before or after a ReLU, both give
        # the same result.
        return graph.add("MaxPool", x, kernel_shape=(1, size), strides=(1, size), ceil_mode=1)

    encoder, lstm, head, units = network.encoder, network.lstm, network.head, network.lstm_units
    x = graph.add("Relu", pooled(convolved(signals, encoder.convolution), encoder.first_pool))
    for convolution in encoder.block.forward_convolutions:
        x = graph.add("Relu", convolved(x, convolution))
    x = pooled(x, encoder.second_pool)
    halves = {"average": "GlobalAveragePool", "maximum": "GlobalMaxPool"}
    own = [graph.add(operation, x) for half, operation in halves.items() if encoder.global_pooling in (half, "both")]
    x = graph.add("Reshape", graph.add("Concat", *own, axis=1), graph.constant([-1, 1, encoder.features]))

    def gates(values: np.ndarray) -> np.ndarray:
        """From our order (input, candidate, forget, output) to ONNX's (input, output, forget, candidate)."""
        i, j, f, o = np.split(values, 4, axis=-1)
        return np.concatenate([i, o, f, j], axis=-1)

    cell, bias = lstm.cell, convert_to_numpy(lstm.bias).copy()
    bias[2 * units : 3 * units] += cell.forget_bias
    peepholes = [convert_to_numpy(peephole) for peephole in (cell.peephole_i, cell.peephole_o, cell.peephole_f)]
    weights = (
        gates(convert_to_numpy(lstm.kernel)).T[None],
        gates(convert_to_numpy(cell.kernel)).T[None],
        # The second half is the bias of the recurrent product, which our LSTM does not have.
        np.concatenate([gates(bias), np.zeros_like(bias)])[None],
    )
    kernel, recurrent, both = map(graph.constant, weights)
    bounds = [graph.constant([number]), graph.constant([number + 1])]
    axis = graph.constant([0])
    state = [graph.add("Unsqueeze", graph.add("Slice", part, *bounds, axis), axis) for part in ("hidden", "cell")]
    outputs = [f"{part}_{number}" for part in ("steps", "last_hidden", "last_cell")]
    peephole = graph.constant(np.concatenate(peepholes)[None])
    graph.add("LSTM", x, kernel, recurrent, both, "", *state, peephole, outputs=outputs, hidden_size=units)
    x = graph.add("Reshape", outputs[0], graph.constant([-1, units]))
    x = graph.add("Gemm", x, *(graph.constant(convert_to_numpy(weight)) for weight in (head.kernel, head.bias)))
    return graph.add("Unsqueeze", x, axis), outputs[1], outputs[2]
