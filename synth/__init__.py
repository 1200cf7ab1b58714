"""SynthSleepNet: a multimodal foundation model of polysomnography, and the layers that it consists of.

>>> from synth import Mamba2, NeuroNet, SynthSleepNet
"""

import lazy_loader

import data  # noqa: F401 - before TensorFlow

# What needs a Keras backend is imported when it is first used, so that ``--help`` does not load one.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "layers.frames": ("FrameBackbone",),
        "layers.lora": ("Lora", "LoraDense", "merge"),
        "layers.mamba": ("Mamba", "Mamba2"),
        "layers.transformer": ("EncoderLayer", "TransformerBlock"),
        "models.neuronet": ("NeuroNet", "NeuroNetEncoder"),
        "models.fusion": ("SynthSleepNet", "SynthSleepNetEncoder"),
        "models.classifier": ("FineTuning", "Head", "SequenceClassifier"),
        "predictor": ("load_stager",),
        "recordings": ("embed_recording", "load_embedder"),
        "pytorch.state_dict": ("load_state_dict", "read_state_dict"),
    },
)
