"""RecSleepNet once more, in float64 NumPy loops written from its description, to compare the Keras layers with."""

import numpy as np


def conv1d_same(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    """TensorFlow's "same" convolution of (T, C) with (k, C, F): the odd zero of the padding goes to the right."""
    steps, size = len(x), len(kernel)
    count = -(-steps // stride)
    padding = max((count - 1) * stride + size - steps, 0)
    x = np.pad(x, ((padding // 2, padding - padding // 2), (0, 0)))
    return np.stack([np.tensordot(x[t * stride : t * stride + size], kernel, axes=2) for t in range(count)])


def max_pool(x: np.ndarray, size: int) -> np.ndarray:
    x = np.pad(x, ((0, -len(x) % size), (0, 0)))
    return x.reshape(-1, size, x.shape[1]).max(axis=1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def peephole_lstm(x, kernel, bias, peepholes, hidden, cell):
    """Over (E, features) with one kernel for [input, hidden]; gates i, j, f, o; forget bias 1."""
    outputs = []
    for step in x:
        i, j, f, o = np.split(np.concatenate([step, hidden]) @ kernel + bias, 4)
        previous = cell
        cell = sigmoid(f + 1 + peepholes[1] * previous) * previous
        cell = cell + sigmoid(i + peepholes[0] * previous) * np.tanh(j)
        hidden = sigmoid(o + peepholes[2] * cell) * np.tanh(cell)
        outputs.append(hidden)
    return np.array(outputs), hidden, cell


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def block(x: np.ndarray, forward: list[np.ndarray], backward: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The CRB's output, and the squared differences of middle feature and reconstruction."""
    middle = relu(conv1d_same(x, forward[0]))
    output = relu(conv1d_same(relu(conv1d_same(middle, forward[1])), forward[2]))
    rebuilt = relu(conv1d_same(relu(conv1d_same(output, backward[0])), backward[1]))
    return output, (middle - rebuilt) ** 2


def recsleepnet(network, signals: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits (E, 5) of one night (E, samples) and the reconstruction loss, with the weights of ``network``."""

    def value(variable):
        return np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable.value).astype(np.float64)

    encoder, lstm = network.encoder, network.lstm
    forward, backward = (
        [value(convolution.kernel) for convolution in convolutions]
        for convolutions in (encoder.block.forward_convolutions, encoder.block.backward_convolutions)
    )
    features, differences = [], []
    for epoch in signals.astype(np.float64):
        x = relu(conv1d_same(epoch[:, None], value(encoder.convolution.kernel), encoder.first_stride))
        x, difference = block(max_pool(x, encoder.first_pool), forward, backward)
        differences.append(difference)
        x = max_pool(x, encoder.second_pool)
        features.append(np.concatenate([x.mean(axis=0), x.max(axis=0)]))
    kernel = np.concatenate([value(lstm.kernel), value(lstm.cell.kernel)])
    peepholes = [value(getattr(lstm.cell, f"peephole_{gate}")) for gate in "ifo"]
    zeros = np.zeros(lstm.units)
    outputs, _, _ = peephole_lstm(features, kernel, value(lstm.bias), peepholes, zeros, zeros)
    return outputs @ value(network.head.kernel) + value(network.head.bias), float(np.mean(differences))
