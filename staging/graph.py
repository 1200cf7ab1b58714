"""Make an ONNX graph node by node; :mod:`recsleep.onnx` and :mod:`synth.onnx` write networks as such graphs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.terms import InputError

OPSET, IR_VERSION = 18, 8
"""The versions of ONNX 1.13, which every ONNX Runtime of recent years reads."""

LARGEST = 2**31 - 2**20
"""The most bytes of a graph's constants: an ONNX file has at most 2 GiB, of which this leaves some for the nodes."""

Shapes = Mapping[str, Sequence[int | str] | None]
"""Shapes of inputs or outputs by name; a word means any size, and None a shape that follows from other shapes."""


class Graph:
    """A graph with float32 inputs and outputs, whose nodes and constants get unique names.

    Args:
        name: the name of the graph, with which those names begin.
        within: the graph in which a node will hold this graph, if any.

    Attributes:
        proto: the graph in ONNX's own form.
    """

    def __init__(self, name: str, within: "Graph | None" = None) -> None:
        from onnx import ModelProto

        # The graph is made inside the model, because copying a large network's graph would take gigabytes.
        self._model = ModelProto(ir_version=IR_VERSION)
        self.name, self.proto = name, self._model.graph
        self._whole, self._bytes = within or self, 0
        self.proto.name = name

    def constant(self, value: Any) -> str:
        """Add an array or a number as a constant, and return its name.

        Raises:
            InputError: the graph becomes larger than a file can be.
        """
        from onnx import helper

        array = np.asarray(value)
        self._whole._bytes += array.nbytes
        if self._whole._bytes > LARGEST:
            raise InputError(
                f"this {self._whole.name} is too large for an ONNX file, which holds at most 2 GiB: train a smaller "
                "one."
            )
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        name = f"{self.name}_constant_{len(self.proto.initializer)}"
        self.proto.initializer.add(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())
        return name

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node, and return the name of its first output; names in ``outputs`` are used if given."""
        from onnx import helper

        outputs = outputs or [f"{self.name}_{operator}_{len(self.proto.node)}"]
        self.proto.node.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def between(self, inputs: Shapes, outputs: Shapes) -> Any:
        """The graph in ONNX's own form, completed by its inputs and outputs."""
        from onnx import TensorProto, helper

        for ends, shapes in ((self.proto.input, inputs), (self.proto.output, outputs)):
            ends.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
        return self.proto

    def file(self, inputs: Shapes, outputs: Shapes, about: Mapping[str, Any]) -> bytes:
        """The content of an ONNX file of the graph with these inputs and outputs.

        Its metadata are ``about``, JSON values by name.
        """
        from onnx import checker, helper

        self.between(inputs, outputs)
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        helper.set_model_props(self._model, {name: json.dumps(value) for name, value in about.items()})
        content = self._model.SerializeToString()
        checker.check_model(content)
        return content
