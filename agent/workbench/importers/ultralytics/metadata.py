"""What Ultralytics writes beside the graphs it exports (`metadata_props`; since version 8.0)."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from agent.workbench.errors import BadSource
from agent.workbench.importers.class_names import MAX_NAMES, is_class_name
from agent.workbench.importers.graphs.onnx_file import metadata_of

MAX_LITERAL = 1 << 20
"""Characters of a Python literal that are parsed; 10,000 names have fewer."""
EXPORT_AGAIN = "export it again with: yolo export model=BEST.pt format=onnx"


@dataclass(frozen=True)
class UltralyticsMetadata:
    """What is read of it."""

    task: str
    """detect, segment, semantic, classify, pose, obb, ..."""
    names: list[str]
    """Of the classes, by index."""
    width: int
    """Of the tensor, in pixels."""
    height: int
    version: tuple[int, ...]
    """Of Ultralytics; empty where it does not say."""
    head: str
    """Class of the network's last module; empty in older exports."""
    description: str


def is_export(model: onnx.ModelProto) -> bool:
    """Whether `model` says that Ultralytics wrote it: `stride` is a key that hardly anybody else has."""
    return {"task", "names", "stride"} <= metadata_of(model).keys()


def read_metadata(source: Path, model: onnx.ModelProto) -> UltralyticsMetadata:
    """The metadata of `model`.

    Raises:
        BadSource: it has none, or not such as Ultralytics writes.
    """
    metadata = metadata_of(model)
    missing = [key for key in ("task", "names", "imgsz") if key not in metadata]
    if missing:
        raise BadSource(
            source,
            f"it does not hold what Ultralytics writes beside its graphs ({', '.join(missing)}); YOLOv5's own "
            f"repository and tools that rewrite graphs leave it out",
            f"{EXPORT_AGAIN} (Ultralytics 8 or later), or use: edge-agent package onnx",
        )
    height, width = _sides(source, metadata["imgsz"])
    return UltralyticsMetadata(
        task=metadata["task"],
        names=_names(source, metadata["names"]),
        width=width,
        height=height,
        version=tuple(int(part) for part in re.findall(r"[0-9]{1,6}", metadata.get("version", ""))[:3]),
        head=metadata.get("head", ""),
        description=metadata.get("description", "").strip(),
    )


def _names(source: Path, text: str) -> list[str]:
    """`{0: 'scratch', 1: 'dent'}` as a list."""
    names = _literal(source, "names", text)
    if isinstance(names, list):
        names = dict(enumerate(names))
    if (
        not isinstance(names, dict)
        or not 0 < len(names) <= MAX_NAMES
        or set(names) != set(range(len(names)))
        or not all(isinstance(name, str) and is_class_name(name) for name in names.values())
    ):
        raise BadSource(source, "its metadata 'names' does not name classes 0, 1, 2, ...", EXPORT_AGAIN)
    return [names[index] for index in range(len(names))]


def _sides(source: Path, text: str) -> tuple[int, int]:
    """`[480, 640]` (height, width) or `640`."""
    size = _literal(source, "imgsz", text)
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise BadSource(source, "its metadata 'imgsz' is no size", EXPORT_AGAIN)
    return sides[0], sides[1]


def _literal(source: Path, key: str, text: str) -> Any:
    """A Python literal: evaluated as data, never run."""
    try:
        if len(text) <= MAX_LITERAL:
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise BadSource(source, f"its metadata '{key}' cannot be read", EXPORT_AGAIN)
