"""Layers and models whose configuration is the arguments of their constructors."""

import inspect
from typing import Any

import keras


class Configured(keras.layers.Layer):
    """A layer whose configuration is its constructor's arguments, which it keeps as attributes of the same names."""

    def get_config(self) -> dict[str, Any]:
        parameters = inspect.signature(type(self).__init__).parameters
        arguments = {name: getattr(self, name) for name in parameters if name not in ("self", "kwargs")}
        return {**super().get_config(), **arguments}

    def require_last_axis(self, input_shape: Any, argument: str, length: int, of: str = "features") -> None:
        """To be called in ``build`` where an ``argument`` alone decides the length of the input's last axis.

        Keras refuses the inputs of later calls by itself.

        Raises:
            ValueError: the last axis of ``input_shape`` has another length.
        """
        if input_shape[-1] not in (None, length):
            raise ValueError(
                f"{type(self).__name__}: {argument} is {length}, but the input has {input_shape[-1]} {of}: make them "
                "equal."
            )
        self.input_spec = keras.layers.InputSpec(axes={-1: length})
