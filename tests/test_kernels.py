"""TensorFlow computes by oneDNN's kernels on every x86 processor, unless the user wants it otherwise."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's kernels are asked for on x86 alone"),
]

SETTING = "TF_ENABLE_ONEDNN_OPTS"
# Ends with what TensorFlow would find at the moment it is first imported.
AT_TENSORFLOW = f"""
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            print(os.environ.get("{SETTING}"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
"""
STARTS = (
    "import recsleep; recsleep.RecSleepNet",
    "import synth; synth.NeuroNet",
    "import runs.configured",
    "import data.streams.windows",
    "import benchmarks.staging",
    "import trainer, tensorflow",
)
IN_A_WORKER = f"import os; from runs.workers import Alone; print(Alone(os.getenv)('{SETTING}'))"
# TensorFlow has no public function that says it.
USED = "import data; from tensorflow.python.util._pywrap_util_port import IsMklEnabled; print(IsMklEnabled())"


def output(project, *command: str, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != SETTING}
    environment |= {"KERAS_BACKEND": "tensorflow", **settings}
    done = subprocess.run([sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("code", STARTS)
def test_it_is_set_when_tensorflow_is_imported_and_a_users_setting_wins(code, project):
    assert output(project, "-c", AT_TENSORFLOW + code) == "1"
    assert output(project, "-c", AT_TENSORFLOW + code, **{SETTING: "0"}) == "0"


def test_worker_processes_have_it(project):
    assert output(project, "-c", IN_A_WORKER) == "1"
    assert output(project, "-c", IN_A_WORKER, **{SETTING: "0"}) == "0"


@pytest.mark.parametrize(("setting", "used"), [({}, "True"), ({SETTING: "0"}, "False")], ids=["default", "off"])
def test_tensorflow_follows_it(setting, used, project):
    assert output(project, "-c", USED, **setting) == used


def test_the_models_equal_the_published_ones_without_them(reference, project):
    """All other tests show that they do with them."""
    golden = (
        "tests/reference/test_published.py::test_logits_and_state_are_the_reference_graphs[isruc_fold0]",
        "tests/synth/test_goldens.py::test_fine_tuned_model",
    )
    command = ("-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *golden)
    assert "2 passed" in output(project, *command, **{SETTING: "0", "SLEEP_REFERENCE": str(reference)})
