"""The losses against plain NumPy, and what one training step does to the weights."""

import keras
import numpy as np
import plain_numpy
import pytest
from test_model import TINY

from config import TrainingConfig
from recsleep.losses import JointTraining, ReconstructionTraining, adam, l2_loss, stage_loss
from recsleep.model import RecSleepNet

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("rounding")]

RNG = np.random.default_rng(11)
CONFIG = TrainingConfig(reconstruction_weight=0.3, l2=0.02)


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


def plain_stage_loss(logits, stages, weights, class_weights):
    total = 0.0
    for night, epoch in np.ndindex(stages.shape):
        if weights[night, epoch]:
            z = logits[night, epoch]
            entropy = np.log(np.exp(z - z.max()).sum()) + z.max() - z[stages[night, epoch]]
            total += class_weights[stages[night, epoch]] * entropy
    return total / weights.sum()


def batch(nights: int = 2, epochs: int = 6):
    inputs = {"signals": RNG.normal(size=(nights, epochs, 300)), "start": np.ones(nights, bool)}
    weights = np.ones((nights, epochs))
    weights[1, epochs // 2 :] = 0
    return inputs, RNG.integers(0, 5, (nights, epochs)), weights


def test_stage_loss_matches_numpy():
    logits, stages = RNG.normal(size=(3, 8, 5)) * 3, RNG.integers(0, 5, (3, 8))
    weights = (RNG.random((3, 8)) < 0.6).astype("float64")
    class_weights = (1.0, 1.5, 1.0, 2.0, 0.5)
    ours = stage_loss(keras.ops.convert_to_tensor(logits), stages, keras.ops.convert_to_tensor(weights), class_weights)
    assert float(ours) == pytest.approx(plain_stage_loss(logits, stages, weights, class_weights), rel=1e-9)


def test_padding_weighs_nothing():
    logits, stages = RNG.normal(size=(2, 4, 5)), RNG.integers(0, 5, (2, 4))
    weights = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], "float64")
    alone = stage_loss(logits[:1], stages[:1], weights[:1], (1.0, 1.5, 1.0, 1.0, 1.0))
    assert float(stage_loss(logits, stages, weights, (1.0, 1.5, 1.0, 1.0, 1.0))) == pytest.approx(float(alone))


def test_l2_loss_is_half_the_squared_norms():
    kernels = [RNG.normal(size=(3, 2)), RNG.normal(size=4)]
    assert float(l2_loss(kernels, 1e-3)) == pytest.approx(1e-3 * sum((k**2).sum() for k in kernels) / 2)


def test_l2_is_on_the_four_forward_kernels_alone():
    encoder = RecSleepNet(**TINY).encoder
    expected = {id(c.kernel) for c in (encoder.convolution, *encoder.block.forward_convolutions)}
    assert {id(kernel) for kernel in encoder.regularized_kernels} == expected


def joint(optimizer, **changes) -> JointTraining:
    network = RecSleepNet(**(TINY | {"dropout": 0.0} | changes), dtype="float64")
    network.head.bias.assign(RNG.normal(size=5))
    model = JointTraining(network, 2, CONFIG, dtype="float64")
    model.compile(optimizer=optimizer)
    return model


def plain_joint_loss(network: RecSleepNet, inputs, stages, weights) -> float:
    nights = [plain_numpy.recsleepnet(network, night) for night in inputs["signals"]]
    squares = sum((numpy(kernel).astype("float64") ** 2).sum() for kernel in network.encoder.regularized_kernels)
    return (
        plain_stage_loss(np.array([n[0] for n in nights]), stages, weights, CONFIG.class_weights)
        + CONFIG.l2 * squares / 2
        + CONFIG.reconstruction_weight * np.mean([n[1] for n in nights])
    )


def test_joint_loss_and_gradients_match_numpy():
    """SGD with rate 1 moves the weights by the gradient; finite differences of the NumPy loss give it independently."""
    model = joint(keras.optimizers.SGD(1.0))
    network, (inputs, stages, weights) = model.network, batch()
    before = [numpy(v).copy() for v in network.trainable_variables]
    loss = plain_joint_loss(network, inputs, stages, weights)
    logs = model.train_on_batch(inputs, stages, weights, return_dict=True)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    gradients = [old - numpy(v) for old, v in zip(before, network.trainable_variables, strict=True)]
    for variable, old in zip(network.trainable_variables, before, strict=True):
        variable.assign(old)
    for variable, old, gradient in zip(network.trainable_variables, before, gradients, strict=True):
        direction = RNG.normal(size=old.shape)
        # So short a step seldom changes which value is a maximum, where the loss has a corner.
        direction *= 1e-7 / np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            variable.assign(old + sign * direction)
            ends.append(plain_joint_loss(network, inputs, stages, weights))
        variable.assign(old)
        slope = (ends[0] - ends[1]) / 2
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-4, abs=1e-13), variable.path


def test_reconstruction_phase_trains_the_encoder_alone():
    network = RecSleepNet(**(TINY | {"dropout": 0.0}), dtype="float64")
    model = ReconstructionTraining(network.encoder, dtype="float64")
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    inputs, stages, weights = batch()
    before = [w.copy() for w in network.get_weights()]
    expected = np.mean([plain_numpy.recsleepnet(network, night)[1] for night in inputs["signals"]])
    assert model.train_on_batch(inputs, stages, weights, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
    moved = {
        variable.path.split("/")[-2]
        for variable, old in zip(network.weights, before, strict=True)
        if not np.array_equal(numpy(variable), old)
    }
    assert moved == {"convolution", "forward_1", "forward_2", "forward_3", "backward_1", "backward_2"}


def test_first_joint_step_is_adam_on_the_clipped_gradient():
    """Adam's first step hides the gradient's scale but for epsilon; a large epsilon shows the clip."""
    plain = joint(keras.optimizers.SGD(1.0))
    clipped = joint(adam(TrainingConfig(adam_epsilon=0.5, learning_rate=0.1), clip_norm=0.05))
    start = plain.network.get_weights()
    clipped.network.set_weights(start)
    data = batch()
    plain.train_on_batch(*data)
    clipped.train_on_batch(*data)
    gradients = [old - new for old, new in zip(start, plain.network.get_weights(), strict=True)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > 0.05
    for gradient, old, new in zip(gradients, start, clipped.network.get_weights(), strict=True):
        g = gradient * 0.05 / norm
        # TensorFlow 1's form: epsilon is added before the bias correction of the second moment.
        step = 0.1 * np.sqrt(1 - 0.999) / (1 - 0.9) * (0.1 * g) / (np.sqrt(0.001 * g**2) + 0.5)
        np.testing.assert_allclose(old - new, step, rtol=1e-4, atol=1e-9)


def test_state_is_carried_until_a_night_starts():
    model = joint(keras.optimizers.SGD(0.0))
    inputs, stages, weights = batch(epochs=12)
    signals = inputs["signals"]
    whole, _ = model(inputs)
    model.train_on_batch({"signals": signals[:, :6], "start": np.ones(2, bool)}, stages[:, :6], weights[:, :6])
    # A sequence that goes on equals the whole; one that starts anew does not remember.
    second, _ = model({"signals": signals[:, 6:], "start": np.array([False, True])})
    alone, _ = model({"signals": signals[:, 6:], "start": np.ones(2, bool)})
    np.testing.assert_allclose(numpy(second)[0], numpy(whole)[0, 6:], atol=1e-6)
    np.testing.assert_allclose(numpy(second)[1], numpy(alone)[1], atol=1e-12)
    assert not np.allclose(numpy(second)[0], numpy(alone)[0], atol=1e-4)


def test_a_last_group_may_hold_fewer_nights():
    model = joint(keras.optimizers.SGD(0.0))
    inputs, stages, weights = batch()
    model.train_on_batch(inputs, stages, weights)
    one = {"signals": inputs["signals"][:1], "start": np.ones(1, bool)}
    logs = model.train_on_batch(one, stages[:1], weights[:1], return_dict=True)
    assert np.isfinite(logs["loss"])
    assert tuple(model.hidden.shape) == (2, 5)
