"""The device of Keras's backend, and how that backend runs a forward pass and a training step on it.

JAX compiles both by XLA, TensorFlow both as graphs; PyTorch runs them operation by operation, as Keras does by default.
"""

import platform
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from runs.machine import processor

Call = Callable[[], Any]


class Backend:
    """What each backend does in its own way."""

    def gpu(self) -> str | None:
        """The name of the GPU, if there is one."""
        raise NotImplementedError

    def wait(self, result: Any) -> None:
        """Until ``result``, of a call, is there."""
        raise NotImplementedError

    def forward(self, network: keras.layers.Layer, function: Callable[[Any], Any], inputs: Any) -> Call:
        """A call of ``function``, which runs ``network``, on ``inputs``."""
        raise NotImplementedError

    def step(self, network: keras.layers.Layer, loss: Callable[[Any], Any], inputs: Any, optimizer: Any = None) -> Call:
        """A call that differentiates ``loss`` of ``inputs`` and, with an ``optimizer``, updates ``network``.

        It returns the loss, or, without an optimizer, the gradients.
        """
        raise NotImplementedError

    def operations(self, call: Call) -> dict[str, float]:
        """The seconds that each kind of operation takes in one call; empty where the backend fuses them."""
        return {}


class Jax(Backend):
    """Weights go into a compiled function and come out of it, as JAX wants them."""

    def gpu(self) -> str | None:
        import jax

        return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else None

    def wait(self, result: Any) -> None:
        import jax

        jax.block_until_ready(result)

    def forward(self, network: keras.layers.Layer, function: Callable[[Any], Any], inputs: Any) -> Call:
        import jax

        variables = network.variables

        @jax.jit
        def run(values: list[Any], inputs: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(inputs)

        values = [variable.value for variable in variables]
        return lambda: run(values, inputs)

    def step(self, network: keras.layers.Layer, loss: Callable[[Any], Any], inputs: Any, optimizer: Any = None) -> Call:
        import jax

        trained, others = network.trainable_variables, network.non_trainable_variables

        def value(learning: list[Any], other: list[Any], inputs: Any) -> Any:
            mapping = list(zip([*trained, *others], [*learning, *other], strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                found = loss(inputs)
            return found, [scope.get_current_value(variable) for variable in others]

        def run(state: Any, inputs: Any) -> Any:
            learning, other, moments = state
            (found, other), gradients = jax.value_and_grad(value, has_aux=True)(learning, other, inputs)
            if optimizer is None:
                return state, gradients
            learning, moments = optimizer.stateless_apply(moments, gradients, learning)
            return (learning, other, moments), found

        run = jax.jit(run, donate_argnums=0)
        parts = (trained, others, optimizer.variables if optimizer else [])
        # Copies, for the first call takes them away.
        state = [[keras.ops.copy(variable.value) for variable in part] for part in parts]

        def call() -> Any:
            nonlocal state
            state, result = run(state, inputs)
            return result

        return call


class Torch(Backend):
    """Every operation is started by itself."""

    def gpu(self) -> str | None:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None

    def wait(self, result: Any) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def forward(self, network: keras.layers.Layer, function: Callable[[Any], Any], inputs: Any) -> Call:
        import torch

        return torch.no_grad()(lambda: function(inputs))

    def step(self, network: keras.layers.Layer, loss: Callable[[Any], Any], inputs: Any, optimizer: Any = None) -> Call:
        import torch

        def call() -> Any:
            found = loss(inputs)
            gradients = torch.autograd.grad(found, [variable.value for variable in network.trainable_variables])
            if optimizer is None:
                return gradients
            with torch.no_grad():
                optimizer.apply(list(gradients), network.trainable_variables)
            return found

        return call

    def operations(self, call: Call) -> dict[str, float]:
        from torch import profiler

        # On a GPU, starting an operation takes the host's time, which does not matter.
        where = "device" if self.gpu() else "cpu"
        with profiler.profile() as profile:
            self.wait(call())
        return {event.key: getattr(event, f"self_{where}_time_total") / 1e6 for event in profile.key_averages()}


class TensorFlow(Backend):
    """As this toolkit trains."""

    def gpu(self) -> str | None:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else None

    def wait(self, result: Any) -> None:
        import tensorflow as tf

        tf.test.experimental.sync_devices()

    def forward(self, network: keras.layers.Layer, function: Callable[[Any], Any], inputs: Any) -> Call:
        import tensorflow as tf

        run = tf.function(function, autograph=False)
        return lambda: run(inputs)

    def step(self, network: keras.layers.Layer, loss: Callable[[Any], Any], inputs: Any, optimizer: Any = None) -> Call:
        import tensorflow as tf

        @tf.function(autograph=False)
        def differentiate(inputs: Any) -> Any:
            learning = [variable.value for variable in network.trainable_variables]
            # TensorFlow would watch what is frozen too.
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(learning)
                found = loss(inputs)
            return found, tape.gradient(found, learning)

        @tf.function(autograph=False)
        def update(gradients: Any) -> None:
            optimizer.apply(gradients, network.trainable_variables)

        def call() -> Any:
            found, gradients = differentiate(inputs)
            if optimizer is None:
                return gradients
            update(gradients)
            return found

        return call

    def operations(self, call: Call) -> dict[str, float]:
        import tensorflow as tf
        from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

        seconds: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            with tf.profiler.experimental.Profile(folder):
                self.wait(call())
            (trace,) = Path(folder).rglob("*.xplane.pb")
            planes = XSpace.FromString(trace.read_bytes()).planes
        # An operation is called such as "gradient_tape/linear/MatMul:_MklMatMul"; what runs it has no such path.
        for plane in planes:
            for event in (event for line in plane.lines for event in line.events):
                name = plane.event_metadata[event.metadata_id].name
                if found := re.fullmatch(r"[^: ]+:(?:_MklNative|_Mkl)?(\w+)", name):
                    seconds[found[1]] += event.duration_ps / 1e12
        return dict(seconds)


BACKEND: Backend = {"jax": Jax, "torch": Torch, "tensorflow": TensorFlow}[keras.backend.backend()]()


def machine() -> str:
    """One line that says where the figures come from."""
    backend = keras.backend.backend()
    version = import_module(backend).__version__
    libraries = f"Python {platform.python_version()}, {backend} {version}, Keras {keras.__version__}"
    return f"{BACKEND.gpu() or processor()}; {libraries}"


@cache
def matrix_multiply(dtype: str, size: int = 2048) -> Call:
    """A call of 2 · size³ floating-point operations."""
    layer = keras.layers.Dense(size, use_bias=False, dtype=dtype)
    layer.build((None, size))
    matrix = keras.ops.cast(np.random.default_rng(0).normal(size=(size, size)), dtype)
    return BACKEND.forward(layer, layer, matrix)


def float32_errors() -> tuple[float, float]:
    """The relative errors of float32 in a matrix product and in a convolution: below 1e-5, or, as TF32, near 3e-4."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype("float32") for shape in ((514, 512), (3, 512, 512)))
    exact = [x[k : k + 512].astype("float64") @ kernel[k] for k in range(3)]
    x = keras.ops.convert_to_tensor(x)
    products = (keras.ops.matmul(x[:512], kernel[0]), keras.ops.conv(x[None], keras.ops.convert_to_tensor(kernel))[0])
    product, convolution = (
        float(np.linalg.norm(keras.ops.convert_to_numpy(found) - right) / np.linalg.norm(right))
        for found, right in zip(products, (exact[0], sum(exact)), strict=True)
    )
    return product, convolution
