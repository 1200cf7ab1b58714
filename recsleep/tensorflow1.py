"""Trained folds: our own model folders, and the TensorFlow-1 checkpoints of the published RecSleepNet."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data.terms import InputError
from recsleep.model import RecSleepNet
from runs import saved
from runs.resumable import PROGRESS
from runs.saved import METADATA

_LSTM = "rnn/rnn/multi_rnn_cell/cell_0/lstm_cell"
_HEAD = "softmax_linear/dense"


@dataclass(frozen=True)
class SavedModel:
    """A network and what is known of its making.

    Attributes:
        network: with its weights.
        metadata: of our own models; empty for a reference checkpoint.
    """

    network: RecSleepNet
    metadata: dict[str, Any] = field(default_factory=dict)


def is_model(folder: Path) -> bool:
    """Whether ``folder`` holds a complete model of ours or a TensorFlow-1 checkpoint."""
    return (folder / METADATA).is_file() or any(folder.glob("*.index"))


def load_model(folder: Path, dtype: str = "float32") -> SavedModel:
    """Load the model in ``folder``, whichever of the two kinds it is.

    Args:
        folder: holds one fold's model.
        dtype: dtype policy of the network: ``float32`` or ``mixed_bfloat16``.

    Raises:
        InputError: there is none, or it is damaged: a file, variable or shape that is missing or wrong is named.
    """
    if (folder / METADATA).is_file():
        metadata = read_metadata(folder)
        return SavedModel(saved.load_model(folder, [RecSleepNet], dtype), metadata)
    if any(folder.glob("*.index")):
        return SavedModel(_load_tensorflow1(folder, dtype))
    if (folder / PROGRESS).is_dir():
        raise InputError(f"{folder} is a fold whose training has not finished: run the trainer again, it continues.")
    raise InputError(
        f"{folder} holds neither a model of this toolkit ({METADATA}) nor a TensorFlow-1 checkpoint (*.index)."
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a fold of ours, after a check that its files are the ones it describes.

    Raises:
        InputError: a file is missing, damaged or was exchanged, or it tells of no trained fold.
    """
    metadata = saved.read_metadata(folder)
    try:
        named = isinstance(metadata["db"], str) and isinstance(metadata["channel"], str)
        well_formed = named and all(type(s) is int for s in metadata["split"]["test"])
    except (KeyError, TypeError, IndexError):
        well_formed = False
    if not well_formed:
        raise InputError(f"{folder / METADATA} does not describe a trained fold: train it again in another folder.")
    return metadata


def _load_tensorflow1(folder: Path, dtype: str) -> RecSleepNet:
    try:
        import tensorflow as tf
    except ImportError:
        raise InputError(f"{folder} is a TensorFlow-1 checkpoint: install tensorflow to read it.") from None
    prefix = _checkpoint_prefix(folder)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        variables = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{prefix} is not a readable TensorFlow-1 checkpoint ({str(error).splitlines()[0]})."
        ) from None
    network = RecSleepNet(dtype=dtype)

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in variables:
            raise InputError(f"the checkpoint {prefix} has no variable {name}: it is not a RecSleepNet.")
        if tuple(variables[name]) != shape:
            raise InputError(f"the checkpoint {prefix}: {name} has shape {tuple(variables[name])}, {shape} is wanted.")
        try:
            return reader.get_tensor(name)
        except (tf.errors.OpError, LookupError, ValueError, RuntimeError) as error:
            raise InputError(f"the checkpoint {prefix} is damaged at {name} ({str(error).splitlines()[0]}).") from None

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
    """The file of weights of the TensorFlow-1 checkpoint in ``folder``."""
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
        raise InputError(f"{folder} holds several checkpoints (*.index), and its checkpoint file names none of them.")
    return prefixes[0]
