"""Rank-stabilised low-rank adaptation (LoRA): two thin matrices learn beside a frozen Dense layer.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; Kalajdzievski, "A Rank Stabilization Scaling
Factor for Fine-Tuning with LoRA", arXiv:2312.03732 (2023).
"""

import math
from typing import Any

import keras
from keras import ops


class Lora(dict):
    """How a layer is adapted: the rank r, alpha (the product is scaled by alpha / sqrt(r)), and the input's dropout."""

    def __init__(self, rank: int = 4, alpha: float = 16.0, dropout: float = 0.0) -> None:
        super().__init__(rank=rank, alpha=alpha, dropout=dropout)


@keras.saving.register_keras_serializable(package="synth")
class LoraDense(keras.layers.Dense):
    """A Dense layer whose kernel W and bias b are frozen, and matrices A and B that learn: x W + b + scale · (x A) B.

    A begins as normal noise of variance 1 / r, B as zeros, so the layer first computes the same as before.

    Args:
        units: as in Dense.
        lora: how the layer is adapted: a :class:`Lora`, or some of its values by name.
    """

    def __init__(self, units: int, lora: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.lora = Lora(**lora)
        self.scale = self.lora["alpha"] / math.sqrt(self.lora["rank"])
        self.input_dropout = keras.layers.Dropout(self.lora["dropout"], dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        for variable in (self._kernel, self.bias):
            variable.trainable = False
        # Dense locks its list of weights when it is built.
        self._tracker.unlock()
        rank = self.lora["rank"]
        noise = keras.initializers.RandomNormal(stddev=1 / math.sqrt(rank))
        self.a = self.add_weight(name="lora_a", shape=(input_shape[-1], rank), initializer=noise)
        self.b = self.add_weight(name="lora_b", shape=(rank, self.units), initializer="zeros")
        self._tracker.lock()

    def call(self, inputs: Any, training: bool = False) -> Any:
        adapted = ops.matmul(ops.matmul(self.input_dropout(inputs, training=training), self.a), self.b)
        y = ops.matmul(inputs, self.kernel) + self.scale * adapted
        # The bias is added last: TensorFlow's graph optimiser fails on the order product, bias, sum before an
        # activation, and then fuses nothing in the whole model.
        return y if self.bias is None else y + self.bias

    def merged_kernel(self) -> Any:
        """The kernel of a plain Dense layer that computes the same."""
        return self._kernel + self.scale * ops.matmul(self.a, self.b)

    # Dense's own methods would save merged weights, for Keras's own LoRA.
    def save_own_variables(self, store: dict[str, Any]) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lora": self.lora}


def dense(units: int, lora: dict[str, Any] | None = None, **kwargs: Any) -> keras.layers.Dense:
    """A Dense layer, adapted if ``lora`` is given."""
    return keras.layers.Dense(units, **kwargs) if lora is None else LoraDense(units, lora, **kwargs)


def call_dense(layer: keras.layers.Dense, x: Any, training: bool) -> Any:
    """``layer(x)``; only an adapted layer takes the argument ``training``, for its dropout."""
    return layer(x, training=training) if isinstance(layer, LoraDense) else layer(x)


def as_lora(named: dict[str, Any] | None) -> dict[str, Lora]:
    """Each layer's :class:`Lora` by the layer's name; values that are not given get their defaults."""
    return {name: Lora(**lora) for name, lora in (named or {}).items()}


def merge(model: keras.Model) -> keras.Model:
    """A new model without LoRA that computes the same as ``model`` outside training, for deployment."""
    merged = type(model).from_config(_without_lora(model.get_config()))
    # Keras has no public way to visit layers inside layers.
    adapted = {layer.path: layer for layer in model._flatten_layers() if isinstance(layer, LoraDense)}
    values = {variable.path: variable for variable in model.weights}
    for variable in merged.weights:
        layer, _, name = variable.path.rpartition("/")
        variable.assign(
            adapted[layer].merged_kernel() if name == "kernel" and layer in adapted else values[variable.path]
        )
    return merged


def _without_lora(config: Any) -> Any:
    """A model's configuration in which every ``lora`` is empty and every ``rank`` is 0."""
    if not isinstance(config, dict):
        return config
    return {
        name: {} if name == "lora" else 0 if name == "rank" else _without_lora(value) for name, value in config.items()
    }
