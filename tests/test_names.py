"""The names that each package offers to other people's code."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = {
    "recsleep": {"RecSleepNet", "stage", "load_stager", "LiveStager", "ConvolutionalReconstructionBlock"},
    "synth": {"Mamba", "Mamba2", "NeuroNet", "SynthSleepNet", "SynthSleepNetEncoder", "FineTuning"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_are_there(package):
    module = importlib.import_module(package)
    assert PACKAGES[package] <= set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name).__name__ == name for name in module.__all__)
    with pytest.raises(AttributeError, match="attribute Mamba3"):
        module.Mamba3  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_alone_starts_no_backend(package, project):
    code = f"import sys, {package}; assert not {{'keras', 'tensorflow', 'numpy'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=project, timeout=60, check=False).returncode == 0


def test_models_and_layers_need_no_tensorflow(project):
    """Keras has its backend, whichever it is, before TensorFlow is made unimportable for the modules that follow."""
    modules = [
        *(f"synth.layers.{name}" for name in ("contrastive", "frames", "lora", "mamba", "transformer")),
        *("synth.models.neuronet", "synth.models.fusion", "synth.models.classifier", "synth.pytorch.architecture"),
        *("recsleep.layers", "recsleep.model"),
    ]
    code = (
        f"import importlib, sys, keras\nsys.modules['tensorflow'] = None\nlist(map(importlib.import_module, {modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
