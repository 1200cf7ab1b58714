"""SynthSleepNet: a multimodal foundation model of polysomnography, and the layers it is made of.

>>> from synth import Mamba2, NeuroNet, SynthSleepNet
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "layers.frames": ("FrameBackbone",),
    "layers.lora": ("Lora", "LoraDense", "merge"),
    "layers.mamba": ("Mamba", "Mamba2"),
    "layers.transformer": ("TransformerBlock",),
    "models.neuronet": ("NeuroNet", "NeuroNetEncoder"),
    "models.fusion": ("SynthSleepNet", "SynthSleepNetEncoder"),
    "models.classifier": ("FineTuning", "Head", "SequenceClassifier"),
    "predictor": ("load_stager",),
    "pytorch.state_dict": ("load_state_dict", "read_state_dict"),
}
__all__ = [name for names in _NAMES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Import on first use what needs a backend, so that ``--help`` does not start one."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"synth.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
