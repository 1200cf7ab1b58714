"""How fast is a night staged on the CPU? ``python -m benchmarks.staging [--reference FOLDER]``.

A night of 1,000 epochs in float32 and mixed bfloat16; where the reference's graph is given (a folder with its
``.meta``), the same epochs through it, in the same run.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.measure import EPOCH_FLOP, interleaved, machine, matrix_multiply
from recsleep.model import RecSleepNet
from recsleep.predictor import stage_epochs

EPOCHS = 1000


def reference_graph(folder: Path, signals: np.ndarray) -> tuple[Callable[[], object], Callable[[], object]]:
    """Tasks: one step of the reference graph (20 nights of 15 epochs) as it is, and without its first convolution.

    The graph is in channels-first layout, for a GPU. TensorFlow's CPU kernel of that one convolution is a slow
    fallback, so the second figure is what a reference with a good kernel could approach.
    """
    prefix = next(folder.glob("*.meta")).with_suffix("")
    graph = tf.Graph()
    with graph.as_default():
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        session = tf.compat.v1.Session(graph=graph)
        saver.restore(session, str(prefix))
    feeds = {
        "placeholders/signals:0": signals[:300].reshape(300, 1, 3000, 1),
        "placeholders/is_training:0": False,
        "placeholders/seq_lengths:0": np.full(20, 15, np.int32),
    }
    logits = "softmax_linear/dense/BiasAdd:0"
    first = next(op for op in graph.get_operations() if op.type == "Conv2D").outputs[0]
    known = {first: session.run(first, feeds), **feeds}
    return lambda: session.run(logits, feeds), lambda: session.run(logits, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, help="folder with the reference checkpoint and its .meta")
    arguments = parser.parse_args()
    signals = np.random.default_rng(0).normal(0, 20, (EPOCHS, 3000)).astype("float32")
    exact, mixed = RecSleepNet(), RecSleepNet(dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    tasks: dict[str, Callable[[], object]] = {
        "ours, float32": lambda: stage_epochs(exact, signals),
        "ours, mixed_bfloat16": lambda: stage_epochs(mixed, signals),
        "matrix product, float32": matrix_multiply("float32"),
        "matrix product, bfloat16": matrix_multiply("bfloat16"),
    }
    epochs = dict.fromkeys(("ours, float32", "ours, mixed_bfloat16"), EPOCHS)
    if arguments.reference:
        whole, rest = reference_graph(arguments.reference, signals)
        tasks |= {"reference graph": whole, "reference without conv 1": rest}
        epochs |= {"reference graph": 300, "reference without conv 1": 300}
    seconds = interleaved(tasks)
    rate = {kind: 2 * 2048**3 / seconds[f"matrix product, {kind}"] / 1e9 for kind in ("float32", "bfloat16")}
    print(machine())
    print(f"matrix products: {rate['float32']:.0f} GFLOP/s in float32, {rate['bfloat16']:.0f} in bfloat16")
    print(f"{'':26}{'epochs/s':>10}{'GFLOP/s':>10}{'of matmul':>11}{'to reference':>14}")
    for name, count in epochs.items():
        speed = count / seconds[name]
        line = f"{name:26}{speed:10.0f}"
        if name.startswith("ours"):
            flop = speed * EPOCH_FLOP / 1e9
            line += f"{flop:10.0f}{flop / rate['bfloat16' if 'bfloat16' in name else 'float32']:11.0%}"
            if arguments.reference:
                line += f"{speed / (300 / seconds['reference graph']):13.1f}x"
        print(line)
    difference = np.abs(stage_epochs(exact, signals) - stage_epochs(mixed, signals)).max()
    print(f"largest difference of a probability, bfloat16 to float32 (random weights): {difference:.4f}")


if __name__ == "__main__":
    main()
