"""SynthSleepNet: a multimodal foundation model of polysomnography, and the layers it is made of.

>>> from synth import Mamba2, NeuroNet, SynthSleepNet
"""

from importlib import import_module
from typing import Any

_PLACES = {
    name: module
    for module, names in {
        "synth.layers.frames": ("FrameBackbone",),
        "synth.layers.lora": ("Lora", "LoraDense", "merge"),
        "synth.layers.mamba": ("Mamba", "Mamba2"),
        "synth.layers.transformer": ("TransformerBlock",),
        "synth.models.neuronet": ("NeuroNet", "NeuroNetEncoder"),
        "synth.models.fusion": ("SynthSleepNet", "SynthSleepNetEncoder"),
        "synth.models.classifier": ("FineTuning", "Head", "SequenceClassifier"),
        "synth.predictor": ("load_stager",),
        "synth.pytorch.state_dict": ("load_state_dict", "read_state_dict"),
    }.items()
    for name in names
}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    """Import on first use what needs a backend, so that ``--help`` does not start one."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
