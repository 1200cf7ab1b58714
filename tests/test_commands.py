"""What holds for every command, a new one too: its help is quick, and the manual prints it."""

import re
import subprocess
import sys

import pytest
from toolkit import COMMANDS

HEAVY = {"jax", "keras", "matplotlib", "mne", "numpy", "onnxruntime", "pandas", "pooch", "requests", "scipy", "sklearn"}
HEAVY |= {"tensorflow", "torch", "yasa"}

HELP = f"""
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:
    print(*{HEAVY} & set(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("module", COMMANDS)
def test_help_imports_nothing_heavy(project, module):
    ran = subprocess.run([sys.executable, "-c", HELP, module], cwd=project, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("usage: ")
    # Python imports the packages recsleep.onnx and synth.onnx, which need NumPy, before their commands.
    assert set(ran.stderr.split()) <= ({"numpy"} if ".onnx." in module else set())


def test_the_manual_prints_the_help_of_every_command(project):
    page = (project / "docs/reference/commands.md").read_text()
    called = {f"-m {name.removesuffix('.__main__')}" if "." in name else f"{name}.py" for name in COMMANDS}
    assert set(re.findall(r"^python (.+) --help$", page, re.MULTILINE)) == called
