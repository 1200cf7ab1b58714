"""Training RecSleepNet: the losses of its two phases, and the models that train with them.

The first phase has only the reconstruction loss. The second has the losses of stages, reconstruction and L2 together,
on windows of consecutive epochs of several nights side by side; the LSTM's state is carried from window to window.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from recsleep.model import EpochEncoder, RecSleepNet

if TYPE_CHECKING:
    from config import TrainingConfig


def stage_loss(logits: Any, stages: Any, weights: Any, class_weights: Sequence[float]) -> Any:
    """Class-weighted cross-entropy, summed over real epochs and divided by their number.

    By RecSleepNet's convention, the divisor is neither the sum of the class weights nor the padded size.

    Args:
        logits: (N, E, 5).
        stages: int (N, E).
        weights: (N, E), 1 for real epochs and 0 for padding.
        class_weights: one for each stage.
    """
    entropy = keras.losses.sparse_categorical_crossentropy(stages, logits, from_logits=True)
    weights = ops.cast(weights, entropy.dtype)
    weighted = entropy * ops.take(ops.convert_to_tensor(class_weights, dtype=entropy.dtype), stages) * weights
    return ops.sum(weighted) / ops.maximum(ops.sum(weights), 1)


def l2_loss(kernels: Sequence[Any], l2: float) -> Any:
    """``l2`` times the sum of half the squared norms of ``kernels``."""
    return l2 * sum(ops.sum(ops.square(kernel)) / 2 for kernel in kernels)


class ReconstructionTraining(keras.Model):
    """Phase 1: the encoder learns to reconstruct its middle feature, without labels."""

    def __init__(self, encoder: EpochEncoder, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """The reconstruction loss over a batch of windows."""
        signals = inputs["signals"]
        _, loss = self.encoder(ops.reshape(signals, (-1, signals.shape[-1])), training=training, reconstruct=True)
        return loss

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True) -> Any:
        return y_pred


class JointTraining(keras.Model):
    """Phase 2: the losses of stages, reconstruction and L2; the LSTM's state is carried from window to window.

    Args:
        network: the network to train.
        nights: the most nights that a batch holds.
        config: the weights of the loss's parts.
    """

    def __init__(self, network: RecSleepNet, nights: int, config: "TrainingConfig", **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.config = config
        state = {"shape": (nights, network.lstm_units), "initializer": "zeros", "trainable": False}
        self.hidden = self.add_weight(name="hidden", **state)
        self.cell = self.add_weight(name="cell", **state)
        self.entropy = keras.metrics.Mean(name="cross_entropy")
        self.reconstruction = keras.metrics.Mean(name="reconstruction")
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def call(self, inputs: dict[str, Any], training: bool = False) -> tuple[Any, Any]:
        """Logits (N, E, 5) and the reconstruction loss of a batch of windows."""
        nights = ops.shape(inputs["signals"])[0]
        carried = ops.cast(ops.logical_not(inputs["start"]), self.variable_dtype)[:, None]
        state = (self.hidden[:nights] * carried, self.cell[:nights] * carried)
        logits, state, reconstruction = self.network(
            {"signals": inputs["signals"], "state": state}, training=training, reconstruct=True
        )
        for variable, value in zip((self.hidden, self.cell), state, strict=True):
            # The last group may hold fewer nights; the rest of the state is not used any more then.
            variable.assign(ops.reshape(ops.concatenate([value, variable[nights:]]), variable.shape))
        return logits, reconstruction

    def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool = True) -> Any:
        logits, reconstruction = y_pred
        entropy = stage_loss(logits, y, sample_weight, self.config.class_weights)
        self.entropy.update_state(entropy)
        self.reconstruction.update_state(reconstruction)
        self.accuracy.update_state(y, logits, sample_weight)
        l2 = l2_loss(self.network.encoder.regularized_kernels, self.config.l2)
        return entropy + l2 + self.config.reconstruction_weight * reconstruction

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        # They were updated with the loss: Keras's own compiled metrics would need a single output.
        return self.get_metrics_result()


def adam(config: "TrainingConfig", clip_norm: float | None = None) -> keras.optimizers.Adam:
    """The optimizer of both phases; the joint phase clips the gradient's global norm to ``clip_norm``."""
    return keras.optimizers.Adam(
        config.learning_rate,
        beta_1=config.adam_beta_1,
        beta_2=config.adam_beta_2,
        epsilon=config.adam_epsilon,
        global_clipnorm=clip_norm,
    )
