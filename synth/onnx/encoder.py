"""The encoder as nodes of an ONNX graph: frames, convolutions, transformer blocks, fusion.

Shapes: B epochs, F frames of an epoch, S samples of a frame, T time steps, C channels, D features.
"""

from collections.abc import Mapping

import numpy as np

from staging.graph import Graph
from synth.layers import frames
from synth.models.fusion import SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetDescription, NeuroNetEncoder
from synth.onnx.layers import elu, linear, normalised, scale_and_shift, transformer_block, values, weights


def embeddings(graph: Graph, encoder: SynthSleepNetEncoder | NeuroNetDescription, signals: Mapping[str, str]) -> str:
    """Each stream's ``signals`` (B, 3000) to embeddings (B, D)."""
    if isinstance(encoder, NeuroNetDescription):
        (name,), own = encoder.modalities, encoder.projector
        x = description(graph, encoder.backbones[name], signals[name])
        return linear(graph, elu(graph, linear(graph, x, *weights(own.linear1, own.bn))), *weights(own.linear2))
    found = []
    for name in encoder.modalities:
        tokens, own = _tokens(graph, encoder.backbones[name], signals[name]), encoder.embeddings[name]
        # The cls token is left out.
        bounds = (graph.constant([first]) for first in (1, 1 + encoder.frames, 1))
        x = linear(graph, graph.add("Slice", tokens, *bounds), *weights(own.linear1, own.bn))
        kernel, bias = weights(own.linear2)
        place = values(own.modality_token) + values(own.positions)
        found.append(linear(graph, elu(graph, x), kernel, bias + place))
    x = graph.add("Concat", *found, axis=1)
    for block in encoder.blocks:
        x = transformer_block(graph, x, block)
    return graph.add("ReduceMean", normalised(graph, x, encoder.norm), graph.constant([1]), keepdims=0)


def description(graph: Graph, encoder: NeuroNetEncoder, signals: str) -> str:
    """One stream's ``signals`` (B, 3000) to embeddings (B, D): the cls token."""
    tokens = _tokens(graph, encoder, signals)
    return graph.add("Gather", tokens, graph.constant(np.array(0)), axis=1)


def _tokens(graph: Graph, encoder: NeuroNetEncoder, signals: str) -> str:
    """One stream's ``signals`` (B, 3000) to tokens (B, 1 + F, D), the cls token first."""
    positions = values(encoder.positions)
    backbone = encoder.backbone
    x = _epoch_by_epoch(graph, encoder, signals)
    x = elu(graph, linear(graph, x, *weights(backbone.linear1)))
    x = graph.add("Reshape", x, graph.constant([-1, encoder.frames, backbone.features]))
    # Two linear layers with nothing in between become one, which takes a quarter of the time.
    (kernel, bias), (last, last_bias) = weights(backbone.linear2), weights(encoder.embed)
    x = linear(graph, x, kernel @ last, bias @ last + last_bias + positions[:, 1:])
    batch = graph.add("Shape", x, start=0, end=1)
    shape = graph.add("Concat", batch, graph.constant([1, encoder.dim]), axis=0)
    first = graph.add("Expand", graph.constant(values(encoder.cls_token) + positions[:, :1]), shape)
    x = graph.add("Concat", first, x, axis=1)
    for block in encoder.blocks:
        x = transformer_block(graph, x, block)
    return normalised(graph, x, encoder.norm)


def _epoch_by_epoch(graph: Graph, encoder: NeuroNetEncoder, signals: str) -> str:
    """The outputs of the convolutions for the frames of ``signals`` (B, 3000): (B · F, flat).

    One epoch is convolved at a time, so that values between two convolutions stay in the processor's caches.
    """
    body = Graph(f"{signals}_epoch", graph)
    convolved = _convolutions(body, encoder.backbone, _frames(body, encoder, "epoch"))
    step = body.between({"epoch": None}, {convolved: None})
    x = graph.add("Scan", signals, body=step, num_scan_inputs=1)
    return graph.add("Reshape", x, graph.constant([-1, encoder.backbone.flat]))


def _frames(graph: Graph, encoder: NeuroNetEncoder, epoch: str) -> str:
    """The frames (F, 1, 1, S) of an epoch (3000,)."""
    samples = encoder.backbone.samples
    places = np.array(frames.frame_starts(encoder.window, encoder.step))[:, None] + np.arange(samples)
    cut = graph.add("Gather", epoch, graph.constant(places), axis=0)
    # A convolution over time becomes a two-dimensional one of height 1, which ONNX Runtime computes faster.
    return graph.add("Reshape", cut, graph.constant([-1, 1, 1, samples]))


def _convolutions(graph: Graph, backbone: frames.FrameBackbone, x: str) -> str:
    """Frames (F, 1, 1, S) to the outputs of the branches (F, flat)."""
    x = _convolved(graph, x, backbone.stem)
    x = graph.add("MaxPool", x, kernel_shape=(1, 3), strides=(1, 2), pads=(0, 1, 0, 1))
    branches = []
    for width, blocks in zip(frames.POOLING.values(), backbone.branches, strict=True):
        y, steps = x, (backbone.samples + 3) // 4
        for block in blocks:
            y, steps = _residual(graph, y, steps, block)
        branches.append(graph.add("AveragePool", y, kernel_shape=(1, width)))
    return graph.add("Flatten", graph.add("Concat", *branches, axis=3))


def _convolved(graph: Graph, x: str, layer: frames.NormalisedConvolution) -> str:
    """A convolution with batch normalisation and, if it has one, ELU: (N, C, 1, T) to (N, C', 1, T')."""
    scale, shift = scale_and_shift(layer)
    # Ours is (steps, channels, filters).
    kernel = (values(layer.kernel) * scale).transpose(2, 1, 0)[:, :, None]
    pads = (0, layer.padding, 0, layer.padding)
    own = graph.constant(kernel), graph.constant(shift)
    x = graph.add("Conv", x, *own, strides=(1, layer.stride), pads=pads)
    return elu(graph, x) if layer.elu else x


def _residual(graph: Graph, x: str, steps: int, block: frames.ResidualBlock) -> tuple[str, int]:
    """A :class:`synth.layers.frames.ResidualBlock`: (N, C, 1, T) of T ``steps`` to (N, C', 1, T'), and T'."""
    y = _convolved(graph, _convolved(graph, x, block.conv1), block.conv2)
    # Both convolutions pad by 1.
    steps = (steps + 2 - block.kernel_size) // block.stride + 1 + 2 - block.kernel_size + 1
    excited = graph.add("GlobalAveragePool", y)
    for layer, activation in ((block.squeeze, "Relu"), (block.excite, "Sigmoid")):
        # The Dense layers become convolutions over the only step.
        kernel = values(layer.kernel).T[:, :, None, None]
        excited = graph.add(activation, graph.add("Conv", excited, graph.constant(kernel)))
    if block.shortcut is not None:
        x = _convolved(graph, x, block.shortcut)
    x = graph.add("Slice", x, *(graph.constant([place]) for place in (0, steps, 3)))
    return elu(graph, graph.add("Add", graph.add("Mul", y, excited), x)), steps
