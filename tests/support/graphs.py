"""Networks of a few nodes, as trainers export them: their arithmetic fits into a line of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from agent.backends.base import BackendSettings
from agent.images.detection import Detection
from agent.packages.manifest import Identity, ImageSize
from agent.pipeline import Pipeline
from agent.workbench.packaging.draft import Draft
from agent.workbench.packaging.writer import Evidence, write_package

Shape = Sequence[int | str]


def network(
    file: Path,
    nodes: Sequence[onnx.NodeProto],
    outputs: dict[str, Shape],
    *,
    shape: Shape = (1, 3, 48, 64),
    name: str = "input",
    dtype: int = TensorProto.FLOAT,
    output_dtype: int = TensorProto.FLOAT,
    constants: dict[str, ArrayLike] | None = None,
    metadata: dict[str, str] | None = None,
    opset: int = 18,
) -> Path:
    """Writes a checked graph of one image input; constants that are no arrays of their own type become float32."""
    arrays = {key: np.asarray(value) for key, value in (constants or {}).items()}
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, dtype, list(shape))],
        [helper.make_tensor_value_info(output, output_dtype, list(size)) for output, size in outputs.items()],
        [
            numpy_helper.from_array(value.astype(np.float32) if value.dtype == np.float64 else value, key)
            for key, value in arrays.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, file)
    return file


def classifier(
    file: Path, weights: ArrayLike, bias: ArrayLike, activation: str | None = None, shape: Shape = (1, 3, 48, 64)
) -> Path:
    """Mean of each channel, times `weights` ((3, K)), plus `bias` ((K,)), through `activation`."""
    last = [helper.make_node(activation, ["logits"], ["output"])] if activation else []
    return network(
        file,
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits" if activation else "output"]),
            *last,
        ],
        {"output": [shape[0], np.shape(weights)[1]]},
        shape=shape,
        constants={"weights": weights, "bias": bias},
    )


def pixel_network(
    file: Path,
    weights: ArrayLike,
    bias: ArrayLike,
    activation: str | None = None,
    shape: Shape = (1, 3, 48, 64),
    output: str = "output",
) -> Path:
    """Of each pixel its channels times `weights` ((C, 3)), plus `bias` ((C,)), through `activation`."""
    kernel = np.asarray(weights, np.float32)[:, :, None, None]
    attributes = {"axis": 1} if activation == "Softmax" else {}
    last = [helper.make_node(activation, ["logits"], [output], **attributes)] if activation else []
    return network(
        file,
        [helper.make_node("Conv", ["input", "weights", "bias"], ["logits" if activation else output]), *last],
        {output: [shape[0], len(kernel), *shape[2:]]},
        shape=shape,
        constants={"weights": kernel, "bias": bias},
    )


def picture(seed: int = 0, width: int = 64, height: int = 80) -> np.ndarray:
    """Soft colour gradients with noise: uint8, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = np.stack([rows, columns, 1 - rows * columns], axis=-1) * 200
    return np.clip(planes + rng.normal(0, 20, planes.shape), 0, 255).astype(np.uint8)


def answer(draft: Draft, pixels: np.ndarray, folder: Path) -> Detection:
    """What a device answers: the draft is packaged, verified, opened and asked."""
    height, width = pixels.shape[:2]
    package = write_package(
        draft,
        Identity("network", "1.0.0"),
        ImageSize(width, height),
        lambda _: Evidence([("one", pixels)]),
        folder / "package",
    )
    return Pipeline(package, BackendSettings(threads=1)).detect(pixels)
