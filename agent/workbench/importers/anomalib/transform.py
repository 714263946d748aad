"""The transform that anomalib 0.7 leaves to the caller: albumentations, serialised in `metadata.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.workbench.importers.graphs.front import Interpolation

INTERPOLATION: dict[int, Interpolation] = {0: "nearest", 1: "bilinear", 2: "bicubic", 3: "area", 4: "lanczos"}
"""OpenCV's numbers (https://docs.opencv.org/4.x/da/d54/group__imgproc__transform.html)."""
_NOTHING_TO_DO = frozenset({"ToTensorV2", "ToTensor", "NoOp"})


class UnknownTransform(Exception):
    """A step that this agent cannot do."""


@dataclass(frozen=True)
class Transform:
    """Resize to (width, height), cut the middle out, `(pixel * scale - mean) / std`."""

    size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    crop: tuple[int, int] | None = None
    """(width, height) of the middle part that is kept."""
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


def read_transform(serialised: Mapping[str, Any]) -> Transform:
    """What `albumentations.to_dict` wrote: Resize, CenterCrop, Normalize or ToFloat, in this order.

    Raises:
        UnknownTransform: there is a step of another kind; the message names it.
    """
    fields: dict[str, Any] = {}
    for step in _steps(serialised):
        name = str(step.get("__class_fullname__", "")).rpartition(".")[2]
        if name in _NOTHING_TO_DO:
            continue
        reader = _READERS.get(name)
        try:
            if reader is None or (name == "Resize" and fields):
                raise UnknownTransform(name)
            fields |= reader(step)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise UnknownTransform(name) from None
    return Transform(**fields)


def _steps(serialised: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    whole = serialised.get("transform")
    steps = whole.get("transforms") if isinstance(whole, dict) else None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise UnknownTransform("a list of steps is missing")
    return steps


def _resize(step: Mapping[str, Any]) -> dict[str, Any]:
    size = (int(step["width"]), int(step["height"]))
    return {"size": size, "interpolation": INTERPOLATION[int(step.get("interpolation", 1))]}


def _center_crop(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"crop": (int(step["width"]), int(step["height"]))}


def _normalize(step: Mapping[str, Any]) -> dict[str, Any]:
    mean, std = (tuple(float(value) for value in step[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(step)
    return {"scale": 1 / float(step.get("max_pixel_value", 255.0)), "mean": mean, "std": std}


def _to_float(step: Mapping[str, Any]) -> dict[str, Any]:
    return {"scale": 1 / float(step.get("max_value") or 255.0)}


_READERS = {"Resize": _resize, "CenterCrop": _center_crop, "Normalize": _normalize, "ToFloat": _to_float}
