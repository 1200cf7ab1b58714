"""An ONNX graph, made node by node: :mod:`recsleep.onnx` and :mod:`synth.onnx` write networks as such graphs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.terms import InputError

OPSET, IR_VERSION = 18, 8
"""Those of ONNX 1.13, which every ONNX Runtime of the last years reads."""

Shapes = Mapping[str, Sequence[int | str] | None]
"""Of inputs or outputs by their names; a word stands for any size, and None for a shape that the graph tells."""


class Graph:
    """The nodes and constants of a graph, float32, each with a name of its own.

    Args:
        name: of the graph, with which the names of its nodes begin.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        """Add a constant; its name."""
        from onnx import numpy_helper

        name = f"{self.name}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node; its (first) output's name, which may be given."""
        from onnx import helper

        outputs = outputs or [f"{self.name}_{operator}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def whole(self, inputs: Shapes, outputs: Shapes) -> Any:
        """The graph as ONNX has it, of these inputs and outputs."""
        from onnx import TensorProto, helper

        inputs, outputs = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
            for shapes in (inputs, outputs)
        )
        return helper.make_graph(self.nodes, self.name, inputs, outputs, self.constants)

    def file(self, inputs: Shapes, outputs: Shapes, about: Mapping[str, Any]) -> bytes:
        """The content of an ONNX file of the graph.

        Args:
            inputs, outputs: of the graph.
            about: the metadata, JSON values by name.

        Raises:
            InputError: the graph is larger than such a file can be.
        """
        from onnx import checker, helper

        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(self.whole(inputs, outputs), opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
        if model.ByteSize() > checker.MAXIMUM_PROTOBUF:
            raise InputError(f"a {self.name} of this size does not fit into an ONNX file, which holds at most 2 GB.")
        checker.check_model(model)
        return model.SerializeToString()
