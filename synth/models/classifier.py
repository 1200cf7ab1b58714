"""What is trained on labels: a probe on stored embeddings, and fine-tuning with a temporal context module (TCM).

Shapes: B nights or stretches of them, L epochs of a stretch, D features of an embedding.
"""

from typing import Any

import keras
from keras import ops

from runs.configured import Configured
from synth.layers.frames import BATCH_NORM
from synth.layers.lora import Lora, as_lora
from synth.layers.mamba import Mamba, Mamba2
from synth.models.fusion import BACKBONE_LORA, SynthSleepNetEncoder
from synth.terms import TCMS


@keras.saving.register_keras_serializable(package="synth")
class Head(Configured):
    """Two linear layers of half the features, each with batch normalisation, ELU and dropout, then one for the classes.

    Used alone on stored embeddings, this is the linear probe.

    Args:
        features: D, of the embeddings.
        classes: 5 for stages, 2 for events.
        dropout: after each of the two.
    """

    def __init__(self, features: int, classes: int, dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features, self.classes, self.dropout = features, classes, dropout
        own = {"dtype": self.dtype_policy}
        inner = features // 2
        self.linears = [keras.layers.Dense(inner, name=f"linear{n}", **own) for n in (1, 2)]
        self.norms = [keras.layers.BatchNormalization(**BATCH_NORM, name=f"bn{n}", **own) for n in (1, 2)]
        self.dropouts = [keras.layers.Dropout(dropout, name=f"dropout{n}", **own) for n in (1, 2)]
        self.logits = keras.layers.Dense(classes, name="logits", **own)

    def build(self, input_shape: Any) -> None:
        inner, leading = self.features // 2, (None,) * (len(input_shape) - 1)
        for linear, norm, width in zip(self.linears, self.norms, (self.features, inner), strict=True):
            linear.build((*leading, width))
            norm.build((*leading, inner))
        self.logits.build((*leading, inner))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """Embeddings (..., D) to logits (..., classes)."""
        for linear, norm, dropout in zip(self.linears, self.norms, self.dropouts, strict=True):
            x = dropout(ops.elu(norm(linear(x), training=training)), training=training)
        return self.logits(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.classes)


def temporal_context_module(kind: str, features: int, **kwargs: Any) -> keras.layers.Layer:
    """The layer of that ``kind``, one of :data:`TCMS`, from (B, L, D) to (B, L, D).

    Raises:
        ValueError: there is no such kind.
    """
    if kind == "mamba2":
        return Mamba2(features, **kwargs)
    if kind == "mamba":
        return Mamba(features, **kwargs)
    if kind == "lstm":
        return keras.layers.LSTM(features, return_sequences=True, **kwargs)
    if kind == "mha":
        return SelfAttention(features, heads=8, **kwargs)
    raise ValueError(f"there is no temporal context module {kind!r}: choose one of {', '.join(TCMS)}.")


@keras.saving.register_keras_serializable(package="synth")
class SelfAttention(Configured):
    """Attention of each epoch to all of its stretch.

    Args:
        features: D.
        heads: of the attention.
    """

    def __init__(self, features: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features, self.heads = features, heads
        self.supports_masking = True
        own = {"dtype": self.dtype_policy}
        self.attention = keras.layers.MultiHeadAttention(heads, features // heads, name="attention", **own)

    def build(self, input_shape: Any) -> None:
        self.attention.build(input_shape, input_shape)
        self.built = True

    def call(self, x: Any, mask: Any = None, training: bool = False) -> Any:
        """(B, L, D) to (B, L, D); ``mask`` (B, L) is true where an epoch counts."""
        seen = None if mask is None else mask[:, None, :]
        return self.attention(x, x, attention_mask=seen, training=training)


@keras.saving.register_keras_serializable(package="synth")
class SequenceClassifier(Configured):
    """From a stretch of embeddings to logits: head(x + TCM(x)), x being the embeddings normalised over the batch.

    Args:
        features, classes, dropout: of the head; see :class:`Head`.
        tcm: one of :data:`TCMS`.
    """

    def __init__(self, features: int, classes: int, tcm: str = TCMS[0], dropout: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features, self.classes, self.tcm, self.dropout = features, classes, tcm, dropout
        self.supports_masking = True
        own = {"dtype": self.dtype_policy}
        self.norm = keras.layers.BatchNormalization(**BATCH_NORM, name="norm", **own)
        self.context = temporal_context_module(tcm, features, name="context", **own)
        self.head = Head(features, classes, dropout, name="head", **own)

    def build(self, input_shape: Any) -> None:
        shape = (None, None, self.features)
        for layer in (self.norm, self.context, self.head):
            layer.build(shape)
        self.built = True

    def call(self, embeddings: Any, mask: Any = None, training: bool = False) -> Any:
        """Embeddings (B, L, D) to logits (B, L, classes); ``mask`` (B, L) is true where an epoch counts."""
        x = self.norm(embeddings, training=training)
        return self.head(x + self.context(x, mask=mask), training=training)


@keras.saving.register_keras_serializable(package="synth")
class FineTuning(keras.Model):
    """A pretrained fusion encoder, frozen but for LoRA, and a classifier of stretches of epochs.

    As in the published code, the LoRA that the fusion was trained with goes on learning beside the one added here, but
    without its dropout.

    Args:
        encoder: what :class:`SynthSleepNetEncoder` is built with; ``lora`` and ``frozen`` are set here.
        classes, tcm, dropout: of the classifier; see :class:`SequenceClassifier`.
        rank: r, of LoRA in the frame backbones' linear layers and the last fusion block's perceptron; 0 for none.
        alpha: of that LoRA.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        classes: int = 5,
        tcm: str = TCMS[0],
        dropout: float = 0.5,
        rank: int = 4,
        alpha: float = 8.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        own = {"dtype": self.dtype_policy}
        backbone = {"lora": BACKBONE_LORA, **(encoder.get("backbone") or {})}
        backbone["lora"] = as_lora(backbone["lora"])
        encoder = {**encoder, "backbone": backbone}
        self.settings = {"encoder": encoder, "classes": classes, "tcm": tcm, "dropout": dropout}
        self.settings |= {"rank": rank, "alpha": alpha}
        added = Lora(rank, alpha, dropout=0.05)
        of_frames = dict.fromkeys(("linear1", "linear2") if rank else (), added)
        of_fusion = dict.fromkeys(("fc1", "fc2") if rank else (), added)
        of_pretraining = {name: Lora(**{**lora, "dropout": 0.0}) for name, lora in backbone["lora"].items()}
        adapted = {**backbone, "lora": {**of_pretraining, **of_frames}}
        arguments = {**encoder, "backbone": adapted, "lora": of_fusion, "frozen": True}
        self.encoder = SynthSleepNetEncoder(**arguments, name="encoder", **own)
        self.classifier = SequenceClassifier(self.encoder.dim, classes, tcm, dropout, name="classifier", **own)
        self.classifier.build((None, None, self.encoder.dim))
        self.built = True

    def embed(self, signals: dict[str, Any], training: bool = False) -> Any:
        """``signals`` of each modality (B, L, 3000) to embeddings (B, L, D); all epochs are one batch.

        In their place may come what the frozen convolutions made of them (B, L, F, flat).
        """
        first = signals[self.encoder.modalities[0]]
        batch, length = ops.shape(first)[0], ops.shape(first)[1]
        flat = {name: ops.reshape(signals[name], (-1, *signals[name].shape[2:])) for name in self.encoder.modalities}
        return ops.reshape(self.encoder(flat, training=training), (batch, length, self.encoder.dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Logits (B, L, classes) of ``signals`` of each modality (B, L, 3000), or as :meth:`embed` says.

        ``mask`` (B, L), if it is among the inputs, is true where an epoch counts.
        """
        embeddings = self.embed(inputs["signals"], training)
        return self.classifier(embeddings, mask=inputs.get("mask"), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
