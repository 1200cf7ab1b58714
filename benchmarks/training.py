"""How fast is a training step, and what bounds it? ``python -m benchmarks.training``.

One joint step on 15 nights of 20 epochs, in float32 and mixed bfloat16, beside the machine's matrix-multiply rate. The
floor is the step's convolutions at that rate: forward once, and backward twice (for the input and for the kernel), but
for the first convolution, whose input needs no gradient.
"""

from collections.abc import Callable

import keras
import numpy as np

from benchmarks.measure import EPOCH_FLOP, RECONSTRUCTION_FLOP, interleaved, machine, matrix_multiply
from config import TrainingConfig
from recsleep.losses import JointTraining, ReconstructionTraining, adam
from recsleep.model import RecSleepNet

NIGHTS, EPOCHS = 15, 20
STEP_FLOP = NIGHTS * EPOCHS * (3 * (EPOCH_FLOP + RECONSTRUCTION_FLOP) - 2 * 500 * 128 * 50)


def step(dtype: str, joint: bool) -> Callable[[], object]:
    """A task: one training step of either phase."""
    rng = np.random.default_rng(0)
    inputs = {"signals": rng.normal(0, 20, (NIGHTS, EPOCHS, 3000)).astype("float32"), "start": np.zeros(NIGHTS, bool)}
    stages, weights = rng.integers(0, 5, (NIGHTS, EPOCHS)), np.ones((NIGHTS, EPOCHS), "float32")
    network, config = RecSleepNet(dtype=dtype), TrainingConfig()
    model = JointTraining(network, NIGHTS, config) if joint else ReconstructionTraining(network.encoder)
    model.compile(optimizer=adam(config, config.clip_norm if joint else None), jit_compile=False)
    return lambda: model.train_on_batch(inputs, stages, weights)


def main() -> None:
    keras.utils.set_random_seed(0)
    seconds = interleaved(
        {
            "joint, float32": step("float32", True),
            "reconstruction, float32": step("float32", False),
            "joint, mixed_bfloat16": step("mixed_bfloat16", True),
            "matrix product, float32": matrix_multiply("float32"),
            "matrix product, bfloat16": matrix_multiply("bfloat16"),
        }
    )
    print(machine())
    for kind in ("float32", "bfloat16"):
        rate = 2 * 2048**3 / seconds[f"matrix product, {kind}"]
        floor = f"{STEP_FLOP / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s = {STEP_FLOP / rate * 1e3:.0f} ms"
        print(f"floor in {kind}: {floor}")
        for name in (name for name in seconds if name.endswith(kind) and "product" not in name):
            share = STEP_FLOP / seconds[name] / rate
            print(
                f"  {name:26}{seconds[name] * 1e3:8.0f} ms a step{NIGHTS * EPOCHS / seconds[name]:8.0f} epochs/s"
                f"{share:8.0%} of the matrix-multiply rate"
            )


if __name__ == "__main__":
    main()
