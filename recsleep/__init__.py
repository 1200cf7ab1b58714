"""RecSleepNet: sleep stages from one EEG channel.

A network of a convolution, a Convolutional Reconstruction Block (CRB), a Global Max and Average Pooling Block (GMAPB)
and an LSTM, for five AASM stages. Its published TensorFlow-1 checkpoints are read as well.

>>> import recsleep
>>> hypnogram = recsleep.stage(raw, "pretrained_model/sleepedfx")     # raw: of MNE, or the name of a file
>>> raw.set_annotations(hypnogram.to_annotations())
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "layers": ("ConvolutionalReconstructionBlock", "GlobalMaxAveragePooling", "PeepholeLSTM", "PeepholeLSTMCell"),
    "model": ("EpochEncoder", "RecSleepNet"),
    "ensemble": ("Ensemble",),
    "predictor": ("load_stager", "stage"),
    "live": ("LiveStager",),
}
__all__ = [name for names in _NAMES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Import on first use what needs a backend, so that ``--help`` does not start one."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"recsleep.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
