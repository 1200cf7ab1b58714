"""The network against plain NumPy, in pieces, and with dropout."""

import keras
import numpy as np
import plain_numpy
import pytest

from recsleep.model import RecSleepNet

pytestmark = pytest.mark.model

TINY = {
    "samples": 300,
    "filters": 6,
    "first_kernel": 20,
    "first_stride": 3,
    "block_kernel": 4,
    "first_pool": 4,
    "second_pool": 3,
    "lstm_units": 5,
}
RNG = np.random.default_rng(3)


def stage(network: RecSleepNet, signals: np.ndarray, state=None, **options):
    state = network.initial_state(len(signals)) if state is None else state
    return network({"signals": signals, "state": state}, **options)


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def test_published_size():
    network = RecSleepNet()
    assert network.count_params() == 859_909
    assert sum(int(np.prod(c.kernel.shape)) for c in network.encoder.block.backward_convolutions) == 262_144


@pytest.mark.parametrize(
    ("dtype", "pooling"), [("float64", "both"), ("float32", "both"), ("float64", "average"), ("float64", "maximum")]
)
def test_logits_and_reconstruction_match_numpy(rounding, dtype, pooling):
    tolerance = rounding if dtype == "float64" else 1e-5
    network = RecSleepNet(**TINY, global_pooling=pooling, dtype=dtype)
    network.head.bias.assign(RNG.normal(size=5))
    signals = RNG.normal(size=(2, 7, 300)).astype(dtype)
    logits, _, loss = stage(network, signals, reconstruct=True)
    expected = [plain_numpy.recsleepnet(network, night) for night in signals]
    np.testing.assert_allclose(numpy(logits), [e[0] for e in expected], atol=tolerance)
    assert float(loss) == pytest.approx(np.mean([e[1] for e in expected]), rel=tolerance)


def test_epochs_one_by_one_equal_the_night():
    network = RecSleepNet(**TINY)
    night = RNG.normal(size=(1, 9, 300)).astype("float32")
    whole, _ = stage(network, night)
    state, logits = network.initial_state(1), []
    for epoch in range(9):
        output, state = stage(network, night[:, epoch : epoch + 1], state)
        logits.append(numpy(output))
    np.testing.assert_allclose(np.concatenate(logits, axis=1), numpy(whole), atol=1e-6)


def test_dropout_is_off_when_staging_and_on_in_training():
    network = RecSleepNet(**TINY)
    night = RNG.normal(size=(1, 9, 300)).astype("float32")
    np.testing.assert_array_equal(numpy(stage(network, night)[0]), numpy(stage(network, night)[0]))
    assert not np.allclose(numpy(stage(network, night, training=True)[0]), numpy(stage(network, night)[0]))


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras's dropout on PyTorch draws from torch's own generator"
)
def test_reseeded_dropout_repeats():
    network = RecSleepNet(**TINY)
    night = RNG.normal(size=(1, 9, 300)).astype("float32")
    seeds = np.arange(6, dtype="uint32").reshape(3, 2)
    results = []
    for _ in range(2):
        network.reseed_dropout(seeds)
        results.append(numpy(stage(network, night, training=True)[0]))
    np.testing.assert_array_equal(*results)
