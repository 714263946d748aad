"""Makes tiny model packages: graphs of a few nodes whose answers can be told in one's head.

The segmentation model calls dark anomalous: its anomaly map is 1 - brightness, its score the map's maximum, 0.5 the
threshold. The classification model's score is the red value of the first pixel: an image can carry a number, and the
answer tells which.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from agent.packages.manifest import (
    Decision,
    GraphPreprocessing,
    Identity,
    ImageSize,
    Label,
    Manifest,
    OnnxModel,
    Outputs,
    PackageFile,
    SelfTestImage,
    write_manifest,
)

WIDTH, HEIGHT = 96, 64
THRESHOLD = 0.5


def darkness_model() -> onnx.ModelProto:
    """`image` uint8 (1, H, W, 3) -> `map` float32 (1, 1, H, W), `score` float32 (1,)."""
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        numpy_helper.from_array(np.array([3], np.int64), "channels"),
        numpy_helper.from_array(np.array([1], np.int64), "map_channel"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_but_batch"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "channels"], ["brightness255"], keepdims=0),
        helper.make_node("Div", ["brightness255", "white"], ["brightness"]),
        helper.make_node("Sub", ["one", "brightness"], ["darkness"]),
        helper.make_node("Unsqueeze", ["darkness", "map_channel"], ["map"]),
        helper.make_node("ReduceMax", ["map", "all_but_batch"], ["score"], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, 1, "H", "W"]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
    ]
    return _model(nodes, outputs, constants)


def first_pixel_model() -> onnx.ModelProto:
    """`image` uint8 (1, H, W, 3) -> `score` float32 (1,): red of the first pixel / 255."""
    constants = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(np.array([0, 0, 0], np.int64), "starts"),
        numpy_helper.from_array(np.array([1, 1, 1], np.int64), "ends"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array([-1], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["first"]),
        helper.make_node("Cast", ["first"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["divided"]),
        helper.make_node("Reshape", ["divided", "flat"], ["score"]),
    ]
    return _model(nodes, [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])], constants)


def constant_score_model(value: float) -> onnx.ModelProto:
    """`image` -> `score`: `value` (NaN, infinity, ...) where the first pixel's red is above 0, else 0."""
    constants = [
        numpy_helper.from_array(np.array([value], np.float32), "value"),
        numpy_helper.from_array(np.array([0], np.float32), "zero"),
        *first_pixel_model().graph.initializer,
    ]
    nodes = [
        *list(first_pixel_model().graph.node)[:3],
        helper.make_node("Reshape", ["divided", "flat"], ["red"]),
        helper.make_node("Greater", ["red", "zero"], ["lit"]),
        helper.make_node("Where", ["lit", "value", "zero"], ["score"]),
    ]
    return _model(nodes, [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])], constants)


def _model(
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
    image: onnx.ValueInfoProto | None = None,
) -> onnx.ModelProto:
    if image is None:
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "H", "W", 3])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def first_channel_model(
    *, dtype: int = TensorProto.FLOAT, layout: str = "NCHW", batch: int | str = 1, height: int = 8, width: int = 12
) -> onnx.ModelProto:
    """`input` (batch, 3, height, width) or (batch, height, width, 3) -> `map` float32 (batch, 1, height, width), its
    first channel, and `score` float32 (batch,), the map's maximum: whoever feeds it sees what went in."""
    channel = 1 if layout == "NCHW" else 3
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([channel], np.int64), "channel"),
        numpy_helper.from_array(np.array([1], np.int64), "map_channel"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_but_batch"),
    ]
    nodes = [
        helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["float", "zero", "one", "channel"], ["first"]),
        helper.make_node("Squeeze", ["first", "channel"], ["flat"]),
        helper.make_node("Unsqueeze", ["flat", "map_channel"], ["map"]),
        helper.make_node("ReduceMax", ["map", "all_but_batch"], ["score"], keepdims=0),
    ]
    shape = [batch, 3, height, width] if layout == "NCHW" else [batch, height, width, 3]
    outputs = [
        helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 1, height, width]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch]),
    ]
    return _model(nodes, outputs, constants, helper.make_tensor_value_info("input", dtype, shape))


def boxes_model(rows: list[list[float]], *, height: int = 64, width: int = 64) -> onnx.ModelProto:
    """`input` float32 (1, 3, height, width) -> `boxes` float32 (1, N, 6): `rows` of left, top, right, bottom, score,
    class, whose scores are multiplied by the brightest value that went in."""
    values = np.array([rows], np.float32)
    return _boxes_model(values, np.broadcast_to(np.arange(6) == 4, values.shape), height, width)


def anchors_model(rows: list[list[float]], *, classes: int = 3, height: int = 64, width: int = 64) -> onnx.ModelProto:
    """As the boxes model, `boxes` being float32 (1, 4 + classes, N): centre x and y, width, height, scores."""
    left, top, right, bottom, score, number = np.array(rows, np.float32).T
    scores = np.where(np.arange(classes)[:, None] == number, score, 0)
    corners = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    values = np.concatenate([corners, scores]).astype(np.float32)[None]
    is_score = np.broadcast_to(np.arange(4 + classes)[:, None] >= 4, values.shape)
    return _boxes_model(values, is_score, height, width)


def _boxes_model(values: NDArray[np.float32], is_score: NDArray[np.bool_], height: int, width: int) -> onnx.ModelProto:
    constants = [
        numpy_helper.from_array(np.where(is_score, 0, values).astype(np.float32), "all_but_scores"),
        numpy_helper.from_array(np.where(is_score, values, 0).astype(np.float32), "scores"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_but_batch"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["input", "all_but_batch"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["scores", "brightest"], ["scaled"]),
        helper.make_node("Add", ["all_but_scores", "scaled"], ["boxes"]),
    ]
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, height, width])
    output = helper.make_tensor_value_info("boxes", TensorProto.FLOAT, list(values.shape))
    return _model(nodes, [output], constants, image)


def grey(value: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """An image of one grey value."""
    return np.full((height, width, 3), value, np.uint8)


def make_package(
    folder: Path,
    *,
    task: str = "segmentation",
    model: onnx.ModelProto | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
    any_size: bool = False,
    version: str = "1.0.0",
    arn: str = "arn:aws:lookoutvision:eu-central-1:123456789012:model/tiny/1",
    change: Callable[[Manifest], Manifest] | None = None,
) -> Path:
    """Writes a package; `change` may alter its manifest at the end."""
    folder.mkdir(parents=True)
    segmentation = task == "segmentation"
    if model is None:
        model = darkness_model() if segmentation else first_pixel_model()
    files = [_write(folder, "model.onnx", model.SerializeToString(), OnnxModel())]
    good = 255 if segmentation else 0
    files.append(_write(folder, "self-test/good.rgb", grey(good, width, height).tobytes()))
    manifest = Manifest(
        format_version=1,
        model=Identity(name="tiny", version=version, lookout_vision_model_arn=arn),
        task="segmentation" if segmentation else "classification",
        image=ImageSize(width, height, any_size),
        preprocessing=GraphPreprocessing(tensor="image"),
        outputs=Outputs(score="score", anomaly_map="map") if segmentation else Outputs(score="score"),
        decision=Decision(threshold=THRESHOLD),
        labels=[Label("background"), Label("anomaly")] if segmentation else [],
        files=files,
        self_test=[
            SelfTestImage(
                path="self-test/good.rgb",
                width=width,
                height=height,
                score=0.0,
                is_anomalous=False,
                areas={"background": 1.0} if segmentation else {},
            )
        ],
    )
    rewrite_manifest(folder, change(manifest) if change else manifest)
    return folder


def rewrite_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / "manifest.json").write_bytes(write_manifest(manifest))


def changed(manifest: Manifest, **fields: object) -> Manifest:
    return msgspec.structs.replace(manifest, **fields)


def _write(folder: Path, path: str, content: bytes, runtime: OnnxModel | None = None) -> PackageFile:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return PackageFile(path, len(content), hashlib.sha256(content).hexdigest(), runtime)


def slow_model(steps_per_value: int = 150) -> onnx.ModelProto:
    """As the first-pixel model, after work that grows with the first pixel's red: 255 takes about a second."""
    first = first_pixel_model()
    body = helper.make_graph(
        [
            helper.make_node("Sin", ["before"], ["after"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [128, 128]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [128, 128]),
        ],
    )
    constants = [
        *first.graph.initializer,
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(steps_per_value, np.int64), "steps_per_value"),
        numpy_helper.from_array(np.array([], np.int64), "scalar"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
        numpy_helper.from_array(np.ones((128, 128), np.float32), "work"),
    ]
    nodes = [
        *list(first.graph.node)[:3],
        helper.make_node("Cast", ["first"], ["red"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["red", "scalar"], ["value"]),
        helper.make_node("Mul", ["value", "steps_per_value"], ["steps"]),
        helper.make_node("Loop", ["steps", "yes", "work"], ["worked"], body=body),
        helper.make_node("ReduceMean", ["worked"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["divided", "flat"], ["score_alone"]),
        helper.make_node("Add", ["score_alone", "zero"], ["score"]),
    ]
    return _model(nodes, [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])], constants)


def add_file(folder: Path, path: str, content: bytes) -> PackageFile:
    """Writes a file into a package; the manifest has yet to list what this returns."""
    return _write(folder, path, content)


def zip_package(folder: Path, archive: Path, top: str = "") -> Path:
    """Zips a package's files, each below the folder `top` (\"\" or ending in a slash)."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                opened.write(path, top + path.relative_to(folder).as_posix())
    return archive


def number_product_model(size_per_value: int = 16) -> onnx.ModelProto:
    """As the first-pixel model, after one matrix product whose size grows with the first pixel's red.

    It is one of whole numbers, for which the runtime has no quick kernel: 255 takes longer than anybody waits.
    """
    first = first_pixel_model()
    constants = [
        *first.graph.initializer,
        numpy_helper.from_array(np.array([size_per_value], np.int64), "size_per_value"),
        numpy_helper.from_array(np.array([1], np.int64), "one_value"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
    ]
    nodes = [
        *list(first.graph.node)[:3],
        helper.make_node("Cast", ["first"], ["red"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["red", "flat"], ["value"]),
        helper.make_node("Mul", ["value", "size_per_value"], ["size"]),
        helper.make_node("Concat", ["size", "size"], ["sizes"], axis=0),
        helper.make_node("Expand", ["one_value", "sizes"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["float_sum"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float_sum", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["divided", "flat"], ["score_alone"]),
        helper.make_node("Add", ["score_alone", "zero"], ["score"]),
    ]
    return _model(nodes, [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])], constants)


def greedy_model(size: int) -> onnx.ModelProto:
    """As the first-pixel model, after filling `size` bytes with zeros, whichever the image."""
    first = first_pixel_model()
    first.graph.node[3].output[0] = "score_alone"
    constants = [
        *first.graph.initializer,
        numpy_helper.from_array(np.array([size // 4], np.int64), "values"),
    ]
    nodes = [
        *first.graph.node,
        helper.make_node("ConstantOfShape", ["values"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["score_alone", "zero"], ["score"]),
    ]
    return _model(nodes, [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1])], constants)
