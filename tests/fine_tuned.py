"""Folders of models, as training leaves them but for their random weights."""

import numpy as np

from runs.networks import save_model
from synth.models.classifier import FineTuning

CHANNELS = {"eeg": "EEG C4-M1", "emg": "EMG", "airflow": "Airflow"}
BACKBONE = {"window": 3.0, "step": 9.0, "dim": 16, "heads": 2, "depth": 1}


def randomise(network):
    """Make none of the weights as it begins, so that outputs differ between epochs; the same on every backend."""
    rng = np.random.default_rng(1)
    for weight in network.weights:
        if weight.name in ("gamma", "moving_variance", "norm_scale", "skip"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias", "lora_b", "modality_token", "cls_token"):
            weight.assign(rng.normal(0, 0.3, weight.shape))
        elif weight.name.endswith("kernel"):
            weight.assign(rng.normal(0, 1 / np.sqrt(np.prod(weight.shape[:-1])), weight.shape))
    return network


def write_model(folder, modalities, task, fraction=1, macro_f1=0.5, db="synthetic", channels=CHANNELS, stretch=6):
    """A fine-tuned model of random weights, with the metadata that training leaves."""
    encoder = {"modalities": modalities, "backbone": BACKBONE, "dim": 16, "heads": 2, "depth": 1}
    network = FineTuning(encoder, 5 if task == "sleep_stage" else 2, "lstm")
    about = {
        "db": db,
        "task": task,
        "channels": {name: channels[name] for name in modalities},
        "label_fraction": fraction,
        "tcm": "lstm",
        "split": {"test": [0]},
        "best": {"macro_f1": macro_f1},
        "config": {"training": {"stretch_epochs": stretch, "fine_tuning_batch": 2}},
    }
    path = folder / "fine_tuning" / f"{task}_{fraction:g}" / "-".join(modalities) / "lstm"
    save_model(path, network, about)
    return path
