"""RecSleepNet: sleep stages from one EEG channel.

A network of a convolution, a Convolutional Reconstruction Block (CRB), a Global Max and Average Pooling Block (GMAPB)
and an LSTM, for five AASM stages. Its published TensorFlow-1 checkpoints are read as well.

>>> import recsleep
>>> hypnogram = recsleep.stage(raw, "pretrained_model/sleepedfx")     # raw: of MNE, or the name of a file
>>> raw.set_annotations(hypnogram.to_annotations())
"""

from typing import Any

_PLACES = {"stage": "recsleep.predictor", "load_stager": "recsleep.predictor", "LiveStager": "recsleep.live"}


def __getattr__(name: str) -> Any:
    """Import on first use what needs a backend, so that ``--help`` does not start one."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
