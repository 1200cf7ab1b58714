"""Gradients of a layer, by whichever backend runs."""

import keras
import numpy as np


def gradients(layer, x, **options):
    """NumPy gradients of sum(layer(x, **options)²) for x and for each trainable variable."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def of_all(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(tf.square(layer(x, **options)))
            return tape.gradient(loss, [x, *[variable.value for variable in layer.trainable_variables]])

        found = [g.numpy() for g in of_all(tf.constant(x))]
    elif keras.backend.backend() == "jax":
        import jax

        fixed = [variable.value for variable in layer.non_trainable_variables]

        def loss(x, weights):
            return (layer.stateless_call(weights, fixed, x, **options)[0] ** 2).sum()

        weights = [variable.value for variable in layer.trainable_variables]
        first, rest = jax.grad(loss, argnums=(0, 1))(x, weights)
        found = [np.asarray(g) for g in (first, *rest)]
    else:
        import torch

        x = torch.tensor(x, requires_grad=True)
        weights = [variable.value for variable in layer.trainable_variables]
        found = [g.numpy() for g in torch.autograd.grad((layer(x, **options) ** 2).sum(), [x, *weights])]
    return found[0], found[1:]
