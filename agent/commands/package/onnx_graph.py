"""`edge-agent package onnx`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.package.numbers import finite, score

if TYPE_CHECKING:
    from agent.packages.manifest import Calibration
    from agent.workbench.importers.generic.output_reading import OutputOptions
    from agent.workbench.importers.generic.preprocessing_options import PreprocessingOptions
    from agent.workbench.packaging.draft import Draft

ROLES = ("score", "class_scores", "anomaly_map", "class_mask")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the .onnx file, or the folder that holds it")
    _add_preprocessing(parser.add_argument_group("the tensor; what the graph tells need not be given"))
    _add_outputs(parser.add_argument_group("the outputs; what is guessed is printed"))
    _add_decision(parser.add_argument_group("the decision"))


def _add_preprocessing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--size", metavar="WxH", help="of the tensor, where the graph leaves it open")
    group.add_argument("--layout", choices=["NCHW", "NHWC"], help="where the dimensions do not tell")
    group.add_argument("--channels", choices=["RGB", "BGR"], help="default: RGB")
    group.add_argument("--scale", type=finite, metavar="FACTOR", help="of pixels of 0..255 (default: 1/255)")
    group.add_argument("--mean", metavar="R,G,B", help="after scale; one number or three (default: ImageNet's)")
    group.add_argument("--std", metavar="R,G,B", help="after scale; one number or three (default: ImageNet's)")
    group.add_argument(
        "--interpolation",
        choices=["nearest", "bilinear", "bicubic", "area", "lanczos"],
        help="of the resizing (default: bilinear)",
    )
    group.add_argument(
        "--antialias", action=argparse.BooleanOptionalAction, help="as Pillow resizes; without: as OpenCV (default: on)"
    )
    group.add_argument("--resize", choices=["stretch", "letterbox", "crop"], help="to the size (default: stretch)")
    group.add_argument("--shorter-side", type=int, metavar="PIXELS", help="with --resize crop: before the crop")


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--task", choices=["classification", "segmentation"], help="default: whether there is a mask")
    group.add_argument("--score", metavar="OUTPUT", help="one number per image; with any of these four none is guessed")
    group.add_argument("--class-scores", metavar="OUTPUT", help="one number per class")
    group.add_argument("--anomaly-map", metavar="OUTPUT", help="one number per pixel")
    group.add_argument("--class-mask", metavar="OUTPUT", help="one number per class and pixel, or the class per pixel")
    group.add_argument("--activation", choices=["none", "sigmoid", "softmax"], help="what makes them probabilities")
    group.add_argument("--classes", metavar="NAMES", help="with commas between, or a text file with one name a line")
    group.add_argument(
        "--normal", action="append", default=[], metavar="NAME|INDEX", help="a normal class; may be given several times"
    )


def _add_decision(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--threshold", type=score, metavar="SCORE", help="anomalous from here on, 0..1 (default: 0.5)")
    group.add_argument("--pixel-threshold", type=finite, metavar="VALUE", help="of the anomaly map, in its unit")
    group.add_argument(
        "--calibration",
        metavar="HOW",
        help="linear:CENTER,RANGE: (raw - CENTER) / RANGE + 0.5; logistic:A,B[,MAX]: 1 / (1 + exp(A * raw + B))",
    )
    group.add_argument(
        "--combination",
        choices=["class", "mask", "class and mask", "class or mask"],
        help="of score and mask to the verdict (default: class, the score alone)",
    )


def draft(arguments: argparse.Namespace) -> Draft:
    """Raises Refusal: the graph or an option; the sentence says what to do."""
    from agent.workbench.importers.generic.importer import import_onnx
    from agent.workbench.importers.graphs.probe import some_pictures

    pictures = some_pictures(arguments.images or arguments.self_test)
    return import_onnx(arguments.source, _preprocessing(arguments), _outputs(arguments), pictures)


def _preprocessing(arguments: argparse.Namespace) -> PreprocessingOptions:
    from agent.workbench.importers.generic.preprocessing_options import PreprocessingOptions

    return PreprocessingOptions(
        size=_size(arguments.size),
        layout=arguments.layout,
        channels=arguments.channels,
        scale=arguments.scale,
        mean=_numbers("--mean", arguments.mean, (1, 3)),
        std=_numbers("--std", arguments.std, (1, 3)),
        interpolation=arguments.interpolation,
        antialias=arguments.antialias,
        resize=arguments.resize,
        shorter_side=arguments.shorter_side,
    )


def _outputs(arguments: argparse.Namespace) -> OutputOptions:
    from agent.workbench.importers.class_names import class_names
    from agent.workbench.importers.generic.output_reading import OutputOptions

    return OutputOptions(
        task=arguments.task,
        named={role: name for role in ROLES if (name := getattr(arguments, role)) is not None},
        activation=arguments.activation,
        classes=class_names(arguments.classes) if arguments.classes else (),
        normal=arguments.normal,
        threshold=arguments.threshold,
        pixel_threshold=arguments.pixel_threshold,
        calibration=calibration_of(arguments.calibration),
        combination=arguments.combination,
    )


def calibration_of(text: str | None) -> Calibration | None:
    """Raises SettingOutOfRange: it is no calibration."""
    from agent.packages.manifest import LinearCalibration, LogisticCalibration
    from agent.workbench.errors import SettingOutOfRange

    if text is None:
        return None
    kind, _, rest = text.partition(":")
    if kind == "linear":
        center, width = _numbers("--calibration", rest, (2,))
        if width > 0:
            return LinearCalibration(center=center, range=width)
    if kind == "logistic":
        a, b, *maximum = _numbers("--calibration", rest, (2, 3))
        return LogisticCalibration(a, b, *maximum)
    raise SettingOutOfRange("--calibration", repr(text), "linear:CENTER,RANGE (RANGE above 0) or logistic:A,B[,MAX]")


def _numbers(option: str, text: str | None, counts: tuple[int, ...]) -> tuple[float, ...]:
    from agent.workbench.errors import SettingOutOfRange

    if text is None:
        return ()
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts or not all(math.isfinite(number) for number in numbers):
        raise SettingOutOfRange(option, repr(text), f"{' or '.join(map(str, counts))} numbers with commas between")
    return numbers


def _size(text: str | None) -> tuple[int, int] | None:
    from agent.workbench.errors import SettingOutOfRange

    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})[xX]([1-9][0-9]{0,3})", text)
    if match is None:
        raise SettingOutOfRange("--size", repr(text), "WIDTHxHEIGHT in pixels, such as 224x224")
    return int(match[1]), int(match[2])
