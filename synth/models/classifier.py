"""Networks that learn from labels: a probe on stored embeddings, and fine-tuning with a temporal context module (TCM).

The modules other than Mamba are those of Lee et al., "NeuroNet", arXiv:2404.17585 (2024). In its published code they
run along the batch; here they run along time.

Shapes: B nights or stretches of them, L epochs of a stretch, D features of an embedding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from runs.configured import Configured
from synth.layers.frames import BATCH_NORM
from synth.layers.lora import Lora, as_lora
from synth.layers.mamba import Mamba, Mamba2
from synth.layers.transformer import EncoderLayer
from synth.models.fusion import BACKBONE_LORA, SynthSleepNetEncoder
from synth.models.neuronet import NeuroNetDescription
from synth.terms import DEFAULT_TCM, NEURONET_TCM, TCMS


@keras.saving.register_keras_serializable(package="synth")
class Head(Configured):
    """Linear layers of half the features, each with batch normalisation, ELU and dropout, then one for the classes.

    On stored embeddings, a head alone is the linear probe.

    Args:
        features: D, the features of the embeddings.
        classes: 5 for stages, 2 for events.
        dropout: the rate after each hidden layer.
        hidden: the number of hidden layers.
    """

    def __init__(self, features: int, classes: int, dropout: float = 0.5, hidden: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features, self.classes, self.dropout, self.hidden = features, classes, dropout, hidden
        self.supports_masking = True
        own = {"dtype": self.dtype_policy}
        inner, numbers = features // 2, range(1, hidden + 1)
        self.linears = [keras.layers.Dense(inner, name=f"linear{n}", **own) for n in numbers]
        self.norms = [keras.layers.BatchNormalization(**BATCH_NORM, name=f"bn{n}", **own) for n in numbers]
        self.dropouts = [keras.layers.Dropout(dropout, name=f"dropout{n}", **own) for n in numbers]
        self.logits = keras.layers.Dense(classes, name="logits", **own)

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "features", self.features)
        width, leading = self.features, (None,) * (len(input_shape) - 1)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            linear.build((*leading, width))
            width = linear.units
            norm.build((*leading, width))
        self.logits.build((*leading, width))
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        """Embeddings (..., D) to logits (..., classes)."""
        for linear, norm, dropout in zip(self.linears, self.norms, self.dropouts, strict=True):
            x = dropout(ops.elu(norm(linear(x), training=training)), training=training)
        return self.logits(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.classes)


LAYERS: dict[str, Callable[..., keras.layers.Layer]] = {
    "mamba2": Mamba2,
    "mamba": Mamba,
    "lstm": partial(keras.layers.LSTM, return_sequences=True),
    "encoder": partial(EncoderLayer, heads=8, hidden=2048, dropout=0.1),
    # The layer that version 1 called ``mha``, whose models can still be read.
    "mha": lambda features, **kwargs: SelfAttention(features, heads=8, **kwargs),
}
"""The layers of temporal context modules, each from (B, L, D) to (B, L, D), by their names in :data:`TCMS`."""


def layers_of(tcm: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a module's layers: ``tcm`` is one of :data:`TCMS`, or the layers' names in :data:`LAYERS`.

    Raises:
        ValueError: there is no such module or layer.
    """
    if isinstance(tcm, str) and tcm not in TCMS:
        raise ValueError(f"there is no temporal context module {tcm!r}: choose one of {', '.join(TCMS)}.")
    names = TCMS[tcm] if isinstance(tcm, str) else tuple(tcm)
    if unknown := [name for name in names if name not in LAYERS]:
        raise ValueError(f"there are no layers {unknown}: choose among {', '.join(LAYERS)}.")
    return names


@keras.saving.register_keras_serializable(package="synth")
class SelfAttention(Configured):
    """Attention of each epoch to all epochs of its stretch.

    Args:
        features: the number of features of an embedding, D.
        heads: the heads of the attention.
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
    """From a stretch of embeddings to logits: head(x + TCM(x)), where x are the embeddings, batch-normalised.

    Without a TCM, it is head(x).

    Args:
        features, classes, dropout: as in :class:`Head`.
        tcm: the module, as :func:`layers_of` takes it.
        plain: whether to compute only linear(TCM(embeddings)), as NeuroNet does.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        tcm: str | Sequence[str] = DEFAULT_TCM,
        dropout: float = 0.5,
        plain: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features, self.classes, self.tcm, self.dropout = features, classes, layers_of(tcm), dropout
        self.plain = plain
        self.supports_masking = True
        own = {"dtype": self.dtype_policy}
        self.norm = None if plain else keras.layers.BatchNormalization(**BATCH_NORM, name="norm", **own)
        self.context = self._module(own)
        self.head = Head(features, classes, dropout, hidden=0 if plain else 2, name="head", **own)

    def _module(self, own: dict[str, Any]) -> keras.layers.Layer | None:
        if not self.tcm:
            return None
        # A single layer is the module itself, because the weights of earlier versions have these names.
        if len(self.tcm) == 1:
            return LAYERS[self.tcm[0]](self.features, name="context", **own)
        parts = (LAYERS[name](self.features, name=f"{name}{n}", **own) for n, name in enumerate(self.tcm))
        module = keras.Sequential(list(parts), name="context")
        # It passes the mask to its layers, but without this it would warn that it loses the mask.
        module.supports_masking = True
        return module

    @property
    def context_layers(self) -> list[keras.layers.Layer]:
        """The layers of the TCM, one after another, as ``tcm`` names them."""
        if self.context is None:
            return []
        return self.context.layers if isinstance(self.context, keras.Sequential) else [self.context]

    def build(self, input_shape: Any) -> None:
        self.require_last_axis(input_shape, "features", self.features)
        shape = (None, None, self.features)
        for layer in (self.norm, self.context, self.head):
            if layer is not None:
                layer.build(shape)
        self.built = True

    def call(self, embeddings: Any, mask: Any = None, training: bool = False) -> Any:
        """Embeddings (B, L, D) to logits (B, L, classes); ``mask`` (B, L) is true for epochs that count."""
        x = embeddings if self.norm is None else self.norm(embeddings, training=training)
        if self.context is not None:
            seen = self.context(x, mask=mask, training=training)
            x = seen if self.plain else x + seen
        return self.head(x, training=training)


class FineTuned(keras.Model):
    """A pretrained ``encoder`` and a ``classifier`` of stretches of epochs, built from ``settings``."""

    encoder: SynthSleepNetEncoder | NeuroNetDescription
    classifier: SequenceClassifier
    settings: dict[str, Any]

    def embed(self, signals: dict[str, Any], training: bool = False) -> Any:
        """``signals`` of each stream (B, L, 3000) to embeddings (B, L, D); all epochs are one batch.

        Instead of signals, the outputs of the frozen convolutions (B, L, F, flat) may be given.
        """
        first = signals[self.encoder.modalities[0]]
        batch, length = ops.shape(first)[0], ops.shape(first)[1]
        flat = {name: ops.reshape(signals[name], (-1, *signals[name].shape[2:])) for name in self.encoder.modalities}
        return ops.reshape(self.encoder(flat, training=training), (batch, length, self.encoder.dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """The logits (B, L, classes) from each stream's ``signals`` (B, L, 3000), or what :meth:`embed` also takes.

        ``mask`` (B, L), if it is among the inputs, is true for epochs that count.
        """
        embeddings = self.embed(inputs["signals"], training)
        return self.classifier(embeddings, mask=inputs.get("mask"), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="synth")
class FineTuning(FineTuned):
    """A pretrained fusion encoder, frozen except for LoRA, and a classifier of stretches of epochs.

    As in the published code, the LoRA from the pretraining of the fusion continues to learn, without its dropout,
    besides the LoRA added here.

    Args:
        encoder: the arguments of :class:`SynthSleepNetEncoder`; ``lora`` and ``frozen`` are set here.
        classes, tcm, dropout: those of the classifier; see :class:`SequenceClassifier`.
        rank: rank r of the LoRA in the frame backbones' linear layers and the last fusion block's perceptron; 0 for
            none.
        alpha: alpha of that LoRA.
    """

    def __init__(
        self,
        encoder: dict[str, Any],
        classes: int = 5,
        tcm: str | Sequence[str] = DEFAULT_TCM,
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
        self.settings = {"encoder": encoder, "classes": classes, "tcm": layers_of(tcm), "dropout": dropout}
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

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FineTuning":
        """The network described by ``config``, which :meth:`get_config` returned in this version or an earlier one."""
        # In version 1, a module had one layer and its name.
        tcm = config["tcm"]
        return super().from_config({**config, "tcm": (tcm,) if isinstance(tcm, str) else tcm})


@keras.saving.register_keras_serializable(package="synth")
class NeuroNetFineTuning(FineTuned):
    """A pretrained NeuroNet, partly frozen, and a classifier of stretches of epochs.

    Lee et al., "NeuroNet", arXiv:2404.17585 (2024).

    Args:
        encoder: the arguments of :class:`NeuroNetDescription`.
        classes, tcm: those of the classifier; see :class:`SequenceClassifier`.
    """

    def __init__(
        self, encoder: dict[str, Any], classes: int = 5, tcm: str | Sequence[str] = NEURONET_TCM, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        own = {"dtype": self.dtype_policy}
        self.settings = {"encoder": encoder, "classes": classes, "tcm": layers_of(tcm)}
        self.encoder = NeuroNetDescription(**encoder, name="encoder", **own)
        self.classifier = SequenceClassifier(self.encoder.dim, classes, tcm, plain=True, name="classifier", **own)
        self.classifier.build((None, None, self.encoder.dim))
        self.built = True
