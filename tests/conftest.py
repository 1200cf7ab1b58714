"""What the tests share: night files written on the spot, and the reference material where it is at hand."""

import os
from pathlib import Path

# Before any backend starts: float64 layers need it on JAX.
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project() -> Path:
    """The repository."""
    return PROJECT


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference nights, checkpoints and goldens; see ``SLEEP_REFERENCE`` in the README."""
    folder = Path(os.environ.get("SLEEP_REFERENCE", PROJECT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference material: {folder} does not exist; set SLEEP_REFERENCE")
    return folder


@pytest.fixture(autouse=True)
def same_draws(request, monkeypatch):
    """A model's test draws the same weights and inputs whatever ran before it in this process."""
    if request.node.get_closest_marker("model"):
        import keras

        keras.utils.set_random_seed(0)
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0), raising=False)


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


@pytest.fixture
def rounding():
    """Keras in float64; the value is the error to allow for.

    Off TensorFlow some of Keras's operations (mean, tanh) still pass through float32.
    """
    import keras

    keras.config.set_floatx("float64")
    yield 1e-10 if keras.backend.backend() == "tensorflow" else 1e-6
    keras.config.set_floatx("float32")
