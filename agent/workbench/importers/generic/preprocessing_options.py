"""How a graph's image is prepared, from what was asked for, what the graph says, and what is usual."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx

from agent.packages.manifest import AgentPreprocessing, GraphPreprocessing, Preprocessing
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.graphs.image_input import ImageInput, Layout, first_constants

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]
"""Of the ImageNet training images, RGB in 0..1: what torchvision's and timm's weights are trained with."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]
Resize = Literal["stretch", "letterbox", "crop"]


@dataclass(frozen=True)
class PreprocessingOptions:
    """What was asked for; None or empty where nothing was."""

    size: tuple[int, int] | None = None
    """Width and height of the tensor."""
    layout: Layout | None = None
    channels: Literal["RGB", "BGR"] | None = None
    scale: float | None = None
    mean: tuple[float, ...] = ()
    """One number, for all channels, or three; as `std`."""
    std: tuple[float, ...] = ()
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    resize: Resize | None = None
    shorter_side: int | None = None

    def given(self) -> list[str]:
        """The options that were given, but for size and layout."""
        values = {name: value for name, value in vars(self).items() if name not in ("size", "layout")}
        return [f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None and value != ()]


def preprocessing_for(
    source: Path, model: onnx.ModelProto, image: ImageInput, wanted: PreprocessingOptions
) -> tuple[Preprocessing, list[str]]:
    """The preprocessing for `image`, and a sentence for each thing guessed.

    Raises:
        SettingOutOfRange: an option contradicts the graph or another option, or is missing.
        BadSource: the graph is of a size that no package has.
    """
    if _takes_the_camera(image) and wanted.size is None:
        if wanted.given():
            raise SettingOutOfRange(
                wanted.given()[0],
                "given",
                "left out where the graph takes the camera's image itself, or given with --size WxH",
            )
        note = f"The graph takes the camera's image itself: {image.name} is uint8, of any size (--size WxH: resized)."
        return GraphPreprocessing(tensor=image.name), [note]

    width, height = _size(image, wanted.size)
    if max(width, height) > 4096:
        raise BadSource(source, f"its input has {width}x{height} pixels", "export it for at most 4096 a side")
    scale, mean, std, notes = _normalisation(model, image, wanted)
    resize = wanted.resize or "stretch"
    if wanted.shorter_side is not None and (resize != "crop" or wanted.shorter_side < max(width, height)):
        allowed = f"at least {max(width, height)}, and given with --resize crop"
        raise SettingOutOfRange("--shorter-side", wanted.shorter_side, allowed)
    interpolation = wanted.interpolation or "bilinear"
    antialias = wanted.antialias is not False
    if not antialias and interpolation not in ("bilinear", "bicubic"):
        raise SettingOutOfRange("--no-antialias", "given", "left out: only bilinear and bicubic can do without")
    preprocessing = AgentPreprocessing(
        tensor=image.name,
        width=width,
        height=height,
        layout=image.layout,
        dtype=image.dtype,
        channels=wanted.channels or "RGB",
        interpolation=interpolation,
        antialias=antialias,
        resize=resize,
        shorter_side=wanted.shorter_side,
        scale=scale,
        mean=mean,
        std=std,
    )
    return preprocessing, [_resizing(preprocessing), *notes]


def _takes_the_camera(image: ImageInput) -> bool:
    return image.dtype == "uint8" and image.layout == "NHWC" and image.width is None and image.height is None


def _size(image: ImageInput, wanted: tuple[int, int] | None) -> tuple[int, int]:
    fixed = (image.width, image.height)
    if wanted is None:
        if image.width is None or image.height is None:
            raise SettingOutOfRange(
                "--size", "not given", "the WIDTHxHEIGHT that the model was trained with: the graph takes any"
            )
        return image.width, image.height
    if any(side not in (None, asked) for side, asked in zip(fixed, wanted, strict=True)):
        sides = "x".join("any" if side is None else str(side) for side in fixed)
        raise SettingOutOfRange("--size", f"{wanted[0]}x{wanted[1]}", f"left out: the graph takes {sides}")
    return wanted


def _normalisation(
    model: onnx.ModelProto, image: ImageInput, wanted: PreprocessingOptions
) -> tuple[float, list[float], list[float], list[str]]:
    """Scale, mean and std, and what was guessed of them."""
    if image.dtype == "uint8":
        if wanted.scale is not None or wanted.mean or wanted.std:
            raise SettingOutOfRange(
                "--scale, --mean or --std", "given", f"left out: {image.name} is uint8 and takes pixels as they are"
            )
        identity = AgentPreprocessing(tensor="-", width=1, height=1)
        return identity.scale, identity.mean, identity.std, []
    scale, mean, std, why = _usual(model, image)
    notes = []
    if wanted.scale is None or not wanted.mean or not wanted.std:
        shown = f"scale {scale:.6g}" if wanted.scale is None else ""
        shown += "" if wanted.mean else f" mean {_numbers(mean)}"
        shown += "" if wanted.std else f" std {_numbers(std)}"
        notes.append(f"Normalised with {shown.strip()}: {why} (--scale, --mean, --std).")
    mean, std = _three("--mean", wanted.mean) or mean, _three("--std", wanted.std) or std
    if any(value <= 0 for value in std):
        raise SettingOutOfRange("--std", _numbers(std), "above 0 in every channel")
    if image.channels == 1 and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise SettingOutOfRange(
            "--mean and --std", f"{_numbers(mean)} and {_numbers(std)}", "one number: it takes grey"
        )
    return (scale if wanted.scale is None else wanted.scale), mean, std, notes


def _usual(model: onnx.ModelProto, image: ImageInput) -> tuple[float, list[float], list[float], str]:
    first = first_constants(model, image.name)
    if first is not None:
        operator, values = first
        # Means of 0..1 are fractions; those of 0..255, and a division by 255, want the pixels as they are.
        scale = 1.0 if max(values) > 1.5 else 1 / 255
        return (
            scale,
            [0.0] * 3,
            [1.0] * 3,
            f"the graph starts with {operator} by {_numbers(values)}, so it does the rest",
        )
    if image.channels == 1:
        return 1 / 255, [0.0] * 3, [1.0] * 3, "the usual for grey"
    return 1 / 255, IMAGENET_MEAN, IMAGENET_STD, "ImageNet's, the usual for pretrained networks"


def _three(option: str, numbers: tuple[float, ...]) -> list[float]:
    if len(numbers) not in (0, 1, 3):
        raise SettingOutOfRange(option, _numbers(numbers), "one number, or three with commas between")
    return list(numbers) * 3 if len(numbers) == 1 else list(numbers)


def _resizing(made: AgentPreprocessing) -> str:
    how = {
        "stretch": "stretched to",
        "letterbox": f"letterboxed (grey {made.padding}) to",
        "crop": f"made {made.shorter_side or 'as small as covers it'} at the shorter side and cropped to",
    }[made.resize]
    smoothing = ", antialiased" if made.antialias else ", without antialias"
    return (
        f"Images are {how} {made.width}x{made.height}, {made.interpolation}{smoothing}, {made.channels}, "
        f"{made.layout} {made.dtype} (--resize, --interpolation, --no-antialias, --channels)."
    )


def _numbers(values: object) -> str:
    return ",".join(f"{value:g}" for value in values)  # type: ignore[attr-defined]
