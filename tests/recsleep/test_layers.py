"""Each layer against plain NumPy."""

import keras
import numpy as np
import plain_numpy
import pytest

from recsleep.layers import (
    ConvolutionalReconstructionBlock,
    GlobalMaxAveragePooling,
    PeepholeLSTM,
    pool_right_padded,
)
from recsleep.model import EpochEncoder

pytestmark = pytest.mark.model

RNG = np.random.default_rng(7)


def numpy(x) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("steps", [16, 17, 23])
def test_pooling_pads_on_the_right(steps):
    x = np.abs(RNG.normal(size=(2, steps, 3)))
    expected = [plain_numpy.max_pool(one, 8) for one in x]
    np.testing.assert_array_equal(numpy(pool_right_padded(keras.ops.convert_to_tensor(x), 8)), expected)


def test_global_pooling_puts_the_average_first():
    x = np.array([[[1.0, -4.0], [3.0, 2.0]]], "float32")
    np.testing.assert_allclose(numpy(GlobalMaxAveragePooling()(x)), [[2.0, -1.0, 3.0, 2.0]])


def test_block_and_reconstruction_loss_match_numpy(rounding):
    block = ConvolutionalReconstructionBlock(4, 5, dtype="float64")
    x = RNG.normal(size=(3, 9, 4))
    output, loss = block(x, reconstruct=True)
    forward = [numpy(c.kernel) for c in block.forward_convolutions]
    backward = [numpy(c.kernel) for c in block.backward_convolutions]
    expected = [plain_numpy.block(one, forward, backward) for one in x]
    np.testing.assert_allclose(numpy(output), [o for o, _ in expected], rtol=rounding, atol=rounding)
    assert float(loss) == pytest.approx(np.mean([d for _, d in expected]), rel=rounding)
    np.testing.assert_array_equal(numpy(block(x)), numpy(output))


@pytest.mark.parametrize("layer", ["block", "encoder"])
def test_a_model_may_use_the_reconstruction_loss(layer):
    layer, x = {
        "block": (ConvolutionalReconstructionBlock(4, 5, dtype="mixed_bfloat16"), RNG.normal(size=(3, 9, 4))),
        "encoder": (EpochEncoder(4, 9, 3, 5, 2, 2, 0.5, dtype="mixed_bfloat16"), RNG.normal(size=(3, 60))),
    }[layer]
    inputs = keras.Input(x.shape[1:])
    told = layer(inputs, reconstruct=True)
    found, expected = keras.Model(inputs, told)(x), layer(x, reconstruct=True)
    assert [one.shape[1:] for one in told] == [tuple(one.shape[1:]) for one in found]
    assert [keras.backend.standardize_dtype(one.dtype) for one in found] == [one.dtype for one in told]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(numpy(keras.ops.cast(one, "float32")), numpy(keras.ops.cast(other, "float32")))


def test_inference_leaves_the_reconstruction_out():
    block = ConvolutionalReconstructionBlock(4, 5)
    x = RNG.normal(size=(1, 9, 4)).astype("float32")
    before = numpy(block(x))
    for convolution in block.backward_convolutions:
        convolution.kernel.assign(np.full(convolution.kernel.shape, np.nan))
    np.testing.assert_array_equal(numpy(block(x)), before)


def lstm_and_plain(dtype: str, epochs: int):
    lstm = PeepholeLSTM(6, dtype=dtype)
    x = RNG.normal(size=(2, epochs, 5))
    lstm.build(x.shape)
    # Zeros would hide the bias.
    lstm.bias.assign(RNG.normal(size=lstm.bias.shape))
    state = tuple(RNG.normal(size=(2, 6)) for _ in range(2))
    kernel = np.concatenate([numpy(lstm.kernel), numpy(lstm.cell.kernel)]).astype("float64")
    peepholes = [numpy(p).astype("float64") for p in (lstm.cell.peephole_i, lstm.cell.peephole_f, lstm.cell.peephole_o)]
    plain = [
        plain_numpy.peephole_lstm(x[n], kernel, numpy(lstm.bias).astype("float64"), peepholes, state[0][n], state[1][n])
        for n in range(2)
    ]
    return lstm, x, state, plain


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lstm_matches_a_float64_recurrence(rounding, dtype):
    lstm, x, state, plain = lstm_and_plain(dtype, 50)
    tolerance = rounding if dtype == "float64" else 2e-6
    outputs, (hidden, cell) = lstm(x.astype(dtype), initial_state=tuple(s.astype(dtype) for s in state))
    np.testing.assert_allclose(numpy(outputs), [p[0] for p in plain], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(numpy(hidden), [p[1] for p in plain], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(numpy(cell), [p[2] for p in plain], rtol=tolerance, atol=tolerance)


def test_lstm_begins_with_zeros_unless_it_is_told_otherwise():
    lstm, x, _, _ = lstm_and_plain("float32", 3)
    expected = keras.tree.flatten(lstm(x, initial_state=(np.zeros((2, 6)), np.zeros((2, 6)))))
    inputs = keras.Input(x.shape[1:])
    for found in (lstm(x), keras.Model(inputs, lstm(inputs))(x)):
        for one, other in zip(keras.tree.flatten(found), expected, strict=True):
            np.testing.assert_array_equal(numpy(one), numpy(other))


def test_lstm_in_pieces_equals_the_whole(rounding):
    lstm, x, state, _ = lstm_and_plain("float64", 23)
    whole, last = lstm(x, initial_state=state)
    pieces = []
    for part in np.split(x, [1, 2, 9], axis=1):
        output, state = lstm(part, initial_state=state)
        pieces.append(numpy(output))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), numpy(whole), rtol=rounding, atol=rounding)
    np.testing.assert_allclose(numpy(state[1]), numpy(last[1]), rtol=rounding, atol=rounding)
