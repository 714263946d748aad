"""The model of `edge-agent doctor`'s trials.

python -m tests.support.trial_model        (writes it anew; a test shows that what is committed is fresh)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.checkout import ROOT

PATH = Path("agent/workbench/doctor/trial.onnx")


def trial_model() -> onnx.ModelProto:
    """`image` float32 (1, 3, 64, 64) -> `score` float32 (1,): 1 for ones; a convolution and a product."""
    constants = [
        numpy_helper.from_array(np.full((4, 3, 3, 3), 1 / 27, np.float32), "kernels"),
        numpy_helper.from_array(np.full((62, 8), 1 / 62, np.float32), "columns"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_but_batch"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernels"], ["features"]),
        helper.make_node("MatMul", ["features", "columns"], ["products"]),
        helper.make_node("ReduceMax", ["products", "all_but_batch"], ["score"], keepdims=0),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "trial", [image], [score], constants)
    # Opset 18 and IR 9: what TensorRT 8.6 and ONNX Runtime 1.16 read already.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="trial")
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    (ROOT / PATH).write_bytes(trial_model().SerializeToString(deterministic=True))
