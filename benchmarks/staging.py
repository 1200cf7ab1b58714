"""How fast is a night staged on the CPU? ``python -m benchmarks.staging [--reference FOLDER]``.

A night of 1,000 epochs through one network and through ten as one graph, in ONNX Runtime, beside TensorFlow's matrix
product, by the seconds that pass and by those of the processor. Where the reference's graph is given (a folder with its
``.meta``), the same epochs go through it, in the same run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.device import machine, matrix_multiply
from benchmarks.measure import interleaved
from benchmarks.models import FLOP
from recsleep.inference import InferenceNetwork
from recsleep.model import RecSleepNet
from recsleep.onnx import to_onnx

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
    parser.add_argument("--threads", type=int, default=0, help="threads that compute (default: one on each core)")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    signals = np.random.default_rng(0).normal(0, 20, (EPOCHS, 3000)).astype("float32")
    networks = [RecSleepNet() for _ in range(10)]
    one, ten = (InferenceNetwork(to_onnx(networks[:count]), arguments.threads) for count in (1, 10))
    tasks: dict[str, Callable[[], object]] = {
        "one network": lambda: one.probabilities(signals[None]),
        "ten networks": lambda: ten.probabilities(signals[None]),
        "matrix product": matrix_multiply("float32"),
    }
    epochs = {"one network": EPOCHS, "ten networks": EPOCHS}
    flop = {"one network": FLOP["RecSleepNet, night"], "ten networks": 10 * FLOP["RecSleepNet, night"]}
    if arguments.reference:
        whole, rest = reference_graph(arguments.reference, signals)
        tasks |= {"reference graph": whole, "reference without conv 1": rest}
        epochs |= {"reference graph": 300, "reference without conv 1": 300}
        flop |= {"reference graph": FLOP["RecSleepNet, night"], "reference without conv 1": FLOP["RecSleepNet, night"]}
    clocks = {"waiting": time.perf_counter, "processor": time.process_time}
    print(machine())
    for what, clock in clocks.items():
        seconds = interleaved(tasks, clock=clock)
        rate = 2 * 2048**3 / seconds["matrix product"]
        print(f"by seconds of {what}: TensorFlow's matrix product in float32 {rate / 1e9:.0f} GFLOP/s")
        print(f"{'':26}{'epochs/s':>10}{'GFLOP/s':>10}{'of matmul':>11}")
        for name, count in epochs.items():
            speed = count / seconds[name]
            print(f"{name:26}{speed:10.0f}{speed * flop[name] / 1e9:10.0f}{speed * flop[name] / rate:11.0%}")


if __name__ == "__main__":
    main()
