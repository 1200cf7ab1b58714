"""What do the Mamba layers cost at which length? ``python -m benchmarks.mamba``.

Forward, and forward and backward, of both layers at the published sizes, batch 1, beside the same layers whose state
space is run step by step by ``tf.scan``, TensorFlow's own recurrence.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import interleaved, machine
from synth.layers.mamba import Mamba, Mamba2

LENGTHS = (20, 200, 1_200, 10_000)


class PlainMamba(Mamba):
    """Mamba with its recurrence as ``tf.scan``."""

    def _state_space(self, delta: Any, delta_u: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        parts = tuple(tf.transpose(part, (1, 0, 2)) for part in (delta, delta_u, B))
        A = -tf.exp(self.a_log.value)

        def advance(h: tf.Tensor, now: tuple[tf.Tensor, ...]) -> tf.Tensor:
            delta, delta_u, B = now
            return tf.exp(delta[:, :, None] * A) * h + delta_u[:, :, None] * B[:, None, :]

        states = tf.scan(advance, parts, h)
        return tf.einsum("lben,bln->ble", states, C), states[-1]


class PlainMamba2(Mamba2):
    """Mamba-2 with its recurrence as ``tf.scan``."""

    def _state_space(self, u: Any, delta: Any, B: Any, C: Any, h: Any) -> tuple[Any, Any]:
        kept = tf.exp(delta * -tf.exp(self.a_log.value))
        parts = (tf.einsum("blh->lbh", kept), tf.einsum("blh,blhp->lbhp", delta, u), tf.einsum("bln->lbn", B))

        def advance(h: Any, now: Any) -> Any:
            kept, delta_u, B = now
            return kept[:, :, None, None] * h + delta_u[..., None] * B[:, None, None, :]

        states = tf.scan(advance, parts, h)
        return tf.einsum("lbhpn,bln->blhp", states, C), states[-1]


def forward(layer: keras.layers.Layer, x: tf.Tensor) -> Callable[[], object]:
    function = tf.function(lambda: tf.reduce_sum(layer(x)))
    return lambda: function().numpy()


def both(layer: keras.layers.Layer, x: tf.Tensor) -> Callable[[], object]:
    @tf.function
    def function() -> Any:
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(layer(x))
        return tape.gradient(value, [variable.value for variable in layer.trainable_variables])

    return lambda: [gradient.numpy() for gradient in function()]


def main() -> None:
    tf.get_logger().setLevel("ERROR")
    print(machine())
    print(f"{'layer':24}{'what':22}" + "".join(f"{length:>12,}" for length in LENGTHS))
    for ours, plain, features in ((Mamba2, PlainMamba2, 512), (Mamba, PlainMamba, 256)):
        layers = {"ours": ours(features), "tf.scan": plain(features)}
        for layer in layers.values():
            layer.build((None, None, features))
        layers["tf.scan"].set_weights(layers["ours"].get_weights())
        for what, make in (("forward", forward), ("forward and backward", both)):
            rows: dict[str, list[float]] = {name: [] for name in layers}
            for length in LENGTHS:
                x = tf.constant(np.random.default_rng(0).normal(size=(1, length, features)).astype("float32"))
                tasks = {name: make(layer, x) for name, layer in layers.items()}
                for name, median in interleaved(tasks, rounds=3 if length > 5_000 else 7).items():
                    rows[name].append(median)
            for name, seconds in rows.items():
                label = f"{ours.__name__}({features}), {name}"
                print(f"{label:24}{what:22}" + "".join(f"{1e3 * s:9.1f} ms" for s in seconds), flush=True)
            a_step = " ".join(f"{1e6 * s / n:.0f}" for s, n in zip(rows["ours"], LENGTHS, strict=True))
            print(f"{'':24}{'microseconds a step':22}{a_step}", flush=True)


if __name__ == "__main__":
    main()
