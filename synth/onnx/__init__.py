"""SynthSleepNet's and NeuroNet's fine-tuned models and pretrained encoders as ONNX files; ``python -m synth.onnx``.

A fine-tuned model becomes one graph (opset 18, float32). It takes a stretch of any number of consecutive epochs of one
night, at once or in parts. Its inputs are

- ``signals_eeg`` and so on, for each stream (epochs, 3000): consecutive epochs, prepared as the recipe says;
- ``before`` (epochs before, features): the embeddings of the earlier epochs of the stretch; empty at its beginning.

Its outputs are

- ``probabilities`` (epochs before + epochs, classes): those of all epochs of the stretch so far;
- ``embeddings`` (epochs before + epochs, features): those of the same epochs, as ``before`` for the next part.

Its metadata are JSON texts: ``format`` (the number of this description), ``db`` (the database that the model was
trained on), ``task``, ``classes`` (their names), ``recipe`` (channel, unit, sampling rate, band and scaling of each
stream), ``stretch_epochs`` (how many epochs the model was trained to see at once), and ``models`` (the SHA-256 of its
files, the weights first).

An encoder becomes a graph with the same inputs except ``before``, and with the only output ``embeddings`` (epochs,
features). Its metadata are ``format``, ``recipe`` and ``models``, and ``name``, its name in tables of embeddings.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.terms import InputError
from staging.graph import Graph

if TYPE_CHECKING:
    from synth.models.classifier import FineTuned
    from synth.models.fusion import SynthSleepNetEncoder
    from synth.models.neuronet import NeuroNetEncoder


def to_onnx(network: "FineTuned", about: Mapping[str, Any] | None = None) -> bytes:
    """The content of an ONNX file of a fine-tuned network, with LoRA merged into its weights.

    Args:
        network: the network, which is written with the weights that it has now.
        about: the metadata, JSON values by name.

    Raises:
        InputError: the network is too large for such a file.
    """
    from synth.onnx.context import logits
    from synth.onnx.encoder import embeddings

    graph, encoder = Graph("SynthSleepNet"), network.encoder
    signals = {name: f"signals_{name}" for name in encoder.modalities}
    graph.add("Concat", "before", embeddings(graph, encoder, signals), outputs=["embeddings"], axis=0)
    graph.add("Softmax", logits(graph, network.classifier, "embeddings"), outputs=["probabilities"], axis=-1)
    taken = dict.fromkeys(signals.values(), ("epochs", 3000))
    found = {"probabilities": ("epochs so far", network.classifier.head.classes)}
    return graph.file(
        {**taken, "before": ("epochs before", encoder.dim)},
        {**found, "embeddings": ("epochs so far", encoder.dim)},
        about or {},
    )


def encoder_to_onnx(
    encoder: "SynthSleepNetEncoder | NeuroNetEncoder", streams: Sequence[str], about: Mapping[str, Any] | None = None
) -> bytes:
    """The content of an ONNX file of a pretrained encoder.

    Args:
        encoder: an encoder of one or more streams.
        streams: their names.
        about: the metadata, JSON values by name.

    Raises:
        InputError: the encoder is too large for such a file, or has other streams.
    """
    from synth.models.neuronet import NeuroNetEncoder
    from synth.onnx.encoder import description, embeddings

    graph, signals = Graph("encoder"), {name: f"signals_{name}" for name in streams}
    alone = isinstance(encoder, NeuroNetEncoder)
    if len(signals) > 1 if alone else signals.keys() != set(encoder.modalities):
        raise InputError(f"the encoder does not take {', '.join(streams)}, as its recipe says: pretrain it again.")
    if alone:
        (only,) = signals.values()
        found = description(graph, encoder, only)
    else:
        found = embeddings(graph, encoder, signals)
    graph.add("Identity", found, outputs=["embeddings"])
    return graph.file(
        dict.fromkeys(signals.values(), ("epochs", 3000)), {"embeddings": ("epochs", encoder.dim)}, about or {}
    )
