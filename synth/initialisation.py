"""Draw first weights as PyTorch does, in which the published code is written."""

import math

import keras

from synth.layers.frames import NormalisedConvolution


def draw_as_pytorch(network: keras.Model) -> None:
    """Draw the kernels and biases of a network's linear layers and convolutions again, by Keras's random seed.

    PyTorch draws them uniformly between ±1 / sqrt(number of inputs of an output); Keras's kernels are up to 2.4 times
    as large, and its biases begin as zeros. The weights of LoRA, Mamba, attention and positions stay as they are.
    """
    # Keras has no public way to visit layers inside layers.
    for layer in network._flatten_layers():
        if isinstance(layer, (keras.layers.Dense, NormalisedConvolution)):
            limit = 1 / math.sqrt(math.prod(layer.kernel.shape[:-1]))
            for weight in (layer.kernel, getattr(layer, "bias", None)):
                if weight is not None:
                    weight.assign(keras.random.uniform(weight.shape, -limit, limit))
