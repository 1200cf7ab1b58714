"""How fast are SynthSleepNet's models, and what bounds them? ``python -m benchmarks.synth``.

The published sizes, with three modalities, in float32 and mixed bfloat16, beside the machine's matrix-multiply rate and
the published PyTorch code's epochs/s, once measured in float32 on two threads whose matrix products ran at 207 GFLOP/s.
The second ratio allows for that: it divides by how much faster this machine's products are in the same run. Floating-
point operations are those that TensorFlow's own profiler finds in each compiled function, nearly all in products and
convolutions.
"""

import subprocess
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import interleaved, learner, machine, matrix_multiply, pretraining
from synth.learner import Learner
from synth.models.classifier import FineTuning
from synth.models.fusion import SynthSleepNet
from synth.models.neuronet import NeuroNet

MODALITIES = ("EEG", "EOG", "EMG")

PUBLISHED = {
    "NeuroNet training step, batch 32": 4.5,
    "NeuroNet embedding, batch 32": 15.7,
    "fusion training step, batch 16": 3.0,
    "fusion embedding, batch 32": 4.6,
    "fine-tuning step, 4 x 20": 2.25,
}
"""Epochs/s of the published code."""

PUBLISHED_RATE = {"float32": 207e9, "bfloat16": 395e9}
"""Floating-point operations a second of matrix products on the machine where that was measured."""


def signals(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(*shape, 3000)).astype("float32"))


def fine_tuning() -> Learner:
    model = FineTuning({"modalities": MODALITIES})
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def losses(inputs: Any) -> dict[str, Any]:
        return {"loss": entropy(inputs["labels"], tf.cast(model(inputs, training=True), "float32"))}

    return learner(model, losses)


def task(name: str) -> tuple[Learner | tf.types.experimental.PolymorphicFunction, Any, int]:
    """The learner or compiled function of that name, its inputs, and how many epochs they hold."""
    if name == "NeuroNet training step, batch 32":
        return pretraining(NeuroNet()), {"signals": signals(32)}, 32
    if name == "NeuroNet embedding, batch 32":
        return tf.function(NeuroNet().encoder), signals(32), 32
    if name == "fusion training step, batch 16":
        return pretraining(SynthSleepNet(MODALITIES)), {"signals": {m: signals(16) for m in MODALITIES}}, 16
    if name == "fusion embedding, batch 32":
        return tf.function(SynthSleepNet(MODALITIES).encoder), {m: signals(32) for m in MODALITIES}, 32
    labels = tf.constant(np.random.default_rng(1).integers(0, 5, (4, 20)))
    return fine_tuning(), {"signals": {m: signals(4, 20) for m in MODALITIES}, "labels": labels}, 80


def operations(function: tf.types.experimental.PolymorphicFunction, inputs: Any) -> int:
    """Floating-point operations of one call's products and convolutions."""
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    options = options.with_empty_output().order_by("float_ops").build()
    graph = function.get_concrete_function(inputs).graph
    profile = tf.compat.v1.profiler.profile(graph, options=options)
    return profile.total_float_ops


def measure(name: str, dtype: str) -> None:
    """Print one line; run in a process of its own, for memory's sake."""
    keras.mixed_precision.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    it, inputs, epochs = task(name)
    call, function = (it.step, it.differentiate) if isinstance(it, Learner) else (it, it)
    kind = "bfloat16" if dtype == "mixed_bfloat16" else dtype
    seconds = interleaved({"task": lambda: call(inputs), "product": matrix_multiply(kind)}, rounds=5)
    flop, rate = operations(function, inputs), 2 * 2048**3 / seconds["product"]
    times = epochs / seconds["task"] / PUBLISHED[name]
    print(
        f"{name:34}{dtype:16}{epochs / seconds['task']:8.2f} epochs/s"
        f"{times:7.2f} x published{times * PUBLISHED_RATE[kind] / rate:7.2f} at its machine's rate"
        f"{flop / epochs / 1e9:9.1f} GFLOP an epoch{flop / seconds['task'] / rate:7.0%} of {rate / 1e9:.0f} GFLOP/s",
        flush=True,
    )


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
        return
    print(machine())
    for name in PUBLISHED:
        for dtype in ("float32", "mixed_bfloat16"):
            subprocess.run([sys.executable, "-m", "benchmarks.synth", name, dtype], check=True)


if __name__ == "__main__":
    main()
