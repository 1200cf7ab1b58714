"""Layers and models that describe themselves by what they were made with."""

import inspect
from typing import Any

import keras


class Configured(keras.layers.Layer):
    """A layer that keeps each argument of its constructor as an attribute of the same name: its configuration."""

    def get_config(self) -> dict[str, Any]:
        parameters = inspect.signature(type(self).__init__).parameters
        arguments = {name: getattr(self, name) for name in parameters if name not in ("self", "kwargs")}
        return {**super().get_config(), **arguments}
