"""The names that each package offers to other people's code, and the manual lists."""

import importlib
import re
import subprocess
import sys

import pytest

PACKAGES = {
    "recsleep": {"RecSleepNet", "stage", "load_stager", "LiveStager", "ConvolutionalReconstructionBlock"},
    "synth": {"Mamba", "Mamba2", "NeuroNet", "SynthSleepNet", "SynthSleepNetEncoder", "FineTuning"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_are_there(package, project):
    module = importlib.import_module(package)
    assert PACKAGES[package] <= set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name).__name__ == name for name in module.__all__)
    on_the_page = re.findall(r"^\.\. auto.*\.(\w+)$", (project / "docs/reference/api.rst").read_text(), re.MULTILINE)
    assert set(module.__all__) <= set(on_the_page)
    with pytest.raises(AttributeError, match="attribute Mamba3"):
        module.Mamba3  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_alone_starts_no_backend(package, project):
    code = f"import sys, {package}; assert not {{'keras', 'tensorflow', 'numpy'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=project, timeout=60, check=False).returncode == 0
