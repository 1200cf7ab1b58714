"""Find out from the names and shapes in a published PyTorch model's state dict how the model is built."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from data.terms import EPOCH_SECONDS, InputError
from synth.layers.frames import frame_starts
from synth.layers.lora import Lora
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNet
from synth.models.neuronet import NeuroNet

WINDOWS = {1024: 3, 3328: 4, 5888: 5}
"""Seconds of a frame, by the number of features that the frame backbone gives it."""

State = Mapping[str, np.ndarray]


def model_like(state: State, heads: int = 8, step: float | None = None) -> keras.Model:
    """An untrained model of ours that the tensors of ``state`` fit.

    Args:
        state: arrays by their names in PyTorch, of a whole NeuroNet, SynthSleepNet or fine-tuned model.
        heads: number of attention heads, which no shape tells.
        step: seconds from one frame to the next; by default, the roundest number that gives the number of frames.

    Raises:
        InputError: ``state`` belongs to none of the three, or ``heads`` or ``step`` do not fit it.
    """
    if "autoencoder.mask_token" in state:
        encoder = _backbone(state, "", "autoencoder.", heads, step)
        return NeuroNet(**encoder, **_decoder(state, "autoencoder.decoder_block.", "autoencoder.", "projectors", heads))
    if "multimodal_decoder_pos_embed" in state:
        fusion = _fusion(state, "", heads, step)
        blocks = f"multimodal_decoder_block_dict.{fusion['modalities'][0]}."
        return SynthSleepNet(**fusion, **_decoder(state, blocks, "", "fusion_projector", heads))
    if "fc.8.weight" in state:
        prefix = "backbone.base_model.model."
        fusion = _fusion(state, prefix, heads, step)
        linear = f"{prefix}backbone_networks.{fusion['modalities'][0]}.base_model.model.frame_backbone.feature_layer.0"
        return FineTuning(
            fusion,
            classes=len(state["fc.8.weight"]),
            tcm="mamba2" if "mamba.dt_bias" in state else "mamba",
            rank=_rank(state, linear),
        )
    raise InputError(
        "the file holds no whole NeuroNet, SynthSleepNet or fine-tuned model of the published code: name another file."
    )


def _backbone(state: State, prefix: str, own: str, heads: int, step: float | None) -> dict[str, Any]:
    """The arguments of a NeuroNet encoder; ``own`` is before the names of all its parts except the frame backbone."""
    features = _rows(state, f"{prefix}frame_backbone.feature_layer.0")
    if features not in WINDOWS:
        raise InputError(
            f"the model has frames of {features} features, but only {', '.join(map(str, WINDOWS))} are known: it "
            "cannot be read."
        )
    window, frames = WINDOWS[features], _shape(state, f"{prefix}{own}pos_embed")[1] - 1
    chosen = step_of(window, frames) if step is None else step
    if len(frame_starts(window, chosen)) != frames:
        raise InputError(
            f"--step {chosen}: this does not give the model's {frames} frames of {window} s in an epoch: leave it out."
        )
    dim = _features(state, f"{prefix}{own}patch_embed", heads)
    depth = len(_parts(state, f"{prefix}{own}encoder_block."))
    return {"window": window, "step": chosen, "dim": dim, "heads": heads, "depth": depth}


def step_of(window: int, frames: int) -> float:
    """The roundest number of seconds from one frame to the next that gives ``frames`` frames."""
    longest = (EPOCH_SECONDS - window) / max(frames - 1, 1)
    steps = (int(longest / grid + 1e-9) * grid for grid in (1, 0.5, 0.25, 0.1, 0.05, 0.01))
    return next((step for step in steps if step and len(frame_starts(window, step)) == frames), longest)


def _fusion(state: State, prefix: str, heads: int, step: float | None) -> dict[str, Any]:
    """The arguments of a fusion encoder."""
    modalities = _parts(state, f"{prefix}backbone_networks.")
    if not modalities:
        raise InputError("the file holds a fusion without any modality: name another file.")
    first = f"{prefix}backbone_networks.{modalities[0]}.base_model.model."
    backbone = _backbone(state, first, "", heads, step)
    if rank := _rank(state, f"{first}encoder_block.0.attn.proj"):
        backbone["lora"] = {"proj": Lora(rank=rank, alpha=16, dropout=0.05)}
    dim = _features(state, f"{prefix}backbone_embedded.{modalities[0]}.0", heads)
    depth = len(_parts(state, f"{prefix}multimodal_encoder_block."))
    return {"modalities": modalities, "backbone": backbone, "dim": dim, "heads": heads, "depth": depth}


def _decoder(state: State, blocks: str, own: str, projector: str, heads: int) -> dict[str, Any]:
    dim, depth = _features(state, f"{own}decoder_embed", heads), len(_parts(state, blocks))
    projection = (_rows(state, f"{projector}.0"), _rows(state, f"{projector}.3"))
    return {"decoder_dim": dim, "decoder_heads": heads, "decoder_depth": depth, "projection": projection}


def _shape(state: State, name: str) -> tuple[int, ...]:
    if name not in state:
        raise InputError(f"the file lacks {name}, which tells how the model is built: name another file.")
    return state[name].shape


def _rows(state: State, layer: str) -> int:
    """The number of features that a linear layer gives, whether LoRA adapts it or not."""
    adapted = f"{layer}.base_layer.weight"
    return _shape(state, adapted if adapted in state else f"{layer}.weight")[0]


def _rank(state: State, layer: str) -> int:
    """The rank of the LoRA that adapts a linear layer; 0 without one."""
    name = f"{layer}.lora_A.default.weight"
    return state[name].shape[0] if name in state else 0


def _features(state: State, layer: str, heads: int) -> int:
    """The number of features that a linear layer gives, which must be a multiple of ``heads``."""
    features = _rows(state, layer)
    if features % heads:
        raise InputError(
            f"--heads {heads}: {features} features cannot be divided among {heads} heads: give another number."
        )
    return features


def _parts(state: State, prefix: str) -> list[str]:
    """What follows ``prefix`` in the names, up to the next dot: numbers of blocks, or modalities."""
    return list(dict.fromkeys(name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)))
