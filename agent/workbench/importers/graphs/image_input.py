"""How a graph wants its image: the one input, what its dimensions mean, and their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.graphs.onnx_file import DTYPES, Tensor, inputs_of

Layout = Literal["NCHW", "NHWC"]
Dtype = Literal["uint8", "float16", "float32"]
CHANNEL_AXIS: dict[Layout, int] = {"NCHW": 1, "NHWC": 3}


@dataclass(frozen=True)
class ImageInput:
    """The input of a graph that takes one image."""

    name: str
    dtype: Dtype
    layout: Layout
    channels: Literal[1, 3]
    """1 for grey, 3 for colour."""
    width: int | None
    """Pixels; None where the graph leaves it open."""
    height: int | None
    batch: int | None
    """None where the graph leaves it open."""


def image_input(source: Path, model: onnx.ModelProto, layout: Layout | None = None) -> ImageInput:
    """The image input of `model`; the layout follows from which dimension is 3 (or 1, for grey), unless it is given.

    Raises:
        BadSource: it has several inputs, or one that is no image.
        SettingOutOfRange: the layout has to be told, or the one told cannot be.
    """
    tensor = _only_input(source, model)
    dtype = next((known for known in DTYPES.values() if known == tensor.dtype), None)
    if dtype is None:
        raise BadSource(source, f"its input {tensor} is of a type no package has", "export it with a float32 input")
    if len(tensor.shape) != 4:
        raise BadSource(
            source,
            f"its input {tensor} is no image: it has {len(tensor.shape)} dimensions, not 4",
            "export it with an input of (batch, channels, height, width) or (batch, height, width, channels)",
        )
    found = _layout(tensor, layout)
    channels = tensor.shape[CHANNEL_AXIS[found]]
    if channels not in (None, 1, 3):
        raise BadSource(source, f"its input {tensor} has {channels} channels", "export it for RGB or grey images")
    height, width = tensor.shape[2:] if found == "NCHW" else tensor.shape[1:3]
    return ImageInput(
        name=tensor.name,
        dtype=dtype,  # type: ignore[arg-type]  # a value of DTYPES
        layout=found,
        channels=1 if channels == 1 else 3,
        width=width,
        height=height,
        batch=tensor.shape[0],
    )


def _only_input(source: Path, model: onnx.ModelProto) -> Tensor:
    inputs = inputs_of(model)
    if len(inputs) != 1:
        raise BadSource(
            source,
            f"it takes {len(inputs)} inputs ({', '.join(map(str, inputs)) or 'none'}), and the agent feeds one image",
            "export it with everything but the image made a constant",
        )
    return inputs[0]


def _layout(tensor: Tensor, wanted: Layout | None) -> Layout:
    for channels in ((3,), (1,)):
        possible = [layout for layout, axis in CHANNEL_AXIS.items() if tensor.shape[axis] in channels]
        if len(possible) == 1 and wanted is None:
            return possible[0]
    if wanted is None:
        raise SettingOutOfRange("--layout", "not given", f"NCHW or NHWC: the input {tensor} does not tell which it is")
    if tensor.shape[CHANNEL_AXIS[wanted]] not in (None, 1, 3):
        raise SettingOutOfRange("--layout", wanted, f"the other one: the input is {tensor}")
    return wanted


def first_constants(model: onnx.ModelProto, name: str) -> tuple[str, Sequence[float]] | None:
    """The operator that the input meets first and its constant operand, where it is Sub or Div by one or three numbers:
    such a graph normalises by itself. None otherwise."""
    reached = name
    for node in model.graph.node:
        if reached not in node.input:
            continue
        if node.op_type in ("Cast", "Transpose", "Identity"):
            reached = node.output[0]
            continue
        if node.op_type not in ("Sub", "Div") or node.input[0] != reached:
            return None
        values = constant(model, node.input[1])
        return (node.op_type, values) if values is not None and len(values) in (1, 3) else None
    return None


def constant(model: onnx.ModelProto, name: str) -> list[float] | None:
    """The values of a constant of the graph; None where `name` is none."""
    for initializer in model.graph.initializer:
        if initializer.name == name:
            return [float(value) for value in onnx.numpy_helper.to_array(initializer).ravel()[:1000]]
    for node in model.graph.node:
        if node.op_type == "Constant" and name in node.output and node.attribute[0].name == "value":
            return [float(value) for value in onnx.numpy_helper.to_array(node.attribute[0].t).ravel()[:1000]]
    return None
