"""NeuroNet: self-supervised learning of one modality by masked prediction and contrast.

Lee et al., "NeuroNet: A Novel Hybrid Self-Supervised Learning Framework for Sleep Stage Classification Using
Single-Channel EEG", arXiv:2404.17585 (2024).

Shapes: B epochs of 3000 samples, F frames of an epoch, D features of the encoder.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from runs.configured import Configured
from synth.layers.contrastive import nt_xent
from synth.layers.frames import BATCH_NORM, FrameBackbone, cut_frames, frame_starts
from synth.layers.lora import as_lora
from synth.layers.transformer import TOKEN_INITIALIZER, TransformerBlock, add_positions, random_masking, restore

SIZES = ("window", "step", "dim", "heads", "depth")
"""The arguments of an encoder that decide its size."""


@keras.saving.register_keras_serializable(package="synth")
class NeuroNetEncoder(Configured, keras.Model):
    """Describes an epoch by tokens: frames, the frame backbone, and transformer blocks with a cls token in front.

    Args:
        window: length of a frame in seconds.
        step: seconds from one frame to the next.
        dim: the number of features of the encoder, D.
        heads: heads of the blocks' attention.
        depth: number of blocks.
        lora: LoRA for the layers that it names, of the frame backbone (``linear1``, ``linear2``) and of every block
            (``proj``, ``fc1``, ``fc2``).
        frozen: whether only adapted layers learn, and batch normalisation keeps its statistics.

    Example:

    >>> encoder = NeuroNetEncoder(window=3, step=9, dim=64, heads=4, depth=2)
    >>> tuple(encoder(keras.ops.ones((2, 3000))).shape)  # The cls token, and those of four frames.
    (2, 5, 64)
    """

    built: bool  # Keras sets it.

    def __init__(
        self,
        window: float = 4,
        step: float = 1,
        dim: int = 768,
        heads: int = 8,
        depth: int = 4,
        lora: dict[str, Any] | None = None,
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.window, self.step, self.dim, self.heads, self.depth = window, step, dim, heads, depth
        self.lora, self.frozen = as_lora(lora), frozen
        self.frames = len(frame_starts(window, step))
        own = {"dtype": self.dtype_policy}
        of_frames = {name: value for name, value in self.lora.items() if name.startswith("linear")}
        of_blocks = {name: value for name, value in self.lora.items() if name not in of_frames}
        self.backbone = FrameBackbone(window, of_frames, name="backbone", **own)
        self.embed = keras.layers.Dense(dim, name="embed", **own)
        self.blocks = [TransformerBlock(dim, heads, lora=of_blocks, name=f"block{n}", **own) for n in range(depth)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **own)
        self.build((None, 3000))

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        self.backbone.build((None, self.frames, round(self.window * 100)))
        self.embed.build((None, None, self.backbone.features))
        for block in self.blocks:
            block.build((None, None, self.dim))
        self.norm.build((None, None, self.dim))
        self.positions = add_positions(self, self.frames, cls_token=True)
        self.cls_token = self.add_weight(name="cls_token", shape=(1, 1, self.dim), initializer=TOKEN_INITIALIZER)
        self.built = True
        if self.frozen:
            freeze(self)

    def convolve(self, signals: Any, training: bool = False) -> Any:
        """The outputs of the backbone's convolutions for each frame of ``signals`` (B, 3000): (B, F, flat)."""
        frames = cut_frames(ops.cast(signals, self.compute_dtype), self.window, self.step)
        return self.backbone.convolve(frames, training=training and not self.frozen)

    def describe_frames(self, signals: Any, training: bool = False) -> Any:
        """The features (B, F, backbone's features) of each frame of ``signals`` (B, 3000).

        Instead of signals, the outputs of :meth:`convolve` may be given, which never change in a frozen encoder.
        """
        convolved = signals if len(signals.shape) == 3 else self.convolve(signals, training)
        return self.backbone.describe(convolved, training)

    def encode(
        self, features: Any, mask_ratio: float = 0.0, noise: Any = None, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """The cls token and the visible frames' tokens (B, 1 + kept, D), and all frames' mask and places (B, F)."""
        x = self.embed(features) + ops.cast(self.positions[:, 1:], self.compute_dtype)
        mask = places = None
        if noise is not None:
            x, mask, places = random_masking(x, mask_ratio, noise)
        first = ops.cast(self.cls_token + self.positions[:, :1], x.dtype)
        x = ops.concatenate([ops.broadcast_to(first, (ops.shape(x)[0], 1, self.dim)), x], axis=1)
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x), mask, places

    def call(self, signals: Any, training: bool = False) -> Any:
        """The tokens (B, 1 + F, D) of ``signals`` (B, 3000): the cls token, then one for each frame in order.

        Instead of signals, outputs of :meth:`convolve` may be given.
        """
        return self.encode(self.describe_frames(signals, training), training=training)[0]


@keras.saving.register_keras_serializable(package="synth")
class NeuroNetDescription(Configured, keras.Model):
    """The encoder for fine-tuning NeuroNet alone: an epoch's cls token goes through two new linear layers.

    Of the pretrained encoder, only the perceptron of the last block, the norm before it and the last norm learn; the
    rest is frozen.

    Args:
        modalities: the name of the only stream.
        backbone: the arguments of :class:`NeuroNetEncoder`.
        dim: D, the features of the two layers; between them are batch normalisation and ELU.

    Attributes:
        backbones, frames: as in :class:`synth.models.fusion.SynthSleepNetEncoder`.
    """

    def __init__(
        self, modalities: Sequence[str], backbone: dict[str, Any] | None = None, dim: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        (name,) = self.modalities = tuple(modalities)
        self.backbone, self.dim = {**(backbone or {})}, dim
        own = {"dtype": self.dtype_policy}
        encoder = NeuroNetEncoder(**self.backbone, frozen=True, name=f"backbone_{name}", **own)
        self.backbones, self.frames = {name: encoder}, encoder.frames
        self.projector = Projector((dim, dim), name="projector", **own)
        self.projector.build((None, encoder.dim))
        self.built = True
        last = encoder.blocks[-1]
        for layer in (last.norm2, last.fc1, last.fc2, encoder.norm):
            for variable in layer.weights:
                variable.trainable = True

    def call(self, signals: dict[str, Any], training: bool = False) -> Any:
        """The stream's ``signals`` (B, 3000), or outputs of its convolutions, to embeddings (B, D)."""
        (name,) = self.modalities
        return self.projector(self.backbones[name](signals[name], training=training)[:, 0], training=training)


@keras.saving.register_keras_serializable(package="synth")
class NeuroNet(Configured, keras.Model):
    """Pretraining of one modality: hidden frames are predicted from visible ones, and two masked views are matched.

    Args:
        window, step, dim, heads, depth: those of the encoder; see :class:`NeuroNetEncoder`.
        decoder_dim, decoder_heads, decoder_depth: those of the decoder; see :class:`MaskedDecoder`.
        projection: inner and outer features of the two layers before the contrast.
        temperature: the temperature of the contrast.

    Attributes:
        gather: function that joins the views of all devices, if several share a batch.
    """

    gather = staticmethod(lambda views: views)

    def __init__(
        self,
        window: float = 4,
        step: float = 1,
        dim: int = 768,
        heads: int = 8,
        depth: int = 4,
        decoder_dim: int = 256,
        decoder_heads: int = 8,
        decoder_depth: int = 3,
        projection: tuple[int, int] = (1024, 512),
        temperature: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.window, self.step, self.dim, self.heads, self.depth = window, step, dim, heads, depth
        self.decoder_dim, self.decoder_heads, self.decoder_depth = decoder_dim, decoder_heads, decoder_depth
        self.projection, self.temperature = tuple(projection), temperature
        own = {"dtype": self.dtype_policy}
        self.encoder = NeuroNetEncoder(window, step, dim, heads, depth, name="encoder", **own)
        sizes = (decoder_dim, decoder_heads, decoder_depth, self.encoder.backbone.features)
        self.decoder = MaskedDecoder(*sizes, name="decoder", **own)
        self.projector = Projector(self.projection, name="projector", **own)
        self.decoder.build((None, self.encoder.frames, dim))
        self.projector.build((None, dim))
        self.built = True

    def call(self, inputs: dict[str, Any], mask_ratio: float = 0.8, training: bool = False) -> dict[str, Any]:
        """The losses of a batch.

        Args:
            inputs: ``signals`` (B, 3000), and, to make the masks repeatable, ``noise`` (2, B, F) for the two masks.
            mask_ratio: share of the frames to hide.
            training: whether batch normalisation learns.

        Returns:
            ``reconstruction`` of both masked views, ``contrastive``, and the contrast's ``logits`` (2 B, 2 B - 1).
        """
        features = self.encoder.describe_frames(inputs["signals"], training)
        shape = (2, ops.shape(features)[0], self.encoder.frames)
        noise = inputs["noise"] if "noise" in inputs else keras.random.uniform(shape)
        errors, views = [], []
        for number in (0, 1):
            tokens, mask, places = self.encoder.encode(features, mask_ratio, noise[number], training)
            predicted = self.decoder(tokens[:, 1:], places, training=training)
            errors.append(masked_error(predicted, features, mask))
            view = self.projector(tokens[:, 0], training=training)
            views.append(self.gather(ops.cast(view, "float32")))
        contrast, logits = nt_xent(views[0], views[1], self.temperature)
        return {"reconstruction": errors[0] + errors[1], "contrastive": contrast, "logits": logits}


@keras.saving.register_keras_serializable(package="synth")
class MaskedDecoder(Configured):
    """Predicts all tokens' targets from the visible ones.

    Args:
        dim: features of its blocks.
        heads: heads of their attention.
        depth: number of blocks.
        outputs: features of a prediction.
    """

    def __init__(self, dim: int, heads: int, depth: int, outputs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim, self.heads, self.depth, self.outputs = dim, heads, depth, outputs
        own = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(dim, name="embed", **own)
        self.blocks = [TransformerBlock(dim, heads, name=f"block{n}", **own) for n in range(depth)]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **own)
        self.head = keras.layers.Dense(outputs, name="head", **own)

    def build(self, input_shape: Any) -> None:
        """``input_shape`` is (B, all tokens, features of the visible ones)."""
        self.embed.build((None, None, input_shape[-1]))
        for layer in (*self.blocks, self.norm, self.head):
            layer.build((None, None, self.dim))
        self.positions = add_positions(self, input_shape[1])
        self.mask_token = self.add_weight(name="mask_token", shape=(1, 1, self.dim), initializer=TOKEN_INITIALIZER)
        self.built = True

    def call(self, visible: Any, places: Any, training: bool = False) -> Any:
        """Visible tokens (B, kept, D) and the places of all (B, T) to predictions (B, T, outputs)."""
        x = restore(self.embed(visible), self.mask_token, places) + ops.cast(self.positions, self.compute_dtype)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.norm(x))


@keras.saving.register_keras_serializable(package="synth")
class Projector(Configured):
    """Linear, batch normalisation, ELU, linear: from an epoch's features to those in which views are compared.

    Args:
        features: those of the inner and of the outer layer.
    """

    def __init__(self, features: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = tuple(features)
        own = {"dtype": self.dtype_policy}
        self.linear1 = keras.layers.Dense(self.features[0], name="linear1", **own)
        self.bn = keras.layers.BatchNormalization(**BATCH_NORM, name="bn", **own)
        self.linear2 = keras.layers.Dense(self.features[1], name="linear2", **own)

    def build(self, input_shape: Any) -> None:
        self.linear1.build(input_shape)
        inner = (*input_shape[:-1], self.features[0])
        self.bn.build(inner)
        self.linear2.build(inner)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """(..., D) to (..., outer features)."""
        return self.linear2(ops.elu(self.bn(self.linear1(x), training=training)))


def masked_error(predicted: Any, target: Any, mask: Any) -> Any:
    """Mean squared error over only the hidden tokens, float32; ``mask`` (B, T) is 1 where a token is hidden."""
    error = ops.mean(ops.square(ops.cast(predicted, "float32") - ops.cast(target, "float32")), axis=-1)
    return ops.sum(error * mask) / ops.sum(mask)


def adopt(adapted: keras.Model, pretrained: keras.Model) -> None:
    """Give ``adapted`` the weights of ``pretrained``, the same model with less LoRA; additional LoRA stays as it is."""
    # Both list their weights layer by layer in one order; LoRA's matrices follow their layer's kernel and bias.
    values = list(pretrained.weights)
    for variable in adapted.weights:
        if values and (variable.name, variable.shape) == (values[0].name, values[0].shape):
            variable.assign(values.pop(0))
        elif variable.name not in ("lora_a", "lora_b"):
            raise ValueError(f"the pretrained model has no weights for {variable.path}.")
    if values:
        raise ValueError(f"{len(values)} weights of the pretrained model have no place, first {values[0].path}.")


def freeze(model: keras.Model) -> None:
    """Let only the LoRA matrices of adapted layers learn."""
    for variable in model.weights:
        variable.trainable = variable.name in ("lora_a", "lora_b")
