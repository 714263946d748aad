"""The graph that everybody runs, its packages, and the picture that everybody inspects.

A network of six convolutions on 256 x 256 floats, about 9 ms on two cores: small enough that serving shows, large
enough to be like those that are served. Its weights are drawn at random, from a fixed seed: what it says means nothing,
but it says the same to everybody, and that is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from agent.backends.base import BackendSettings
from agent.packages.manifest import (
    MANIFEST_NAME,
    AgentPreprocessing,
    Decision,
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
from agent.packages.package import describe_file, read_package
from agent.pipeline import Pipeline

Task = Literal["classification", "segmentation"]

SIDE = 256
"""Pixels a side of the graph's input."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = ((32, 2), (64, 1), (64, 2), (128, 1), (128, 1), (128, 1))
"""Channels and stride of each convolution."""
INPUT, SCORE, ANOMALY_MAP = "input", "score", "anomaly_map"
THRESHOLD = 0.5
PIXEL_THRESHOLD = 0.96
"""A tenth of the picture reaches it: a mask without any anomaly would be painted by a short cut."""
SMALL = (640, 480)
"""Of the self-test's image."""


def picture(width: int, height: int) -> NDArray[np.uint8]:
    """The same scene at any size: uint8, (height, width, 3), RGB."""
    coarse = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def conv_model() -> onnx.ModelProto:
    """`input` float32 (1, 3, 256, 256) -> `anomaly_map` float32 (1, 1, 64, 64) and `score` float32 (), both in 0..1."""
    random = np.random.default_rng(0)
    constants, nodes, tensor, channels = [], [], INPUT, 3
    for index, (wanted, stride) in enumerate(LAYERS):
        constants.append(_kernel(random, f"kernel{index}", wanted, channels, 3))
        nodes.append(
            helper.make_node(
                "Conv", [tensor, f"kernel{index}"], [f"sums{index}"], pads=[1] * 4, strides=[stride, stride]
            )
        )
        tensor, channels = f"features{index}", wanted
        nodes.append(helper.make_node("Relu", [f"sums{index}"], [tensor]))
    constants.append(_kernel(random, "to_map", 1, channels, 1))
    nodes += [
        helper.make_node("Conv", [tensor, "to_map"], ["raw_map"]),
        helper.make_node("Sigmoid", ["raw_map"], [ANOMALY_MAP]),
        helper.make_node("ReduceMax", [ANOMALY_MAP], [SCORE], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(ANOMALY_MAP, TensorProto.FLOAT, [1, 1, SIDE // 4, SIDE // 4]),
            helper.make_tensor_value_info(SCORE, TensorProto.FLOAT, []),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _kernel(random: np.random.Generator, name: str, wanted: int, channels: int, side: int) -> onnx.TensorProto:
    # Scaled so that what goes through six layers neither dies out nor overflows.
    weights = random.standard_normal((wanted, channels, side, side)) * np.sqrt(2 / (channels * side * side))
    return numpy_helper.from_array(weights.astype(np.float32), name)


@dataclass(frozen=True)
class Package:
    """A package of the graph."""

    folder: Path
    task: Task

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"


def make_packages(folder: Path) -> dict[Task, Package]:
    """Writes a package of either kind."""
    graph = conv_model().SerializeToString(deterministic=True)
    return {task: _make_package(folder / task, task, graph) for task in ("classification", "segmentation")}


def _make_package(folder: Path, task: Task, graph: bytes) -> Package:
    """A package whose preprocessing is the agent's, for images of any size."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(graph)
    (folder / "small.rgb").write_bytes(picture(*SMALL).tobytes())
    files = [_listed(folder, "model.onnx", OnnxModel()), _listed(folder, "small.rgb")]
    segmentation = task == "segmentation"
    manifest = Manifest(
        format_version=1,
        model=Identity(name=f"benchmark {task}", version="1.0.0"),
        task=task,
        image=ImageSize(*SMALL, any_size=True),
        preprocessing=AgentPreprocessing(tensor=INPUT, width=SIDE, height=SIDE, mean=list(MEAN), std=list(STD)),
        outputs=Outputs(score=SCORE, anomaly_map=ANOMALY_MAP if segmentation else None),
        decision=Decision(threshold=THRESHOLD, pixel_threshold=PIXEL_THRESHOLD),
        labels=[Label("background"), Label("anomaly")] if segmentation else [],
        files=files,
        self_test=[SelfTestImage("small.rgb", *SMALL, score=0.0, is_anomalous=False)],
    )
    # What the self-test expects is what this very package answers, so it has to exist before.
    _write(folder, manifest, manifest.self_test)
    answer = Pipeline(read_package(folder), BackendSettings()).detect(picture(*SMALL))
    expected = msgspec.structs.replace(
        manifest.self_test[0],
        score=answer.score,
        is_anomalous=answer.is_anomalous,
        areas={region.name: region.area for region in answer.regions},
    )
    _write(folder, manifest, [expected])
    return Package(folder, task)


def _write(folder: Path, manifest: Manifest, tests: Sequence[SelfTestImage]) -> None:
    content = write_manifest(msgspec.structs.replace(manifest, self_test=list(tests)))
    (folder / MANIFEST_NAME).write_bytes(content)


def _listed(folder: Path, name: str, runtime: OnnxModel | None = None) -> PackageFile:
    size, sha256 = describe_file(folder, name)
    return PackageFile(name, size, sha256, runtime)
