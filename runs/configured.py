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
