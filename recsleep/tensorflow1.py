"""Read the TensorFlow 1 checkpoints of the published RecSleepNet; TensorFlow is imported when one is read."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.terms import InputError

if TYPE_CHECKING:
    from recsleep.model import RecSleepNet

_LSTM = "rnn/rnn/multi_rnn_cell/cell_0/lstm_cell"
_HEAD = "softmax_linear/dense"


def read_checkpoint(folder: Path) -> "RecSleepNet":
    """The published network in ``folder``; InputError, which names the part, if it is missing or damaged."""
    if not any(folder.glob("*.index")):
        raise InputError(f"{folder} holds no TensorFlow 1 checkpoint (*.index): name another folder.")
    try:
        import tensorflow as tf
    except ImportError:
        raise InputError(f"{folder} is a TensorFlow 1 checkpoint: install tensorflow to read it.") from None
    prefix = _checkpoint_prefix(folder)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        variables = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{prefix} cannot be read as a TensorFlow 1 checkpoint ({str(error).splitlines()[0]}): fetch it again."
        ) from None
    from recsleep.model import RecSleepNet

    network = RecSleepNet()

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in variables:
            raise InputError(
                f"the checkpoint {prefix} has no variable {name}, so it is not a RecSleepNet: name another."
            )
        if tuple(variables[name]) != shape:
            raise InputError(
                f"the checkpoint {prefix} is not the published RecSleepNet, because {name} has the shape "
                f"{tuple(variables[name])}, not {shape}: name another."
            )
        try:
            return reader.get_tensor(name)
        except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the checkpoint {prefix} is damaged at {name} ({str(error).splitlines()[0]}): fetch it again."
            ) from None

    encoder, lstm, head = network.encoder, network.lstm, network.head
    convolutions = zip(
        ("conv1d_1", "conv1d_2_1", "conv1d_2_2", "conv1d_2_3", "rec_2_1", "rec_2_2"),
        (encoder.convolution, *encoder.block.forward_convolutions, *encoder.block.backward_convolutions),
        strict=True,
    )
    for name, convolution in convolutions:
        steps, channels, filters = convolution.kernel.shape
        convolution.kernel.assign(read(f"cnn/{name}/conv2d/kernel", (steps, 1, channels, filters))[:, 0])
    features, gates = lstm.kernel.shape
    kernel = read(f"{_LSTM}/kernel", (features + lstm.units, gates))
    lstm.kernel.assign(kernel[:features])
    lstm.cell.kernel.assign(kernel[features:])
    lstm.bias.assign(read(f"{_LSTM}/bias", (gates,)))
    for gate, variable in zip("ifo", (lstm.cell.peephole_i, lstm.cell.peephole_f, lstm.cell.peephole_o), strict=True):
        variable.assign(read(f"{_LSTM}/w_{gate}_diag", (lstm.units,)))
    head.kernel.assign(read(f"{_HEAD}/kernel", tuple(head.kernel.shape)))
    head.bias.assign(read(f"{_HEAD}/bias", tuple(head.bias.shape)))
    return network


def checkpoint_data(folder: Path) -> Path:
    """The file with the weights of the TensorFlow 1 checkpoint in ``folder``."""
    prefix = _checkpoint_prefix(folder)
    return min(path for path in folder.iterdir() if path.name.startswith(f"{prefix.name}.data-"))


def _checkpoint_prefix(folder: Path) -> Path:
    """The checkpoint in ``folder``. Its ``checkpoint`` file may name one of several; paths in it are not followed."""
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if len(prefixes) > 1 and (folder / "checkpoint").is_file():
        text = (folder / "checkpoint").read_text(encoding="utf-8", errors="replace")
        named = text.partition('model_checkpoint_path: "')[2].partition('"')[0].replace("\\", "/").rsplit("/", 1)[-1]
        prefixes = [prefix for prefix in prefixes if prefix.name == named]
    if len(prefixes) != 1:
        raise InputError(
            f"{folder} holds several checkpoints (*.index), and its checkpoint file names none of them: keep only one."
        )
    return prefixes[0]
