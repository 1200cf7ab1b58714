"""What the tests share: night files written on the spot, and the reference material where it is at hand."""

import importlib
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

# Before any backend starts: float64 layers need it on JAX.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# The commands must show each line at once by themselves, as they do where this variable is not set.
os.environ.pop("PYTHONUNBUFFERED", None)

import numpy as np
import pytest

import data  # noqa: F401 - before TensorFlow

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    # The seed of pytest-randomly decides the order alone; what is drawn is the same in every run, see same_draws.
    config.option.randomly_reset_seed = False


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository."""
    return PROJECT


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference nights, checkpoints and goldens; see ``SLEEP_REFERENCE`` in CONTRIBUTING.md."""
    folder = Path(os.environ.get("SLEEP_REFERENCE", PROJECT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference material: {folder} does not exist; set SLEEP_REFERENCE")
    return folder


@pytest.fixture(scope="module", autouse=True)
def same_draws_of_a_module():
    """What a module shares is drawn the same whatever ran before it in this process. Keras draws from ``random``."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the libraries under test draw from it


@pytest.fixture(autouse=True)
def same_draws(request, monkeypatch):
    """A test draws the same weights and inputs whatever ran before it in this process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the libraries under test draw from it
    if request.node.get_closest_marker("model"):
        import keras

        keras.utils.set_random_seed(0)
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0), raising=False)


@pytest.fixture
def narrow(monkeypatch):
    """Frame backbones of a quarter of their widths: the goldens of the published model test them in full."""
    from synth.layers import frames

    monkeypatch.setattr(frames, "WIDTHS", tuple(width // 4 for width in frames.WIDTHS))


@pytest.fixture(scope="module")
def small_backbone():
    """Frame backbones of one short branch, for whatever is built around them."""
    from small_backbone import small_backbones

    with small_backbones():
        yield


@pytest.fixture
def make_night():
    """Write a small night file whose stages can be told apart: stage k is a sine of 1 + 3k Hz in noise."""

    def write(path: Path, epochs: int = 30, seed: int = 0, **changes) -> Path:
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 5, epochs)
        time = np.arange(3000) / 100
        x = 20 * np.sin(2 * np.pi * (1 + 3 * y[:, None]) * time) + rng.normal(0, 5, (epochs, 3000))
        content = {"x": x.astype("float32"), "y": y, "fs": 100.0} | changes
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{key: value for key, value in content.items() if value is not None})
        return path

    return write


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _running(*commands: list[str], **options):
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        for command in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def dask_workers(count: int, folder: Path, python_path: Path | str):
    """The address of a Dask scheduler with ``count`` worker processes, started in ``folder``."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    scheduler = ["distributed.cli.dask_scheduler", "--no-dashboard", "--port", address.rpartition(":")[2]]
    worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
    commands = [[sys.executable, "-m", *command] for command in (scheduler, *[worker] * count)]
    with _running(*commands, cwd=folder, env=os.environ | {"PYTHONPATH": str(python_path)}):
        from distributed import Client

        with Client(address, timeout="60s") as client:
            client.wait_for_workers(count, timeout=60)
        yield address


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory):
    """The address of a Dask scheduler with two worker processes, started in a folder of their own."""
    with dask_workers(2, tmp_path_factory.mktemp("workers"), PROJECT) as address:
        yield address


@pytest.fixture
def cluster_without_the_project(tmp_path):
    """The address of a Dask scheduler with a worker that cannot import any of the project."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['runs'] = sys.modules['data'] = None\n")
    with dask_workers(1, tmp_path, tmp_path) as address:
        yield address


@pytest.fixture
def small_cluster(tmp_path_factory, monkeypatch):
    """The address of a Dask scheduler with one worker, of one thread, which gives up work that killed two workers."""
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    with dask_workers(1, tmp_path_factory.mktemp("workers"), PROJECT) as address:
        yield address


@pytest.fixture
def fatal(tmp_path, monkeypatch):
    """The address of a cluster of two workers, and a function whose module kills the first of them that imports it."""
    (tmp_path / "fatal.py").write_text(
        "import os, signal\nfrom pathlib import Path\n\n\ndef double(value):\n    return 2 * value\n\n\n"
        "if 'FATAL' in os.environ:\n    try:\n        Path(__file__).with_name('killed').touch(exist_ok=False)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n    except FileExistsError:\n        pass\n"
    )
    monkeypatch.setenv("FATAL", "1")
    with dask_workers(2, tmp_path, f"{PROJECT}{os.pathsep}{tmp_path}") as address:
        monkeypatch.delenv("FATAL")
        monkeypatch.syspath_prepend(tmp_path)
        yield address, importlib.import_module("fatal").double
    sys.modules.pop("fatal")


@pytest.fixture(scope="session")
def s3_server():
    """A real S3 server; the environment variables that AWS's libraries know point to it."""
    import boto3

    address = f"http://127.0.0.1:{_free_port()}"
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = [sys.executable, "-m", "moto.server", "--port", address.rpartition(":")[2]]
    with _running(server), pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                    break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="nights")
        yield address


@pytest.fixture
def rounding():
    """Keras in float64; the value is the error to allow for.

    Off TensorFlow some of Keras's operations (mean, tanh) still pass through float32.
    """
    import keras

    keras.config.set_floatx("float64")
    yield 1e-10 if keras.backend.backend() == "tensorflow" else 1e-6
    keras.config.set_floatx("float32")
    # Keras makes its policy of the precision once, when it is first asked for.
    keras.config.set_dtype_policy("float32")
