"""Checkpoints of the published PyTorch code become models of ours, built as their tensors tell."""

import importlib.util

import numpy as np
import pytest

from data.terms import InputError
from runs.networks import load_model
from runs.saved import read_metadata
from synth.models.neuronet import NeuroNet
from synth.pytorch.__main__ import main
from synth.pytorch.architecture import model_like, step_of
from synth.pytorch.state_dict import load_state_dict

BUILT = {
    "neuronet": {"window": 3, "step": 1.5, "dim": 64, "decoder_dim": 48, "decoder_depth": 2, "projection": (96, 40)},
    "synthsleepnet": {
        "dim": 48,
        "depth": 2,
        "modalities": ("EEG_C4", "EOG_Left", "ECG"),
        "decoder_dim": 32,
        "heads": 4,
    },
    "ft_full": {"classes": 5, "tcm": ("mamba2",), "rank": 4},
}


@pytest.fixture
def state(reference):
    def read(name):
        with np.load(reference / "goldens" / f"{name}.npz") as file:
            return {key[2:]: file[key] for key in file.files if key.startswith("w/")}

    return read


@pytest.mark.parametrize("name", BUILT)
def test_a_model_is_built_as_its_tensors_tell(state, name):
    tensors = state(name)
    model = model_like(tensors, heads=4)
    load_state_dict(model, tensors)
    config = model.get_config()
    assert {key: config[key] for key in BUILT[name]} == BUILT[name]


@pytest.mark.parametrize(("window", "step", "frames"), [(4, 1, 27), (3, 1, 28), (5, 1, 26), (4, 3, 9), (3, 0.75, 37)])
def test_the_step_is_found_from_the_number_of_frames(window, step, frames):
    assert step_of(window, frames) == step


def test_what_suits_no_model_is_told(state):
    tensors = state("neuronet")
    with pytest.raises(InputError, match="no whole NeuroNet"):
        model_like({"weight": np.zeros(3)})
    with pytest.raises(InputError, match="--heads 5: 64 features"):
        model_like(tensors, heads=5)
    with pytest.raises(InputError, match="--step 2: this does not give the model's 19 frames"):
        model_like(tensors, heads=4, step=2)
    del tensors["autoencoder.patch_embed.weight"]
    with pytest.raises(InputError, match=r"lacks autoencoder\.patch_embed\.weight"):
        model_like(tensors, heads=4)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch, which reads its checkpoints, is absent")
def test_the_command_writes_a_model_folder(state, tmp_path, capsys):
    import torch

    tensors = state("neuronet")
    file, folder = tmp_path / "best_model.pth", tmp_path / "model"
    torch.save({"model_state": {name: torch.tensor(array) for name, array in tensors.items()}, "epoch": 3}, file)
    assert main([str(file), str(folder), "--heads", "4"]) == 0
    assert "NeuroNet with" in capsys.readouterr().out
    model = load_model(folder, [NeuroNet])
    expected = tensors["frame_backbone.feature_layer.0.weight"].T
    np.testing.assert_allclose(model.encoder.backbone.linear1.kernel, expected, rtol=1e-6)
    assert read_metadata(folder)["source"]["file"] == "best_model.pth"
    assert main([str(file), str(folder)]) == 2
    assert "already holds a model" in capsys.readouterr().err


def test_wrong_arguments_of_the_command(tmp_path, capsys):
    assert main([str(tmp_path / "absent.pth"), str(tmp_path / "model"), "--heads", "0"]) == 2
    assert "--heads 0" in capsys.readouterr().err
    assert main([str(tmp_path / "absent.pth"), str(tmp_path / "model")]) == 2
    assert "absent.pth" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
