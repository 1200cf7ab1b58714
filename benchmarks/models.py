"""What do the models cost on this device? ``KERAS_BACKEND=jax python -m benchmarks.models [PART ...]``.

The published sizes on any backend, on its GPU if it has one, in the backend's own float32 and in mixed bfloat16:
forward passes, training steps by AdamW, and the Mamba layers beside the same layers whose state space is a loop over
the steps, on PyTorch also with each step compiled. Every time is a median of five runs, with runs of a matrix
product in the same precision between them: the last column is how much of its rate the products and convolutions of the
task reach. Below it stands what the time goes to, where the backend tells, and at the end the most memory that was
used at any time.
"""

import argparse
import gc
import resource
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

MODALITIES = ("EEG", "EOG", "EMG")

STEPS, COMPILED = ", step by step", ", steps compiled"

FLOP = {
    "RecSleepNet, night": 56.3e6,
    "RecSleepNet, joint step": 262e6,
    "NeuroNet, embedding": 8.87e9,
    "NeuroNet, pretraining step": 25.4e9,
    "fusion, embedding": 28.8e9,
    "fusion, pretraining step": 36.2e9,
    "fine-tuning, step": 37.9e9,
    "Mamba-2 (512), forward": 3.39e6,
    "Mamba-2 (512), both ways": 8.04e6,
    "Mamba (256), forward": 0.852e6,
    "Mamba (256), both ways": 2.03e6,
}
"""Floating-point operations of an epoch, or a step of a Mamba layer, in products and convolutions: PyTorch's
``FlopCounterMode`` counted them, but for those within attention, which are less than 1 %."""

Task = tuple[str, int, Callable[[], Any]]
"""Its name, the epochs or steps that a call takes in, and the call."""


def signals(*shape: int) -> Any:
    """Noise in place of epochs."""
    from keras import ops

    return ops.convert_to_tensor(np.random.default_rng(0).normal(size=(*shape, 3000)).astype("float32"))


def noise(*shape: int) -> Any:
    """What random maskings go by."""
    from keras import ops

    return ops.convert_to_tensor(np.random.default_rng(1).random(shape, "float32"))


def update(network: "keras.Model", loss: Callable[[Any], Any], inputs: Any) -> Callable[[], Any]:
    """A training step as published: AdamW, the gradient's norm clipped at 2."""
    import keras

    from benchmarks.device import BACKEND

    optimizer = keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=2.0)
    optimizer.build(network.trainable_variables)
    return BACKEND.step(network, loss, inputs, optimizer)


def recsleepnet(_: bool) -> Iterator[Task]:
    """A night of 1,000 epochs, and the joint training step on 15 nights of 20 epochs."""
    from keras import ops

    from benchmarks.device import BACKEND
    from config import TrainingConfig
    from recsleep.losses import JointTraining
    from recsleep.model import RecSleepNet

    network = RecSleepNet()
    night = {"signals": signals(1, 1000), "state": network.initial_state(1)}
    yield "RecSleepNet, night", 1000, BACKEND.forward(network, lambda inputs: network(inputs)[0], night)
    model = JointTraining(network, 15, TrainingConfig(), dtype="float32")
    stages = ops.convert_to_tensor(np.random.default_rng(1).integers(0, 5, (15, 20)))
    inputs = {"signals": signals(15, 20), "start": ops.zeros(15, "bool"), "weights": ops.ones((15, 20))}

    def loss(inputs: Any) -> Any:
        found = model(inputs, training=True)
        return model.compute_loss(None, inputs["stages"], found, inputs["weights"])

    yield "RecSleepNet, joint step", 300, update(model, loss, {**inputs, "stages": stages})


def pretraining(network: "keras.Model", inputs: Any) -> Callable[[], Any]:
    """The training step of a network that returns its losses."""

    def loss(inputs: Any) -> Any:
        found = network(inputs, training=True)
        return found["reconstruction"] + found["contrastive"]

    return update(network, loss, inputs)


def neuronet(large: bool) -> Iterator[Task]:
    """Embedding and pretraining of one modality."""
    from benchmarks.device import BACKEND
    from synth.models.neuronet import NeuroNet

    network = NeuroNet()
    batches = (32, 256) if large else (32,)
    for batch in batches:
        if batch == batches[-1]:
            yield "NeuroNet, embedding", batch, BACKEND.forward(network, network.encoder, signals(batch))
        inputs = {"signals": signals(batch), "noise": noise(2, batch, network.encoder.frames)}
        yield "NeuroNet, pretraining step", batch, pretraining(network, inputs)


def fusion(large: bool) -> Iterator[Task]:
    """Embedding and pretraining of three modalities."""
    from benchmarks.device import BACKEND
    from synth.models.fusion import SynthSleepNet

    network = SynthSleepNet(MODALITIES)
    batches = (16, 128) if large else (16,)
    for batch in batches:
        own = {name: signals(batch) for name in MODALITIES}
        if batch == batches[-1]:
            yield "fusion, embedding", batch, BACKEND.forward(network, network.encoder, own)
        inputs = {"signals": own, "noise": {name: noise(batch, network.encoder.frames) for name in MODALITIES}}
        yield "fusion, pretraining step", batch, pretraining(network, inputs)


def fine_tuning(_: bool) -> Iterator[Task]:
    """Fine-tuning of three modalities on four stretches of 20 epochs."""
    import keras

    from synth.models.classifier import FineTuning

    model = FineTuning({"modalities": MODALITIES})
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = keras.ops.convert_to_tensor(np.random.default_rng(1).integers(0, 5, (4, 20)))
    inputs = {"signals": {name: signals(4, 20) for name in MODALITIES}, "labels": labels}

    def loss(inputs: Any) -> Any:
        return entropy(inputs["labels"], keras.ops.cast(model(inputs, training=True), "float32"))

    yield "fine-tuning, step", 80, update(model, loss, inputs)


def mamba(_: bool) -> Iterator[Task]:
    """Both Mamba layers beside plain recurrences, at four lengths."""
    import keras

    from benchmarks.device import BACKEND
    from benchmarks.recurrence import PlainMamba, PlainMamba2, compiled
    from synth.layers.mamba import Mamba, Mamba2

    on_torch = keras.backend.backend() == "torch"
    if on_torch:
        from torch import compiler
    for name, ours, plain, features in (
        ("Mamba-2 (512)", Mamba2, PlainMamba2, 512),
        ("Mamba (256)", Mamba, PlainMamba, 256),
    ):
        layers: dict[str, Any] = {"": ours(features), STEPS: plain(features)}
        if on_torch:
            layers[COMPILED] = compiled(plain(features))
        for length in (20, 200, 1_200, 10_000):
            if on_torch:
                # PyTorch gives up on a function that it has compiled for several shapes.
                compiler.reset()
            for how, layer in layers.items():
                values = np.random.default_rng(0).normal(size=(1, length, features))
                x = keras.ops.convert_to_tensor(values, "float32")
                if not layer.built:
                    layer.build(x.shape)

                def total(x: Any, layer: Any = layer) -> Any:
                    return keras.ops.sum(keras.ops.cast(layer(x), "float32"))

                yield f"{name}, forward{how}", length, BACKEND.forward(layer, total, x)
                yield f"{name}, both ways{how}", length, BACKEND.step(layer, total, x)


PARTS = {"recsleepnet": recsleepnet, "neuronet": neuronet, "fusion": fusion, "fine_tuning": fine_tuning, "mamba": mamba}


def measure(task: Task, precision: str, size: int) -> str:
    """The line about one task."""
    from benchmarks.device import BACKEND, matrix_multiply
    from benchmarks.measure import interleaved

    def long(call: Callable[[], Any]) -> tuple[Callable[[], None], int]:
        """So many calls at once that starting and waiting hardly count."""
        started = time.perf_counter()
        BACKEND.wait(call())
        count = min(max(int(0.1 / (time.perf_counter() - started)), 1), 1000)

        def calls() -> None:
            for _ in range(count):
                result = call()
            BACKEND.wait(result)

        return calls, count

    name, epochs, call = task
    kind = "bfloat16" if precision == "mixed_bfloat16" else precision
    product = matrix_multiply(kind, size)
    BACKEND.wait(product())
    started = time.perf_counter()
    BACKEND.wait(call())
    compiling = time.perf_counter() - started
    (calls, count), (products, number) = long(call), long(product)
    medians = interleaved({"calls": calls, "products": products}, rounds=5)
    seconds, rate = medians["calls"] / count, number * 2 * size**3 / medians["products"]
    flop = epochs * FLOP[name.removesuffix(STEPS).removesuffix(COMPILED)]
    operations = BACKEND.operations(call)
    total = sum(operations.values())
    largest = sorted(operations, key=operations.__getitem__, reverse=True)[:8]
    kinds = "".join(f"{kind} {operations[kind] / total:.0%}, " for kind in largest)
    return (
        f"{name:40}{epochs:7,}  {kind:9}{1e3 * seconds:11.3f} ms{epochs / seconds:13,.0f} /s "
        f"{flop / seconds / rate:7.2%} of {rate / 1e12:.3g} TFLOP/s (first call {compiling:.0f} s)"
        + (f"\n    {kinds}others {1 - sum(map(operations.__getitem__, largest)) / total:.0%}" if total else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to time, by default all: {', '.join(PARTS)}")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := sorted({*parts} - {*PARTS}):
        parser.error(f"there is no part {unknown[0]!r}: choose among {', '.join(PARTS)}.")

    import keras

    from benchmarks.device import BACKEND, float32_errors, machine

    large = BACKEND.gpu() is not None
    print(machine())
    print("relative error of a float32 product {:.0e}, of a convolution {:.0e}".format(*float32_errors()))
    for part in parts:
        for precision in ("float32", "mixed_bfloat16"):
            keras.mixed_precision.set_dtype_policy(precision)
            keras.utils.set_random_seed(0)
            for task in PARTS[part](large):
                print(measure(task, precision, 8192 if large else 2048), flush=True)
            gc.collect()
    print(f"memory of the process, at most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
