"""RecSleepNet: sleep stages from one EEG channel.

The network consists of a convolution, a Convolutional Reconstruction Block (CRB), a Global Max and Average Pooling
Block (GMAPB) and an LSTM, and tells the five AASM stages. Its published TensorFlow 1 checkpoints can be read too.

>>> import mne, recsleep
>>> raw = mne.io.read_raw("night.edf", verbose="error")
>>> hypnogram = recsleep.stage(raw, "pretrained_model/sleepedfx")
>>> raw = raw.set_annotations(hypnogram.to_annotations())
"""

import lazy_loader

import data  # noqa: F401 - before TensorFlow

# What needs a Keras backend is imported when it is first used, so that ``--help`` does not load one.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "layers": ("ConvolutionalReconstructionBlock", "GlobalMaxAveragePooling", "PeepholeLSTM", "PeepholeLSTMCell"),
        "model": ("EpochEncoder", "RecSleepNet"),
        "predictor": ("load_stager", "stage"),
        "live": ("LiveStager",),
    },
)
