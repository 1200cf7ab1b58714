"""RecSleepNet and the temporal context modules once more, in float64 NumPy loops written from their descriptions."""

import numpy as np
from keras import ops


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


def value(variable) -> np.ndarray:
    """The numbers of a weight of any backend."""
    return ops.convert_to_numpy(variable).astype(np.float64)


def recsleepnet(network, signals: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits (E, 5) of one night (E, samples) and the reconstruction loss, with the weights of ``network``."""
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
        average, maximum = x.mean(axis=0), x.max(axis=0)
        kinds = {"both": np.concatenate([average, maximum]), "average": average, "maximum": maximum}
        features.append(kinds[encoder.global_pooling])
    kernel = np.concatenate([value(lstm.kernel), value(lstm.cell.kernel)])
    peepholes = [value(getattr(lstm.cell, f"peephole_{gate}")) for gate in "ifo"]
    zeros = np.zeros(lstm.units)
    outputs, _, _ = peephole_lstm(features, kernel, value(lstm.bias), peepholes, zeros, zeros)
    return outputs @ value(network.head.kernel) + value(network.head.bias), float(np.mean(differences))


def lstm(layer, x: np.ndarray) -> np.ndarray:
    """Over (L, D), from zeros; gates in Keras's order: input, forget, candidate, output."""
    cell = layer.cell
    kernel, recurrent, bias = map(value, (cell.kernel, cell.recurrent_kernel, cell.bias))
    hidden, memory, outputs = np.zeros(layer.units), np.zeros(layer.units), []
    for step in x:
        i, f, c, o = np.split(step @ kernel + hidden @ recurrent + bias, 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(memory)
        outputs.append(hidden)
    return np.array(outputs)


def self_attention(layer, x: np.ndarray) -> np.ndarray:
    """Each step of (L, D) looks at all; ``layer`` holds a kernel (D, features) for each head."""
    outputs = value(layer.output_dense.bias)
    for head, kernel in enumerate(value(layer.output_dense.kernel)):
        query, key, own = (
            x @ value(part.kernel)[:, head] + value(part.bias)[head]
            for part in (layer.query_dense, layer.key_dense, layer.value_dense)
        )
        likeness = np.exp(query @ key.T / np.sqrt(query.shape[1]))
        outputs = outputs + likeness / likeness.sum(axis=1, keepdims=True) @ own @ kernel
    return outputs


def layer_norm(layer, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    centred /= np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred * value(layer.gamma) + value(layer.beta)


def encoder_layer(layer, x: np.ndarray) -> np.ndarray:
    """PyTorch's ``TransformerEncoderLayer`` without dropout, over (L, D)."""
    x = layer_norm(layer.norm1, x + self_attention(layer.attention, x))
    hidden = relu(x @ value(layer.fc1.kernel) + value(layer.fc1.bias))
    return layer_norm(layer.norm2, x + hidden @ value(layer.fc2.kernel) + value(layer.fc2.bias))


def batch_norm(layer, x: np.ndarray) -> np.ndarray:
    """By the statistics that it has learned."""
    root = np.sqrt(value(layer.moving_variance) + layer.epsilon)
    return (x - value(layer.moving_mean)) / root * value(layer.gamma) + value(layer.beta)


def classifier(layer, modules: list, x: np.ndarray) -> np.ndarray:
    """Logits (L, classes) of the embeddings (L, D) of a stretch, none of them padding.

    ``modules`` are the layers of its temporal context module, each with the function above that computes it.
    """
    x = added = batch_norm(layer.norm, x)
    for module, compute in modules:
        added = compute(module, added)
    x = x + added if modules else x
    for linear, norm in zip(layer.head.linears, layer.head.norms, strict=True):
        x = batch_norm(norm, x @ value(linear.kernel) + value(linear.bias))
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return x @ value(layer.head.logits.kernel) + value(layer.head.logits.bias)
