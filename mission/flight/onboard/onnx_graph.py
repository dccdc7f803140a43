"""A policy as an ONNX graph, and that graph in onnxruntime; the extra `onnx` installs what both need.

It computes in float64 between float32 inputs and outputs. With a history it takes the observations of the control steps
before, and returns those for the next one. Shapes: B batch, n O entries of an observation with its history.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mission.flight.onboard.subject import Subject
from mission.learner import Layer
from mission.machine.extras import import_extra

OPSET = 17  # the first with LayerNormalization


def onnx_model(subject: Subject, notice: str) -> bytes:
    """Return the serialised model of a policy.

    Raises:
      MachineError: onnx is not installed.
    """
    onnx = import_extra("onnx", "mission-engine[onnx]", "mission export")
    graph = _Graph(onnx, [], [])
    history, single = subject.history, subject.single
    floats = onnx.TensorProto.FLOAT
    inputs = [onnx.helper.make_tensor_value_info("observation", floats, ["batch", single])]
    outputs = [onnx.helper.make_tensor_value_info("action", floats, ["batch", subject.actions])]
    stacked = "observation"
    if history > 1:
        earlier = ["batch", (history - 1) * single]
        inputs.append(onnx.helper.make_tensor_value_info("earlier", floats, earlier))
        outputs.append(onnx.helper.make_tensor_value_info("earlier_next", floats, earlier))
        stacked = graph.node("Concat", ["observation", "earlier"], axis=1)
        bounds = [graph.constant(np.array([value])) for value in (0, (history - 1) * single, 1)]
        graph.node("Slice", [stacked, *bounds], output="earlier_next")
    action = _network(graph, subject, graph.node("Cast", [stacked], to=onnx.TensorProto.DOUBLE))
    graph.node("Cast", [action], output="action", to=floats)
    made = onnx.helper.make_graph(graph.nodes, subject.phase.name, inputs, outputs, graph.constants, doc_string=notice)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(made, opset_imports=opsets, producer_name="mission-engine", ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Collects nodes and constants, and names them by their number."""

    def __init__(self, onnx: Any, nodes: list[Any], constants: list[Any]) -> None:
        self.onnx, self.nodes, self.constants = onnx, nodes, constants

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values: Any) -> str:
        """Append a constant and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def double(self, values: Any) -> str:
        """Append float32 numbers, which take half of the space, and return them as float64."""
        return self.node("Cast", [self.constant(np.asarray(values, np.float32))], to=self.onnx.TensorProto.DOUBLE)


def _network(graph: _Graph, subject: Subject, x: str) -> str:
    policy = subject.layers
    if policy.mean is not None:
        centred = graph.node("Sub", [x, graph.double(policy.mean)])
        scaled = graph.node("Div", [centred, graph.double(policy.std)])
        x = _within(graph, scaled, policy.most)
    for layer in policy.layers:
        x = _layer(graph, layer, policy.epsilon, x)
    return _within(graph, x, 1.0)


def _within(graph: _Graph, x: str, most: float) -> str:
    return graph.node("Clip", [x, graph.constant(np.float64(-most)), graph.constant(np.float64(most))])


def _layer(graph: _Graph, layer: Layer, epsilon: float, x: str) -> str:
    x = graph.node("Gemm", [x, graph.double(layer.kernel), graph.double(layer.bias)])
    if layer.scale is not None:
        weights = [graph.double(layer.scale), graph.double(layer.shift)]
        x = graph.node("LayerNormalization", [x, *weights], axis=-1, epsilon=epsilon)
    match layer.activation:
        case "relu":
            return graph.node("Relu", [x])
        case "tanh":
            return graph.node("Tanh", [x])
        case "silu":
            return graph.node("Mul", [x, graph.node("Sigmoid", [x])])
        case "elu":  # the operator Elu has no float64 in onnxruntime
            zero, one = graph.constant(np.float64(0.0)), graph.constant(np.float64(1.0))
            below = graph.node("Sub", [graph.node("Exp", [graph.node("Min", [x, zero])]), one])
            return graph.node("Where", [graph.node("Greater", [x, zero]), x, below])
    return x


def onnx_session(model: bytes) -> Any:
    """Return the model in onnxruntime, on one core.

    Raises:
      MachineError: onnxruntime is not installed.
    """
    runtime = import_extra("onnxruntime", "mission-engine[onnx]", "mission export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
