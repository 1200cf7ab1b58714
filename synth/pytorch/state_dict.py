"""Read the published PyTorch code's state dicts into our models, tensor by tensor, by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from data.terms import InputError
from synth.layers.frames import FrameBackbone, NormalisedConvolution, ResidualBlock
from synth.layers.lora import LoraDense
from synth.layers.mamba import Mamba, Mamba2
from synth.layers.transformer import TransformerBlock
from synth.models.classifier import FineTuning, Head, SequenceClassifier
from synth.models.fusion import SynthSleepNet, SynthSleepNetEncoder, TokenEmbedding
from synth.models.neuronet import MaskedDecoder, NeuroNet, NeuroNetEncoder, Projector

WITHOUT_MEANING = ("num_batches_tracked", "projectors_bn.running_mean", "projectors_bn.running_var")
"""Tensors whose names end with one of these are ignored, because no model computes with them."""


def _within(part: str, prefix: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{part}.{ours}": f"{prefix}.{theirs}" for ours, theirs in names.items()}


def _normalised(part: str, convolution: str, norm: str) -> dict[str, str]:
    """The names of a :class:`NormalisedConvolution`, which is two layers in the published code."""
    return {f"{part}.kernel": f"{convolution}.weight", part: norm}


_NORM = {"gamma": "weight", "beta": "bias"}
_STATISTICS = {"moving_mean": "running_mean", "moving_variance": "running_var"}
_LORA = {"a": "lora_A.default.weight", "b": "lora_B.default.weight"}
_CONVOLUTION = {"convolution_kernel": "conv1d.weight", "convolution_bias": "conv1d.bias"}
_STATE_SPACE = {"in_kernel": "in_proj.weight", "a_log": "A_log", "skip": "D", "out_kernel": "out_proj.weight"}
_STEPS = {"x_kernel": "x_proj.weight", "step_kernel": "dt_proj.weight", "step_bias": "dt_proj.bias"}
_BRANCHES = {
    f"branches.{branch}.{n}": f"model.layer{kernel}x{kernel}_{n + 1}.0"
    for branch, kernel in enumerate((3, 5, 7))
    for n in range(4)
}
_ATTENTION = {"norm1": "norm1", "qkv": "attn.qkv", "proj": "attn.proj"}
_PERCEPTRON = {"norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_PLACES = {"cls_token": "cls_token", "positions": "pos_embed"}
_ENCODER = {**_PLACES, "embed": "patch_embed", "blocks.*": "encoder_block.*", "norm": "encoder_norm"}
_DECODER = {"embed": "decoder_embed", "blocks.*": "decoder_block.*", "norm": "decoder_norm", "head": "decoder_pred"}
_FUSION = {
    "backbones.*": "backbone_networks.*.base_model.model",
    "embeddings.*": "backbone_embedded.*",
    "embeddings.*.modality_token": "modal_token_dict.*",
    "embeddings.*.positions": "multimodal_encoder_pos_embed",
    "blocks.*": "multimodal_encoder_block.*",
    "norm": "multimodal_encoder_norm",
}
NAMES: dict[type, dict[str, str]] = {
    keras.layers.Dense: {"_kernel": "weight", "bias": "bias"},
    LoraDense: {"_kernel": "base_layer.weight", "bias": "base_layer.bias", **_LORA},
    keras.layers.LayerNormalization: _NORM,
    keras.layers.BatchNormalization: {**_NORM, **_STATISTICS},
    NormalisedConvolution: {**_NORM, **_STATISTICS},
    Mamba: {**_STATE_SPACE, **_CONVOLUTION, **_STEPS},
    Mamba2: {**_STATE_SPACE, **_CONVOLUTION, "step_bias": "dt_bias", "norm_scale": "norm.weight"},
    ResidualBlock: {
        **_normalised("conv1", "conv1", "bn1"),
        **_normalised("conv2", "conv2", "bn2"),
        **_normalised("shortcut", "downsample.0", "downsample.1"),
        "squeeze": "se.fc.0",
        "excite": "se.fc.2",
    },
    FrameBackbone: {
        **_normalised("stem", "model.conv1", "model.bn1"),
        **_BRANCHES,
        "linear1": "feature_layer.0",
        "linear2": "feature_layer.2",
    },
    TransformerBlock: {**_ATTENTION, **_PERCEPTRON},
    Projector: {"linear1": "0", "bn": "1", "linear2": "3"},
    NeuroNetEncoder: {"backbone": "frame_backbone", **_ENCODER},
    MaskedDecoder: {"mask_token": "mask_token", "positions": "decoder_pos_embed", **_DECODER},
    NeuroNet: {
        "encoder.backbone": "frame_backbone",
        **_within("encoder", "autoencoder", _ENCODER),
        "decoder": "autoencoder",
        "projector": "projectors",
    },
    TokenEmbedding: {"linear1": "0", "bn": "2", "linear2": "5"},
    SynthSleepNetEncoder: _FUSION,
    SynthSleepNet: {
        "encoder": "",
        "decoder.mask_token": "mask_token",
        "decoder.positions": "multimodal_decoder_pos_embed",
        "decoder.embed": "decoder_embed",
        "decoder.norm": "multimodal_decoder_norm",
        "decoder.blocks.*.*": "multimodal_decoder_block_dict.*.*",
        "decoder.predictors.*": "multimodal_decoder_pred_dict.*",
        "projectors.*": "backbone_projector_dict.*",
        "fusion_projector": "fusion_projector",
    },
    Head: {"linears.0": "0", "norms.0": "1", "linears.1": "4", "norms.1": "5", "logits": "8"},
    SequenceClassifier: {"context": "mamba", "norm": "norm", "head": "fc"},
    FineTuning: {
        **_within("encoder", "backbone.base_model.model", _FUSION),
        "encoder.embeddings.*.positions": "backbone.base_model.model.pos_embed",
        "classifier": "",
    },
}
"""For each of our layers and models: the names of its parts in the published code. A * means any key or number."""


@dataclass(frozen=True)
class Entry:
    """One tensor: its name in the published code, our variable, and how to convert the tensor into it."""

    name: str
    variable: Any
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray
    optional: bool = False


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth`` file; only tensors and plain values are unpickled. InputError if it has no tensors."""
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading a .pth file needs PyTorch: install it with pip install torch.") from None
    from argparse import Namespace

    try:
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check its name.") from None
    # PyTorch's unpickler raises almost any exception on a damaged file.
    except Exception as error:
        told = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path} is damaged, or holds more than tensors and plain values ({told}): name another file."
        ) from None
    candidates = [content, *content.values()] if isinstance(content, dict) else []
    dicts = [
        found
        for found in candidates
        if isinstance(found, dict) and found and all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    ]
    if not dicts:
        raise InputError(f"{path} holds no state dict: name another file.")
    return {name: tensor.numpy() for name, tensor in max(dicts, key=len).items()}


def load_state_dict(model: Any, state: dict[str, np.ndarray], where: str = "the state dict") -> None:
    """Set ``model``'s weights from a published model's.

    A model adapted by LoRA takes the weights of one that is not; its own matrices then stay as they are.

    Args:
        model: a NeuroNet, SynthSleepNet, FineTuning, Mamba or Mamba2, or one of their parts.
        state: arrays by their names in PyTorch.
        where: the name of ``state`` in messages.

    Raises:
        InputError: tensors are missing or unexpected or have wrong shapes; all are listed, and nothing was set.
    """
    values: list[tuple[Any, np.ndarray]] = []
    used, problems = set(), []
    for entry in entries_of(model):
        name = entry.name
        if name not in state:
            # The layer may not be adapted by LoRA in the published model.
            name = name.replace(".base_layer.", ".")
        if name not in state:
            if not entry.optional:
                problems.append(f"{entry.name} is missing")
            continue
        used.add(name)
        value = entry.convert(np.asarray(state[name]))
        if value.shape != tuple(entry.variable.shape):
            problems.append(f"{name} has the wrong shape {tuple(state[name].shape)}")
        values.append((entry.variable, value))
    unexpected = (name for name in state if name not in used and not name.endswith(WITHOUT_MEANING))
    problems += [f"{name} is unexpected" for name in unexpected if name != "cls_token"]
    if problems:
        raise InputError(f"{where} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    for variable, value in values:
        variable.assign(value)


def entries_of(model: Any, prefix: str = "") -> Iterator[Entry]:
    """All tensors of a layer or model, with the names they have in the published code after ``prefix``."""
    # Of the temporal context modules, the published code has only Mamba.
    for path, name in NAMES.get(type(model), {}).items():
        for part, theirs in _parts(model, path.split("."), ".".join(filter(None, (prefix, name)))):
            if not isinstance(part, keras.Variable):
                yield from entries_of(part, theirs)
            elif part.name == "convolution_kernel":
                yield Entry(theirs, part, lambda array: array[:, 0].transpose())
            elif part.name.endswith(("kernel", "lora_a", "lora_b")):
                yield Entry(theirs, part, _transposed, optional=part.name.startswith("lora"))
            else:
                yield Entry(theirs, part)


def _parts(part: Any, path: list[str], name: str) -> Iterator[tuple[Any, str]]:
    """What is at ``path`` below ``part``, with its name; nothing if a layer has no such part."""
    if part is None:
        return
    if not path:
        yield part, name
    elif path[0] == "*":
        for key, each in part.items() if isinstance(part, dict) else enumerate(part):
            yield from _parts(each, path[1:], name.replace("*", str(key), 1))
    else:
        found = part[int(path[0])] if path[0].isdecimal() else getattr(part, path[0])
        yield from _parts(found, path[1:], name)


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose()
