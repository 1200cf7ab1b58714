"""Reading the published PyTorch code's state dicts into our models, tensor by tensor, by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.terms import InputError
from synth.layers.frames import POOLING, FrameBackbone
from synth.layers.lora import LoraDense
from synth.layers.mamba import Mamba, Mamba2
from synth.layers.transformer import TransformerBlock
from synth.models.classifier import FineTuning, Head, SequenceClassifier
from synth.models.fusion import SynthSleepNet, SynthSleepNetEncoder
from synth.models.neuronet import NeuroNet, NeuroNetEncoder, Projector

WITHOUT_MEANING = ("num_batches_tracked", "projectors_bn.running_mean", "projectors_bn.running_var")
"""Ends of names that hold nothing a model computes with."""


@dataclass(frozen=True)
class Entry:
    """One tensor: its name there, our variable, and how the one becomes the other."""

    name: str
    variable: Any
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray
    optional: bool = False


Entries = Iterator[Entry]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth`` file, by name; nothing but tensors and plain values is unpickled.

    Raises:
        InputError: PyTorch is missing, or the file is, or it holds no such tensors.
    """
    try:
        import torch
    except ImportError:
        raise InputError(f"{path}: reading a .pth file needs PyTorch; pip install torch.") from None
    from argparse import Namespace

    try:
        with torch.serialization.safe_globals([Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    # PyTorch's unpickler meets a damaged file with almost any exception.
    except Exception as error:
        told = " ".join(str(error).split())[:160]
        raise InputError(f"{path} is damaged, or holds more than tensors and plain values ({told}).") from None
    candidates = [content, *content.values()] if isinstance(content, dict) else []
    dicts = [
        found
        for found in candidates
        if isinstance(found, dict) and found and all(isinstance(tensor, torch.Tensor) for tensor in found.values())
    ]
    if not dicts:
        raise InputError(f"{path} holds no state dict.")
    return {name: tensor.numpy() for name, tensor in max(dicts, key=len).items()}


def load_state_dict(model: Any, state: dict[str, np.ndarray], where: str = "the state dict") -> None:
    """Set ``model``'s weights from a published model's.

    A model adapted by LoRA takes the weights of one that is not; its own matrices then stay as they are.

    Args:
        model: a NeuroNet, SynthSleepNet, FineTuning, Mamba or Mamba2, or one of their parts.
        state: arrays by their names in PyTorch.
        where: names ``state`` in messages.

    Raises:
        InputError: tensors are missing, unexpected or misshapen; all are listed, and nothing was set.
    """
    entries, used, problems = list(entries_of(model)), set(), []
    values: list[tuple[Any, np.ndarray]] = []
    for entry in entries:
        name = entry.name
        if name not in state:
            # The name of a layer that was not adapted there.
            name = name.replace(".base_layer.", ".")
        if name not in state:
            if not entry.optional:
                problems.append(f"{entry.name} is missing")
            continue
        used.add(name)
        value = entry.convert(np.asarray(state[name]))
        if value.shape != tuple(entry.variable.shape):
            problems.append(f"{name} has shape {tuple(state[name].shape)}, which does not suit")
        values.append((entry.variable, value))
    unexpected = (name for name in state if name not in used and not name.endswith(WITHOUT_MEANING))
    problems += [f"{name} is unexpected" for name in unexpected if name != "cls_token"]
    if problems:
        raise InputError(f"{where} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    for variable, value in values:
        variable.assign(value)


def entries_of(model: Any, prefix: str = "") -> Entries:
    """All tensors of ``model``, with the names they have in the published code after ``prefix``."""
    kinds: dict[type, Callable[[Any, str], Entries]] = {
        Mamba: _mamba,
        Mamba2: _mamba2,
        FrameBackbone: _frame_backbone,
        NeuroNetEncoder: _neuronet_encoder,
        NeuroNet: _neuronet,
        SynthSleepNetEncoder: _fusion_encoder,
        SynthSleepNet: _synthsleepnet,
        SequenceClassifier: _classifier,
        FineTuning: _fine_tuning,
    }
    return kinds[type(model)](model, prefix)


def _transposed(array: np.ndarray) -> np.ndarray:
    return array.transpose()


def _dense(layer: Any, name: str) -> Entries:
    adapted = isinstance(layer, LoraDense)
    base = f"{name}.base_layer" if adapted else name
    yield Entry(f"{base}.weight", layer._kernel, _transposed)
    if layer.use_bias:
        yield Entry(f"{base}.bias", layer.bias)
    if adapted:
        yield Entry(f"{name}.lora_A.default.weight", layer.a, _transposed, optional=True)
        yield Entry(f"{name}.lora_B.default.weight", layer.b, _transposed, optional=True)


def _convolution(layer: Any, name: str) -> Entries:
    yield Entry(f"{name}.weight", layer.kernel, _transposed)


def _norm(layer: Any, name: str) -> Entries:
    yield Entry(f"{name}.weight", layer.gamma)
    yield Entry(f"{name}.bias", layer.beta)
    if hasattr(layer, "moving_mean"):
        yield Entry(f"{name}.running_mean", layer.moving_mean)
        yield Entry(f"{name}.running_var", layer.moving_variance)


def _state_space(layer: Any, prefix: str) -> Entries:
    yield Entry(f"{prefix}in_proj.weight", layer.in_kernel, _transposed)
    yield Entry(f"{prefix}conv1d.weight", layer.convolution_kernel, lambda array: array[:, 0].transpose())
    yield Entry(f"{prefix}conv1d.bias", layer.convolution_bias)
    yield Entry(f"{prefix}A_log", layer.a_log)
    yield Entry(f"{prefix}D", layer.skip)
    yield Entry(f"{prefix}out_proj.weight", layer.out_kernel, _transposed)


def _mamba(layer: Mamba, prefix: str) -> Entries:
    yield from _state_space(layer, prefix)
    yield Entry(f"{prefix}x_proj.weight", layer.x_kernel, _transposed)
    yield Entry(f"{prefix}dt_proj.weight", layer.step_kernel, _transposed)
    yield Entry(f"{prefix}dt_proj.bias", layer.step_bias)


def _mamba2(layer: Mamba2, prefix: str) -> Entries:
    yield from _state_space(layer, prefix)
    yield Entry(f"{prefix}dt_bias", layer.step_bias)
    yield Entry(f"{prefix}norm.weight", layer.norm_scale)


def _frame_backbone(layer: FrameBackbone, prefix: str) -> Entries:
    yield from _convolution(layer.stem, f"{prefix}model.conv1")
    yield from _norm(layer.stem, f"{prefix}model.bn1")
    for kernel, blocks in zip(POOLING, layer.branches, strict=True):
        for number, block in enumerate(blocks, 1):
            name = f"{prefix}model.layer{kernel}x{kernel}_{number}.0"
            for n, convolution in enumerate((block.conv1, block.conv2), 1):
                yield from _convolution(convolution, f"{name}.conv{n}")
                yield from _norm(convolution, f"{name}.bn{n}")
            yield from _dense(block.squeeze, f"{name}.se.fc.0")
            yield from _dense(block.excite, f"{name}.se.fc.2")
            if block.shortcut is not None:
                yield from _convolution(block.shortcut, f"{name}.downsample.0")
                yield from _norm(block.shortcut, f"{name}.downsample.1")
    yield from _dense(layer.linear1, f"{prefix}feature_layer.0")
    yield from _dense(layer.linear2, f"{prefix}feature_layer.2")


def _block(block: TransformerBlock, name: str) -> Entries:
    for part in ("norm1", "norm2"):
        yield from _norm(getattr(block, part), f"{name}.{part}")
    for part in ("qkv", "proj"):
        yield from _dense(getattr(block, part), f"{name}.attn.{part}")
    for part in ("fc1", "fc2"):
        yield from _dense(getattr(block, part), f"{name}.mlp.{part}")


def _neuronet_encoder(encoder: NeuroNetEncoder, prefix: str, own: str = "") -> Entries:
    """``own`` stands before the names of all but the frame backbone."""
    yield from _frame_backbone(encoder.backbone, f"{prefix}frame_backbone.")
    yield Entry(f"{prefix}{own}cls_token", encoder.cls_token)
    yield Entry(f"{prefix}{own}pos_embed", encoder.positions)
    yield from _dense(encoder.embed, f"{prefix}{own}patch_embed")
    for number, block in enumerate(encoder.blocks):
        yield from _block(block, f"{prefix}{own}encoder_block.{number}")
    yield from _norm(encoder.norm, f"{prefix}{own}encoder_norm")


def _neuronet(model: NeuroNet, prefix: str) -> Entries:
    own = f"{prefix}autoencoder."
    decoder = model.decoder
    yield from _neuronet_encoder(model.encoder, prefix, "autoencoder.")
    yield Entry(f"{own}mask_token", decoder.mask_token)
    yield Entry(f"{own}decoder_pos_embed", decoder.positions)
    yield from _dense(decoder.embed, f"{own}decoder_embed")
    for number, block in enumerate(decoder.blocks):
        yield from _block(block, f"{own}decoder_block.{number}")
    yield from _norm(decoder.norm, f"{own}decoder_norm")
    yield from _dense(decoder.head, f"{own}decoder_pred")
    yield from _projector(model.projector, f"{prefix}projectors")


def _projector(layer: Projector, name: str) -> Entries:
    yield from _dense(layer.linear1, f"{name}.0")
    yield from _norm(layer.bn, f"{name}.1")
    yield from _dense(layer.linear2, f"{name}.3")


def _fusion_encoder(
    encoder: SynthSleepNetEncoder, prefix: str, positions: str = "multimodal_encoder_pos_embed"
) -> Entries:
    for modality in encoder.modalities:
        name = f"{prefix}backbone_networks.{modality}.base_model.model."
        yield from _neuronet_encoder(encoder.backbones[modality], name)
        embedding = encoder.embeddings[modality]
        yield from _dense(embedding.linear1, f"{prefix}backbone_embedded.{modality}.0")
        yield from _norm(embedding.bn, f"{prefix}backbone_embedded.{modality}.2")
        yield from _dense(embedding.linear2, f"{prefix}backbone_embedded.{modality}.5")
        yield Entry(f"{prefix}modal_token_dict.{modality}", embedding.modality_token)
        yield Entry(f"{prefix}{positions}", embedding.positions)
    for number, block in enumerate(encoder.blocks):
        yield from _block(block, f"{prefix}multimodal_encoder_block.{number}")
    yield from _norm(encoder.norm, f"{prefix}multimodal_encoder_norm")


def _synthsleepnet(model: SynthSleepNet, prefix: str) -> Entries:
    decoder = model.decoder
    yield from _fusion_encoder(model.encoder, prefix)
    yield Entry(f"{prefix}mask_token", decoder.mask_token)
    yield Entry(f"{prefix}multimodal_decoder_pos_embed", decoder.positions)
    yield from _dense(decoder.embed, f"{prefix}decoder_embed")
    yield from _norm(decoder.norm, f"{prefix}multimodal_decoder_norm")
    for modality in model.encoder.modalities:
        for number, block in enumerate(decoder.blocks[modality]):
            yield from _block(block, f"{prefix}multimodal_decoder_block_dict.{modality}.{number}")
        yield from _dense(decoder.predictors[modality], f"{prefix}multimodal_decoder_pred_dict.{modality}")
        yield from _projector(model.projectors[modality], f"{prefix}backbone_projector_dict.{modality}")
    yield from _projector(model.fusion_projector, f"{prefix}fusion_projector")


def _head(head: Head, prefix: str) -> Entries:
    for linear, norm, number in zip(head.linears, head.norms, (0, 4), strict=True):
        yield from _dense(linear, f"{prefix}{number}")
        yield from _norm(norm, f"{prefix}{number + 1}")
    yield from _dense(head.logits, f"{prefix}8")


def _fine_tuning(model: FineTuning, prefix: str) -> Entries:
    yield from _fusion_encoder(model.encoder, f"{prefix}backbone.base_model.model.", "pos_embed")
    yield from _classifier(model.classifier, prefix)


def _classifier(classifier: SequenceClassifier, prefix: str) -> Entries:
    if isinstance(classifier.context, (Mamba, Mamba2)):
        yield from entries_of(classifier.context, f"{prefix}mamba.")
    yield from _norm(classifier.norm, f"{prefix}norm")
    yield from _head(classifier.head, f"{prefix}fc.")
