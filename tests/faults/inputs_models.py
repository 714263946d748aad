"""Models that rows A need besides those of the shared agent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import AgentProcess, names, wait_for


@contextlib.contextmanager
def also_running(agent: AgentProcess, component: str, package: Path) -> Iterator[None]:
    """One more model on the shared agent, for the length of the block."""
    agent.run_model(component, package)
    try:
        yield
    finally:
        stub = agent.stub()
        stub.StopModel(wire.StopModelRequest(model_component=component))
        agent.remove(component)
        wait_for(f"{component} to be gone", lambda: component not in names(stub))


def table_model(values: Sequence[float]) -> onnx.ModelProto:
    """`image` uint8 (1, H, W, 3) -> `score` float32 (1,) and `map` float32 (1, 1, 1, 2).

    Red of the first pixel picks the score from `values`, its green the map's first element, the other being 0; numbers
    beyond the table pick the last value.
    """
    constants = [
        numpy_helper.from_array(np.array(values, np.float32), "values"),
        numpy_helper.from_array(np.array(len(values) - 1, np.int64), "last"),
        numpy_helper.from_array(np.array([0, 0, 0], np.int64), "starts"),
        numpy_helper.from_array(np.array([1, 1, 2], np.int64), "ends"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
        numpy_helper.from_array(np.array([1, 1, 1, 1], np.int64), "one_pixel"),
        numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "nothing"),
    ]
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["first"]),
        helper.make_node("Cast", ["first"], ["numbers"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["numbers", "two"], ["red_and_green"]),
        helper.make_node("Min", ["red_and_green", "last"], ["picks"]),
        helper.make_node("Gather", ["values", "picks"], ["picked"]),
        helper.make_node("Split", ["picked"], ["score", "green"], num_outputs=2),
        helper.make_node("Reshape", ["green", "one_pixel"], ["pixel"]),
        helper.make_node("Concat", ["pixel", "nothing"], ["map"], axis=3),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])
    outputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, 1, 2]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
    ]
    graph = helper.make_graph(nodes, "table", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model
