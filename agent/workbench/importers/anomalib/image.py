"""How the image comes into an export of anomalib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from agent.packages.manifest import AgentPreprocessing, Cover, GraphPreprocessing, Preprocessing
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.anomalib.metadata import METADATA_NAME
from agent.workbench.importers.anomalib.source import EXPORT
from agent.workbench.importers.anomalib.transform import Transform, UnknownTransform, read_transform
from agent.workbench.importers.graphs import rewiring
from agent.workbench.importers.graphs.front import Front, front_of
from agent.workbench.importers.graphs.onnx_file import Tensor, inputs_of
from agent.workbench.importers.graphs.walk import Graph


@dataclass(frozen=True)
class Taken:
    """How the image comes in."""

    preprocessing: Preprocessing
    covers: Cover | None
    """Which part of it the model sees; None: all."""
    notes: Sequence[str]


def image_of(file: Path, model: onnx.ModelProto) -> Tensor:
    """The graph's input, (N, 3, height, width) of floats.

    Raises:
        BadSource: it takes something else.
    """
    tensors = inputs_of(model)
    if len(tensors) != 1 or len(tensors[0].shape) != 4 or tensors[0].shape[1] not in (3, None):
        listed = ", ".join(map(str, tensors)) or "nothing"
        raise BadSource(file, f"it takes {listed} and not one image of 3 channels", EXPORT)
    if tensors[0].dtype not in ("float32", "float16"):
        raise BadSource(file, f"it takes images as {tensors[0].dtype}", EXPORT)
    return tensors[0]


def as_built_in(
    file: Path, model: onnx.ModelProto, graph: Graph, image: Tensor, resize: Literal["agent", "graph"], paints: bool
) -> Taken:
    """1.0 to 2.7 take RGB, divided by 255, and resize, crop and normalise themselves.

    Where an image of any size can be fed, the agent resizes to what the graph would resize to, and leaves it nothing to
    do; only where that is not known, or not wanted (`resize`), `model` is changed to take the camera's image.

    Raises:
        BadSource: masks are painted, and it is not known which part of the image they show.
        SettingOutOfRange: the graph is to resize, and cannot.
    """
    height, width = image.shape[2:]
    front = front_of(graph, image.name, (width, height))
    if paints and not front.is_crop_known:
        raise BadSource(
            file,
            "it cuts a part out of the image that depends on the image's size, or reaches outside it",
            "export it with input_size=(height, width), or give --task classification for an answer without masks",
        )
    notes = _inner_notes(front)
    if image.shape[0] is not None and image.shape[0] > 1:
        notes.append(f"The graph takes {image.shape[0]} images at once: the agent gives it the same one each time.")
    if width and height:
        if resize == "graph":
            raise SettingOutOfRange("--resize", "graph", f"agent: this export takes {width}x{height} only")
        notes.append(f"The agent resizes images to {width}x{height}, which the export was made for.")
        return Taken(_by_agent(image, (width, height), front), front.covers, notes)
    if front.resized and resize == "agent":
        notes.append(
            f"The agent resizes images to {front.resized[0]}x{front.resized[1]} and smooths, as anomalib does in "
            f"training and validation. (--resize graph leaves it to the graph, which does not smooth.)"
        )
        return Taken(_by_agent(image, front.resized, front), front.covers, notes)
    notes.append("The graph is given images as the camera sends them, and resizes them itself.")
    return Taken(GraphPreprocessing(tensor=rewiring.take_image(model)), front.covers, notes)


def as_told(file: Path, model: onnx.ModelProto, image: Tensor, serialised: Mapping[str, Any]) -> Taken:
    """0.7 leaves all of it to the caller, as `serialised` says. Where that cuts the middle out of the resized image,
    `model` is changed to do so.

    Raises:
        BadSource: there is a step that this agent does not know, or the result is not what the graph takes.
    """
    metadata, size = file.with_name(METADATA_NAME), _fixed_size(file, image)
    try:
        transform = read_transform(serialised)
    except UnknownTransform as step:
        raise BadSource(
            metadata,
            f"its transform has a step that this agent does not know ({step})",
            "export the model with a transform of Resize, CenterCrop and Normalize",
        ) from None
    resized = transform.size or size
    made = transform.crop or resized
    if made != size or any(part > whole for part, whole in zip(size, resized, strict=True)):
        raise BadSource(
            metadata,
            f"its transform makes images of {made[0]}x{made[1]}, and the model takes {size[0]}x{size[1]}",
            "put the metadata.json beside the model that was exported with it",
        )
    notes = [f"The agent resizes images to {resized[0]}x{resized[1]} and normalises them as {METADATA_NAME} says."]
    if size == resized:
        return Taken(_by_transform(image.name, image, transform, resized), None, notes)
    left, top = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2  # as albumentations' CenterCrop
    covers = Cover(left / resized[0], top / resized[1], size[0] / resized[0], size[1] / resized[1])
    tensor = rewiring.crop_first(model, resized, left, top)
    notes.append(_crop_note(size, covers))
    return Taken(_by_transform(tensor, image, transform, resized), covers, notes)


def _fixed_size(file: Path, image: Tensor) -> tuple[int, int]:
    height, width = image.shape[2:]
    if not (width and height):
        raise BadSource(file, f"it takes {image}, and exports of 0.7 take images of one size", EXPORT)
    return width, height


def _by_agent(image: Tensor, size: tuple[int, int], front: Front) -> AgentPreprocessing:
    return AgentPreprocessing(
        tensor=image.name, width=size[0], height=size[1], dtype=_dtype(image), interpolation=front.interpolation
    )


def _by_transform(tensor: str, image: Tensor, transform: Transform, size: tuple[int, int]) -> AgentPreprocessing:
    return AgentPreprocessing(
        tensor=tensor,
        width=size[0],
        height=size[1],
        dtype=_dtype(image),
        interpolation=transform.interpolation,
        antialias=transform.interpolation not in ("bilinear", "bicubic"),  # OpenCV's do without
        scale=transform.scale,
        mean=list(transform.mean),
        std=list(transform.std),
    )


def _dtype(image: Tensor) -> Literal["float16", "float32"]:
    return "float16" if image.dtype == "float16" else "float32"


def _inner_notes(front: Front) -> list[str]:
    if front.inner is None:
        return []
    if front.covers is not None:
        return [_crop_note(front.inner, front.covers)]
    return [f"The model works at {front.inner[0]}x{front.inner[1]}."]


def _crop_note(inner: tuple[int, int], covers: Cover) -> str:
    return (
        f"The model works at {inner[0]}x{inner[1]}, cut out of the middle: what lies outside, "
        f"{1 - covers.width * covers.height:.0%} of the image, is never inspected and always background."
    )
