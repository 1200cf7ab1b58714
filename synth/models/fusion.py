"""SynthSleepNet: fuses the tokens of several modalities, and learns, like NeuroNet, by masked prediction and contrast.

Lee et al., "Toward Foundational Model for Sleep Analysis Using a Multimodal Hybrid Self-Supervised Learning Framework",
arXiv:2502.17481 (2025).

In this module, a modality means a stream: if several channels of one modality are fused, each is a stream, such as
``eeg`` and ``eeg2``.

Shapes: B epochs of 3000 samples, M modalities, F frames of an epoch, D features of the fusion.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from runs.configured import Configured
from synth.layers.contrastive import nt_xent
from synth.layers.lora import Lora, as_lora
from synth.layers.transformer import TOKEN_INITIALIZER, TransformerBlock, add_positions, random_masking, restore
from synth.models.neuronet import NeuroNetEncoder, Projector, freeze, masked_error

BACKBONE_LORA = {"proj": Lora(rank=4, alpha=16, dropout=0.05)}
"""The layers of a pretrained encoder that learn in the pretraining of the fusion: every block's attention output."""


@keras.saving.register_keras_serializable(package="synth")
class SynthSleepNetEncoder(Configured, keras.Model):
    """From the signals of one or more modalities in an epoch to one embedding.

    Every modality has a frozen NeuroNet encoder, adapted by LoRA, and its own layers that give its tokens D features;
    the transformer blocks see the tokens of all modalities.

    Args:
        modalities: their names; one or more.
        backbone: the arguments of :class:`NeuroNetEncoder`, the same for all modalities.
        dim: the number of features of the fusion, D.
        heads: heads of the blocks' attention.
        depth: number of blocks.
        lora: LoRA for the layers of the last block that it names (``proj``, ``fc1``, ``fc2``).
        frozen: whether only adapted layers learn, and batch normalisation keeps its statistics.
        cls_normalised: whether, in training, the statistics of the batch normalisation include the cls token, which is
            dropped after it, as in the published code.

    Example:

    >>> small = {"window": 3, "step": 9, "dim": 64, "heads": 4, "depth": 1}
    >>> encoder = SynthSleepNetEncoder(["EEG", "EMG"], small, dim=32, heads=4, depth=1)
    >>> tuple(encoder({"EEG": keras.ops.ones((2, 3000)), "EMG": keras.ops.ones((2, 3000))}).shape)
    (2, 32)
    """

    def __init__(
        self,
        modalities: Sequence[str],
        backbone: dict[str, Any] | None = None,
        dim: int = 512,
        heads: int = 8,
        depth: int = 4,
        lora: dict[str, Any] | None = None,
        frozen: bool = False,
        cls_normalised: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not modalities or len(set(modalities)) < len(modalities):
            raise ValueError(f"modalities = {list(modalities)}: give one or more, each once.")
        self.modalities = tuple(modalities)
        self.dim, self.heads, self.depth, self.frozen = dim, heads, depth, frozen
        self.cls_normalised = cls_normalised
        self.backbone: dict[str, Any] = {"lora": BACKBONE_LORA, "frozen": True, **(backbone or {})}
        self.backbone["lora"] = as_lora(self.backbone["lora"])
        self.lora = as_lora(lora)
        own = {"dtype": self.dtype_policy}
        self.backbones = {name: NeuroNetEncoder(**self.backbone, name=f"backbone_{name}", **own) for name in modalities}
        self.frames = self.backbones[self.modalities[0]].frames
        self.embeddings = {name: TokenEmbedding(dim, name=f"embedding_{name}", **own) for name in modalities}
        self.blocks = [
            TransformerBlock(dim, heads, lora=self.lora if n == depth - 1 else None, name=f"block{n}", **own)
            for n in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **own)
        for name in self.modalities:
            self.embeddings[name].build((None, self.frames, self.backbones[name].dim))
        for layer in (*self.blocks, self.norm):
            layer.build((None, None, dim))
        self.built = True
        if frozen:
            freeze(self)

    def describe(self, signals: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Each modality's tokens (B, 1 + F, features of its encoder), with its cls token first.

        Instead of signals (B, 3000), outputs of the convolutions may be given; see
        :meth:`NeuroNetEncoder.describe_frames`.
        """
        return {name: self.backbones[name](signals[name], training=training) for name in self.modalities}

    def fuse(
        self,
        tokens: dict[str, Any],
        mask_ratio: float = 0.0,
        noise: dict[str, Any] | None = None,
        training: bool = False,
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """The fused tokens (B, M · kept, D), modality by modality, and each modality's mask and places (B, F)."""
        visible, masks, places = [], {}, {}
        for name in self.modalities:
            own = tokens[name] if self.cls_normalised and training else tokens[name][:, 1:]
            x = self.embeddings[name](own, training=training and not self.frozen)
            if noise is not None:
                x, masks[name], places[name] = random_masking(x, mask_ratio, noise[name])
            visible.append(x)
        x = ops.concatenate(visible, axis=1)
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x), masks, places

    def call(self, signals: dict[str, Any], training: bool = False) -> Any:
        """``signals`` of each modality (B, 3000) to embeddings (B, D): the mean of all fused tokens."""
        return ops.mean(self.fuse(self.describe(signals, training), training=training)[0], axis=1)


@keras.saving.register_keras_serializable(package="synth")
class TokenEmbedding(Projector):
    """From one modality's tokens to the fusion's features, to which a modality token and positions are added.

    Args:
        dim: D, the features of the fusion.
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__((dim, dim), **kwargs)
        self.dim = dim

    def build(self, input_shape: Any) -> None:
        """``input_shape`` is (B, F, features of a token)."""
        super().build(input_shape)
        shape = (1, input_shape[1], self.dim)
        self.modality_token = self.add_weight(name="modality_token", shape=shape, initializer=TOKEN_INITIALIZER)
        self.positions = add_positions(self, input_shape[1], trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        """(B, F, features) to (B, F, D); a cls token in front of the input is dropped."""
        x = super().call(x, training)[:, -self.positions.shape[1] :]
        return x + ops.cast(self.modality_token + self.positions, x.dtype)


@keras.saving.register_keras_serializable(package="synth")
class FusionDecoder(Configured):
    """Predicts a modality's tokens from its visible fused tokens; each modality has its own blocks and last layer.

    Args:
        modalities: their names.
        dim, heads, depth, outputs: as in :class:`synth.models.neuronet.MaskedDecoder`, for each modality.
    """

    def __init__(
        self, modalities: Sequence[str], dim: int, heads: int, depth: int, outputs: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.modalities = tuple(modalities)
        self.dim, self.heads, self.depth, self.outputs = dim, heads, depth, outputs
        own = {"dtype": self.dtype_policy}
        self.embed = keras.layers.Dense(dim, name="embed", **own)
        self.blocks = {
            name: [TransformerBlock(dim, heads, name=f"{name}_block{n}", **own) for n in range(depth)]
            for name in self.modalities
        }
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **own)
        self.predictors = {n: keras.layers.Dense(outputs, name=f"{n}_predictor", **own) for n in self.modalities}

    def build(self, input_shape: Any) -> None:
        """``input_shape`` is (B, F, D)."""
        self.embed.build((None, None, input_shape[-1]))
        of_modalities = [layer for blocks in self.blocks.values() for layer in blocks]
        for layer in (*of_modalities, self.norm, *self.predictors.values()):
            layer.build((None, None, self.dim))
        self.positions = add_positions(self, input_shape[1], trainable=False)
        self.mask_token = self.add_weight(name="mask_token", shape=(1, 1, self.dim), initializer=TOKEN_INITIALIZER)
        self.built = True

    def call(self, visible: Any, places: Any, modality: str, training: bool = False) -> Any:
        """A modality's visible tokens (B, kept, D) and all its places (B, F) to predictions (B, F, outputs)."""
        x = restore(self.embed(visible), self.mask_token, places) + ops.cast(self.positions, self.compute_dtype)
        for block in self.blocks[modality]:
            x = block(x, training=training)
        return self.predictors[modality](self.norm(x))


@keras.saving.register_keras_serializable(package="synth")
class SynthSleepNet(Configured, keras.Model):
    """Pretraining of the fusion: each modality's hidden tokens are predicted from its visible fused tokens, and the
    fused epoch is matched with the epoch of each modality.

    Args:
        modalities, backbone, dim, heads, depth, cls_normalised: as in :class:`SynthSleepNetEncoder`.
        decoder_dim, decoder_heads, decoder_depth: those of the decoder; see :class:`FusionDecoder`.
        projection: inner and outer features of the two layers before the contrast.
        temperature: the temperature of the contrast.

    Attributes:
        gather: function that joins the views of all devices, if several share a batch.
    """

    gather = staticmethod(lambda views: views)

    def __init__(
        self,
        modalities: Sequence[str],
        backbone: dict[str, Any] | None = None,
        dim: int = 512,
        heads: int = 8,
        depth: int = 4,
        decoder_dim: int = 256,
        decoder_heads: int = 8,
        decoder_depth: int = 3,
        projection: tuple[int, int] = (512, 256),
        temperature: float = 0.1,
        cls_normalised: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim, self.heads, self.depth = dim, heads, depth
        self.decoder_dim, self.decoder_heads, self.decoder_depth = decoder_dim, decoder_heads, decoder_depth
        self.projection, self.temperature = tuple(projection), temperature
        own = {"dtype": self.dtype_policy}
        sizes: dict[str, Any] = {"dim": dim, "heads": heads, "depth": depth, "cls_normalised": cls_normalised}
        self.encoder = SynthSleepNetEncoder(modalities, backbone, **sizes, name="encoder", **own)
        self.modalities, self.backbone = self.encoder.modalities, self.encoder.backbone
        self.cls_normalised = cls_normalised
        tokens = self.encoder.backbones[self.encoder.modalities[0]].dim
        of_decoder = (decoder_dim, decoder_heads, decoder_depth, tokens)
        self.decoder = FusionDecoder(modalities, *of_decoder, name="decoder", **own)
        self.projectors = {n: Projector(self.projection, name=f"projector_{n}", **own) for n in self.modalities}
        self.fusion_projector = Projector(self.projection, name="fusion_projector", **own)
        self.decoder.build((None, self.encoder.frames, dim))
        for projector in self.projectors.values():
            projector.build((None, tokens))
        self.fusion_projector.build((None, dim))
        self.built = True

    def call(self, inputs: dict[str, Any], mask_ratio: float = 0.4, training: bool = False) -> dict[str, Any]:
        """The losses of a batch.

        Args:
            inputs: ``signals`` of each modality (B, 3000), and, to make the masks repeatable, ``noise`` of each (B, F).
            mask_ratio: share of each modality's frames to hide.
            training: whether batch normalisation learns and LoRA's dropout is on.

        Returns:
            ``reconstruction`` and ``contrastive``.
        """
        encoder = self.encoder
        tokens = encoder.describe(inputs["signals"], training)
        shape = (ops.shape(tokens[encoder.modalities[0]])[0], encoder.frames)
        given = inputs.get("noise")
        noise = {name: keras.random.uniform(shape) for name in encoder.modalities} if given is None else given
        fused, masks, places = encoder.fuse(tokens, mask_ratio, noise, training)
        kept = fused.shape[1] // len(encoder.modalities)
        errors, contrasts = [], []
        view = self.gather(ops.cast(self.fusion_projector(ops.mean(fused, axis=1), training=training), "float32"))
        for number, name in enumerate(encoder.modalities):
            own = fused[:, number * kept : (number + 1) * kept]
            predicted = self.decoder(own, places[name], modality=name, training=training)
            errors.append(masked_error(predicted, tokens[name][:, 1:], masks[name]))
            other = self.projectors[name](ops.mean(tokens[name], axis=1), training=training)
            contrasts.append(nt_xent(view, self.gather(ops.cast(other, "float32")), self.temperature)[0])
        count = len(encoder.modalities)
        return {"reconstruction": sum(errors) / count, "contrastive": sum(contrasts) / count}
