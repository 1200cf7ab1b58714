"""The first weights of what learns: those of PyTorch, in which the published code is written."""

import math

import keras

from synth.layers.frames import NormalisedConvolution


def draw_as_pytorch(network: keras.Model) -> None:
    """Draw the kernels and biases of a network's linear layers and convolutions anew, by Keras's random seed.

    PyTorch draws them uniformly up to 1 / sqrt(number of inputs of an output); Keras's kernels are up to 2.4 times as
    large, and its biases begin as zeros. LoRA, Mamba, attention and positions keep what their layers say.
    """
    # Keras has no public way to visit the layers within layers.
    for layer in network._flatten_layers():
        if isinstance(layer, (keras.layers.Dense, NormalisedConvolution)):
            limit = 1 / math.sqrt(math.prod(layer.kernel.shape[:-1]))
            for weight in (layer.kernel, getattr(layer, "bias", None)):
                if weight is not None:
                    weight.assign(keras.random.uniform(weight.shape, -limit, limit))
