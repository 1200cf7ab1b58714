"""Libraries say nothing of their own start, neither to the user, unless the user wants it, nor to their makers."""

import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from recordings import write_edf

from recsleep.model import RecSleepNet
from runs.networks import save_model

pytestmark = pytest.mark.long

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
STAGE = "import recsleep; recsleep.stage('night.edf', 'models')"
STARTS = (STAGE, "import synth; synth.NeuroNet", "from runs.networks import load_model", "from synth.steps import plan")


def errors(code: str, folder, project, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != LEVEL}
    environment |= {"PYTHONPATH": str(project), **settings}
    code += "; import keras; keras.ops.ones(1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def folder(tmp_path):
    """A recording, and a model whose ONNX file must be made with TensorFlow first."""
    walk = np.random.default_rng(0).normal(0, 1, 9000).cumsum()
    write_edf(tmp_path / "night.edf", {"EEG C3-A2": (40 * np.sin(walk), 100, "uV")})
    metadata = {"db": "synthetic", "channel": "EEG C4-M1", "split": {"test": [0]}, "amplitude": 12.5}
    network = RecSleepNet(filters=4, first_kernel=12, lstm_units=4, block_kernel=3)
    save_model(tmp_path / "models", network, metadata)
    return tmp_path


@pytest.mark.xfail(
    not version("tensorflow").startswith("2.17."),
    reason="TensorFlow 2.21 logs lines of its start before it reads how much it may say",
    strict=True,
)
@pytest.mark.parametrize("code", STARTS)
def test_python_starts_tensorflow_in_silence(code, folder, project):
    told = errors(code, folder, project)
    assert told == ("models/model.onnx: is being made from the weights in models.\n" if code == STAGE else "")


def test_a_user_may_hear_it(folder, project):
    assert "oneDNN" in errors(STARTS[2], folder, project, **{LEVEL: "0"})


@pytest.mark.parametrize(("code", "told"), [("import staging.engine", False), ("import onnxruntime", True)])
def test_onnx_runtime_tells_nobody(code, told, tmp_path, project):
    """It would first give the user's account an identity, in a file; by itself it does."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(project)}
    subprocess.run([sys.executable, "-B", "-c", code], env=environment, check=True)
    assert any(path.name == "deviceid" for path in tmp_path.rglob("*")) == told
