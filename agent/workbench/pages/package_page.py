"""What a package is, in words and tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tabulate import tabulate

from agent.images.preprocess import crop
from agent.packages.manifest import (
    AgentPreprocessing,
    Boxes,
    Calibration,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
    OnnxModel,
    Outputs,
    PackageFile,
    TargetDevice,
)
from agent.packages.package import Package
from agent.packages.palette import BACKGROUND

BY_COMBINATION = {
    "class": "the score is at least the threshold",
    "mask": "the mask shows an anomaly",
    "class and mask": "the score is at least the threshold and the mask shows an anomaly",
    "class or mask": "the score is at least the threshold or the mask shows an anomaly",
}


def package_page(package: Package) -> str:
    """The package's manifest as a page; its files are not opened, but for the ignore mask.

    Raises:
        BadPackageFile: the ignore mask is not what the manifest says.
    """
    manifest = package.manifest
    facts = tabulate(list(_facts(package)), tablefmt="plain", disable_numparse=True)
    return "\n\n".join([f"{manifest.model.name} {manifest.model.version}\n\n{facts}", *_tables(manifest)])


def _facts(package: Package) -> Iterator[tuple[str, str]]:
    manifest, model = package.manifest, package.manifest.model
    types = [label.name for label in manifest.labels if label.name != BACKGROUND]
    yield "task", manifest.task + (f": {', '.join(types)}" if types else "")
    made = [f"on {model.created}" if model.created else "", f"of {model.training_images} images"]
    yield "made", " ".join(made if model.training_images else made[:1]) or "nobody says when"
    yield "source", model.source or "nobody says"
    if model.licence:
        yield "licence", model.licence
    if model.lookout_vision_model_arn:
        yield "ARN", model.lookout_vision_model_arn
    if manifest.target:
        yield "target", _target(manifest)
    for index, sentence in enumerate(_takes(package)):
        yield "" if index else "takes", sentence
    for index, sentence in enumerate(_gives(manifest.outputs)):
        yield "" if index else "gives", sentence
    decision = manifest.decision
    yield "decides", f"anomalous where {BY_COMBINATION[decision.combination]}; threshold {decision.threshold:.4f}"
    if calibration := _calibrated(decision.calibration):
        yield "", calibration
    if manifest.outputs.anomaly_map and manifest.task == "segmentation":
        yield "", f"a pixel is anomalous where the map is at least {decision.pixel_threshold:.6g}"
    if quantiles := manifest.reference.score_quantiles:
        listed = ", ".join(f"{float(at):.0%} {score:.4f}" for at, score in quantiles.items())
        yield "good images", f"score up to (share of them, score): {listed}"


def _target(manifest: Manifest) -> str:
    target = manifest.target
    if target is None:
        return ""
    if isinstance(target, TargetDevice):
        return target.name
    options = ", ".join(f"{key} {value}" for key, value in target.compiler_options.items())
    return "/".join(part for part in (target.os, target.architecture, target.accelerator) if part) + (
        f" ({options})" if options else ""
    )


def _takes(package: Package) -> Iterator[str]:
    image, how = package.manifest.image, package.manifest.preprocessing
    if image.any_size:
        yield f"RGB images of any size; made for {image.width}x{image.height}"
    else:
        yield f"RGB images of {image.width}x{image.height}; others are refused"
    if region := how.region_of_interest:
        yield f"inspects {region.width}x{region.height} from ({region.x}, {region.y}) on"
    if (ignored := package.ignore_mask()) is not None:
        ignored = crop(ignored, how.region_of_interest)
        yield f"ignores {np.count_nonzero(ignored) / ignored.size:.1%} of what is inspected ({how.ignore_mask})"
    if not isinstance(how, AgentPreprocessing):
        yield f"the graph takes the pixels as they are, as '{how.tensor}'"
        return
    filter_name = how.interpolation + ("" if how.antialias else " without antialias")
    sized = {
        "stretch": "",
        "letterbox": f", proportions kept, the rest filled with {how.padding}",
        "crop": f", proportions kept, shorter side {how.shorter_side or 'as small as covers it'}, the middle of it",
    }[how.resize]
    yield f"resized to {how.width}x{how.height} ({filter_name}{sized})"
    if how.dtype != "uint8":
        yield f"(pixel * {how.scale:.6g} - {_triple(how.mean)}) / {_triple(how.std)}"
    yield f"as '{how.tensor}', {how.layout}, {how.channels}, {how.dtype}"


def _gives(outputs: Outputs) -> Iterator[str]:
    if outputs.score:
        yield f"score: '{outputs.score}'"
    if outputs.class_scores:
        normal = ", ".join(map(str, outputs.normal_class_ids))
        yield f"class scores: '{outputs.class_scores}'{_activated(outputs.class_activation)}; normal: class {normal}"
    if outputs.anomaly_map:
        yield f"anomaly map: '{outputs.anomaly_map}'"
    if outputs.class_mask:
        bias = f", {outputs.mask_bias} added" if outputs.mask_bias else ""
        yield f"class mask: '{outputs.class_mask}'{_activated(outputs.mask_activation)}{bias}"
    if outputs.boxes:
        yield from _boxes(outputs.boxes)
    if cover := outputs.map_covers:
        yield (
            f"the map covers {cover.width:.1%} x {cover.height:.1%} of what is inspected, from "
            f"({cover.x:.1%}, {cover.y:.1%}) on"
        )


def _boxes(boxes: Boxes) -> Iterator[str]:
    masks = f" with instance masks of '{boxes.prototypes}'" if boxes.prototypes else ""
    yield f"boxes: '{boxes.tensor}', {len(boxes.labels)} classes{masks}"
    for label in dict.fromkeys(boxes.labels):
        classes = [str(index) for index, name in enumerate(boxes.labels) if name == label]
        shown = ", ".join(classes[:12]) + (f" and {len(classes) - 12} more" if len(classes) > 12 else "")
        yield f"  {label}: class {shown}"


def _activated(activation: str) -> str:
    return "" if activation == "none" else f" through {activation}"


def _calibrated(calibration: Calibration) -> str:
    if isinstance(calibration, LinearCalibration):
        return f"score = (raw - {calibration.center:.6g}) / {calibration.range:.6g} + 0.5, from 0 to 1"
    if isinstance(calibration, LogisticCalibration):
        x = f"raw / {calibration.maximum:.6g}" if calibration.maximum > 1 else "raw"
        return f"score = 1 / (1 + exp({calibration.a:.6g} * {x} + {calibration.b:.6g}))"
    return ""


def _triple(values: list[float]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:.6g}"
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _tables(manifest: Manifest) -> Iterator[str]:
    if manifest.labels:
        rows = [(label.name, color) for label, color in zip(manifest.labels, manifest.colors, strict=True)]
        yield tabulate(rows, headers=["label", "colour"], disable_numparse=True)
    files = [(file.path, f"{file.size:,}", _runtime(file), file.sha256[:16] + "...") for file in manifest.files]
    yield tabulate(files, headers=["file", "bytes", "run by", "SHA-256"], disable_numparse=True, colalign=_FILES)
    tests = [
        (
            test.path,
            "anomalous" if test.is_anomalous else "normal",
            f"{test.score:.4f}",
            ", ".join(f"{name} {area:.2%}" for name, area in test.areas.items() if name != BACKGROUND),
            ", ".join(f"{precision} {most:g}" for precision, most in test.tolerance.items()),
        )
        for test in manifest.self_test
    ]
    yield tabulate(
        tests, headers=["self-test image", "must be", "score", "areas", "may be off by"], disable_numparse=True
    )


_FILES = ("left", "right", "left", "left")


def _runtime(file: PackageFile) -> str:
    if file.runtime is None:
        return ""
    if isinstance(file.runtime, OnnxModel):
        return "ONNX Runtime, anywhere"
    engine = file.runtime
    return f"TensorRT {engine.tensorrt_version}, compute capability {engine.compute_capability}, {engine.precision}"
