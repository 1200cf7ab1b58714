"""Transformer blocks, fixed positions and random masking, as masked autoencoders use them.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, section 3. The encoder layer, which normalises
after each addition, is that of Vaswani et al., "Attention Is All You Need", NeurIPS 2017.

Shapes: B epochs in a batch, T tokens, D features of a token.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from runs.configured import Configured
from synth.layers.lora import as_lora, call_dense, dense

TOKEN_INITIALIZER = {"class_name": "RandomNormal", "config": {"stddev": 0.02}}


@keras.saving.register_keras_serializable(package="synth")
class TransformerBlock(Configured):
    """Self-attention and a two-layer perceptron, each with a LayerNorm before it and added to its input.

    Args:
        dim: the number of features of a token, D.
        heads: heads of the attention; D must be a multiple of it.
        mlp_ratio: the perceptron has ``mlp_ratio`` · D inner features.
        lora: LoRA for the layers that it names (``proj``, ``fc1``, ``fc2``): a :class:`Lora`, or its values by name.
    """

    def __init__(
        self, dim: int, heads: int, mlp_ratio: int = 4, lora: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}.")
        self.dim, self.heads, self.mlp_ratio, self.lora = dim, heads, mlp_ratio, as_lora(lora)
        own = {"dtype": self.dtype_policy}
        self.norm1 = keras.layers.LayerNormalization(epsilon=1e-6, name="norm1", **own)
        self.qkv = keras.layers.Dense(3 * dim, name="qkv", **own)
        self.proj = dense(dim, self.lora.get("proj"), name="proj", **own)
        self.norm2 = keras.layers.LayerNormalization(epsilon=1e-6, name="norm2", **own)
        self.fc1 = dense(mlp_ratio * dim, self.lora.get("fc1"), name="fc1", **own)
        self.fc2 = dense(dim, self.lora.get("fc2"), name="fc2", **own)

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "dim", self.dim)
        tokens = (None, None, self.dim)
        for layer in (self.norm1, self.qkv, self.proj, self.norm2, self.fc1):
            layer.build(tokens)
        self.fc2.build((None, None, self.mlp_ratio * self.dim))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, T, D) to (B, T, D)."""
        q, k, v = ops.split(self.qkv(self.norm1(x)), 3, axis=-1)
        batch, tokens = ops.shape(x)[0], ops.shape(x)[1]
        q, k, v = (ops.reshape(part, (batch, tokens, self.heads, self.dim // self.heads)) for part in (q, k, v))
        attended = ops.reshape(ops.dot_product_attention(q, k, v), (batch, tokens, self.dim))
        x = x + call_dense(self.proj, attended, training)
        hidden = ops.gelu(call_dense(self.fc1, self.norm2(x), training), approximate=False)
        return x + call_dense(self.fc2, hidden, training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(package="synth")
class EncoderLayer(Configured):
    """Self-attention and a two-layer perceptron with ReLU, each added to its input and then normalised.

    It computes the same as PyTorch's ``TransformerEncoderLayer`` with its defaults: biases everywhere, LayerNorm's
    epsilon 1e-5, and dropout in four places: on the attention's weights, within the perceptron, and before each
    addition.

    Args:
        dim: the number of features of a token, D.
        heads: heads of the attention; D must be a multiple of it.
        hidden: the perceptron's inner features.
        dropout: the rate in all four places.

    Raises:
        ValueError: D is not a multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}.")
        self.dim, self.heads, self.hidden, self.dropout = dim, heads, hidden, dropout
        self.supports_masking = True
        own = {"dtype": self.dtype_policy}
        # Glorot's limit for one matrix of query, key and value; Keras would compute it from kernels with three axes.
        limit = math.sqrt(6 / (4 * dim))
        self.attention = keras.layers.MultiHeadAttention(
            heads,
            dim // heads,
            dropout=dropout,
            kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
            name="attention",
            **own,
        )
        self.norm1 = keras.layers.LayerNormalization(epsilon=1e-5, name="norm1", **own)
        self.fc1 = keras.layers.Dense(hidden, activation="relu", name="fc1", **own)
        self.fc2 = keras.layers.Dense(dim, name="fc2", **own)
        self.norm2 = keras.layers.LayerNormalization(epsilon=1e-5, name="norm2", **own)
        self.dropout1, self.hidden_dropout, self.dropout2 = (
            keras.layers.Dropout(dropout, name=name, **own) for name in ("dropout1", "hidden_dropout", "dropout2")
        )

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "dim", self.dim)
        tokens = (None, None, self.dim)
        self.attention.build(tokens, tokens)
        for layer in (self.norm1, self.fc1, self.norm2):
            layer.build(tokens)
        self.fc2.build((None, None, self.hidden))
        self.built = True

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        """(B, T, D) to (B, T, D); ``mask`` (B, T) is true for tokens that count; the others are not attended to."""
        seen = None if mask is None else mask[:, None, :]
        attended = self.attention(x, x, attention_mask=seen, training=training)
        x = self.norm1(x + self.dropout1(attended, training=training))
        hidden = self.hidden_dropout(self.fc1(x), training=training)
        return self.norm2(x + self.dropout2(self.fc2(hidden), training=training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def sine_positions(tokens: int, dim: int, cls_token: bool = False) -> np.ndarray:
    """Fixed positions for an image of ``tokens`` rows and one column, float32 (tokens or tokens + 1, dim).

    The first half of the features encodes the column, which is 0 for all, the second half the row. A cls token in
    front has zeros.
    """
    rates = 1 / 10_000 ** (np.arange(dim // 4) / (dim / 4))

    def waves(positions: np.ndarray) -> np.ndarray:
        angles = positions[:, None] * rates
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    table = np.concatenate([waves(np.zeros(tokens)), waves(np.arange(tokens))], axis=1)
    if cls_token:
        table = np.concatenate([np.zeros((1, dim)), table])
    return table.astype("float32")


def add_positions(layer: Any, tokens: int, cls_token: bool = False, trainable: bool = True) -> Any:
    """A new weight (1, positions, ``layer.dim``) of ``layer``, which begins as :func:`sine_positions`."""
    table = sine_positions(tokens, layer.dim, cls_token)[None]
    positions = layer.add_weight(name="positions", shape=table.shape, initializer="zeros", trainable=trainable)
    positions.assign(table)
    return positions


def random_masking(x: Any, mask_ratio: float, noise: Any) -> tuple[Any, Any, Any]:
    """Keep the tokens with the smallest noise, and hide the others.

    Args:
        x: (B, T, D).
        mask_ratio: share of the tokens to hide.
        noise: (B, T), random numbers for the tokens; the same noise gives the same result.

    Returns:
        The visible tokens in order of their noise (B, kept, D); the mask (B, T), 1 where a token is hidden; and each
        token's place in that order (B, T), which :func:`restore` needs to put the tokens back.
    """
    tokens = x.shape[1]
    kept = int(tokens * (1 - mask_ratio))
    order = ops.argsort(noise, axis=1)
    places = ops.argsort(order, axis=1)
    visible = ops.take_along_axis(x, order[:, :kept, None], axis=1)
    return visible, ops.cast(places >= kept, "float32"), places


def restore(visible: Any, mask_token: Any, places: Any) -> Any:
    """All tokens in their original order (B, T, D), the hidden ones replaced by ``mask_token`` (1, 1, D)."""
    batch, tokens = ops.shape(visible)[0], places.shape[1]
    hidden = ops.broadcast_to(ops.cast(mask_token, visible.dtype), (batch, tokens - visible.shape[1], visible.shape[2]))
    return ops.take_along_axis(ops.concatenate([visible, hidden], axis=1), places[:, :, None], axis=1)
