"""An ONNX graph, made node by node: :mod:`recsleep.onnx` and :mod:`synth.onnx` write networks as such graphs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.terms import InputError

OPSET, IR_VERSION = 18, 8
"""Those of ONNX 1.13, which every ONNX Runtime of the last years reads."""

LARGEST = 2**31 - 2**20
"""Bytes of a graph's constants: ONNX's file format ends at 2 GiB, of which this leaves some for the nodes."""

Shapes = Mapping[str, Sequence[int | str] | None]
"""Of inputs or outputs by their names; a word stands for any size, and None for a shape that follows from others."""


class Graph:
    """A graph of float32 inputs and outputs, whose nodes and constants get names of their own.

    Args:
        name: of the graph, with which those names begin.
        within: the graph of whose nodes one will hold this graph, if any.

    Attributes:
        proto: the graph as ONNX has it.
    """

    def __init__(self, name: str, within: "Graph | None" = None) -> None:
        from onnx import ModelProto

        # What the graph holds is made in the model: a copy would cost gigabytes of a large network.
        self._model = ModelProto(ir_version=IR_VERSION)
        self.name, self.proto = name, self._model.graph
        self._whole, self._bytes = within or self, 0
        self.proto.name = name

    def constant(self, value: Any) -> str:
        """Add an array or a number as a constant; its name.

        Raises:
            InputError: the graph becomes larger than a file can be.
        """
        from onnx import helper

        array = np.asarray(value)
        self._whole._bytes += array.nbytes
        if self._whole._bytes > LARGEST:
            raise InputError(f"this {self._whole.name} is too large for an ONNX file, which holds at most 2 GiB.")
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        name = f"{self.name}_constant_{len(self.proto.initializer)}"
        self.proto.initializer.add(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())
        return name

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node; its (first) output's name, which may be given."""
        from onnx import helper

        outputs = outputs or [f"{self.name}_{operator}_{len(self.proto.node)}"]
        self.proto.node.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def between(self, inputs: Shapes, outputs: Shapes) -> Any:
        """The graph as ONNX has it, once it has these inputs and outputs, which are said last."""
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
