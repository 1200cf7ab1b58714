"""RecSleepNet: sleep stages from one EEG channel.

A network of a convolution, a Convolutional Reconstruction Block (CRB), a Global Max and Average Pooling Block (GMAPB)
and an LSTM, for five AASM stages. Its published TensorFlow-1 checkpoints are read as well.

>>> import recsleep
>>> hypnogram = recsleep.stage(raw, "pretrained_model/sleepedfx")     # raw: of MNE, or the name of a file
>>> raw.set_annotations(hypnogram.to_annotations())
"""

from importlib import import_module
from typing import Any

_PLACES = {
    name: module
    for module, names in {
        "recsleep.layers": (
            "ConvolutionalReconstructionBlock",
            "GlobalMaxAveragePooling",
            "PeepholeLSTM",
            "PeepholeLSTMCell",
        ),
        "recsleep.model": ("EpochEncoder", "RecSleepNet"),
        "recsleep.ensemble": ("Ensemble",),
        "recsleep.predictor": ("load_stager", "stage"),
        "recsleep.live": ("LiveStager",),
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
