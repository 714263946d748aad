"""The manifest of a model package: its types, and the one way to read it.

A manifest is data from outside: it is bounded in size and depth, strict JSON, and every key and value is checked here.
What comes out can be trusted by everything inside. `docs/model-package.schema.json` is generated from these types.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from agent.errors import BadManifest

MANIFEST_NAME = "manifest.json"
MAX_BYTES = 1 << 20
"""A manifest is a few kilobytes; more than a mebibyte is not a manifest."""
MAX_LABELS = 100
"""Anomaly types in one project, as the original service had it; 20 of them show in one mask."""

# 64 to 4096 pixels a side is the range of the wire contract, whatever the package says.
Side = Annotated[int, Meta(ge=64, le=4096)]
TensorSide = Annotated[int, Meta(ge=1, le=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# `$(?!\n)`: Python's `$` alone lets one line break follow.
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$(?!\n)")]
HexColor = Annotated[str, Meta(pattern=r"^#[0-9A-F]{6}$(?!\n)")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
RelativePath = Annotated[str, Meta(min_length=1, max_length=255)]
Triple = Annotated[list[float], Meta(min_length=3, max_length=3)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the manifest: nothing in it changes, and a key it does not know is an error."""


class Identity(_Part, frozen=True):
    """Which model this is."""

    name: Name
    version: Version
    lookout_vision_model_arn: Annotated[str, Meta(max_length=2048)] = ""
    """What clients of the original service expect to see; any text, may be empty."""
    source: Annotated[str, Meta(max_length=2000)] = ""
    licence: Annotated[str, Meta(max_length=2000)] = ""
    training_images: Annotated[int, Meta(ge=0)] = 0
    created: Annotated[str, Meta(max_length=40)] = ""
    """ISO 8601, UTC."""


class ImageSize(_Part, frozen=True):
    """Width and height of the training images, in pixels."""

    width: Side
    height: Side
    any_size: bool = False
    """Whether images of another size are answered too; they are refused by default."""


class Rectangle(_Part, frozen=True):
    """A part of the image: left and top corner, width and height, in pixels."""

    x: Annotated[int, Meta(ge=0, le=4095)]
    y: Annotated[int, Meta(ge=0, le=4095)]
    width: Annotated[int, Meta(ge=1, le=4096)]
    height: Annotated[int, Meta(ge=1, le=4096)]


class GraphPreprocessing(_Part, frozen=True, tag="graph", tag_field="done_by"):
    """The graph takes the image itself: uint8, (1, height, width, 3), RGB, at camera size."""

    tensor: Name
    region_of_interest: Rectangle | None = None
    """Only this part of the image is inspected; the rest is background."""
    ignore_mask: RelativePath | None = None
    """A listed file of width x height bytes: pixels whose byte is not 0 are background whatever the model says."""


class AgentPreprocessing(_Part, frozen=True, tag="agent", tag_field="done_by"):
    """The agent resizes and normalises: `(pixels * scale - mean) / std`, one channel after the other."""

    tensor: Name
    width: TensorSide
    height: TensorSide
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["uint8", "float16", "float32"] = "float32"
    """uint8 tensors take the resized pixels as they are: scale, mean and std must be left out."""
    channels: Literal["RGB", "BGR"] = "RGB"
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "lanczos"] = "bilinear"
    """Always with antialias when the image shrinks."""
    scale: float = 1 / 255
    mean: Triple = msgspec.field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: Triple = msgspec.field(default_factory=lambda: [1.0, 1.0, 1.0])
    region_of_interest: Rectangle | None = None
    """Only this part of the image is inspected; the rest is background."""
    ignore_mask: RelativePath | None = None
    """A listed file of width x height bytes: pixels whose byte is not 0 are background whatever the model says."""


Preprocessing = GraphPreprocessing | AgentPreprocessing
Activation = Literal["none", "sigmoid", "softmax"]


class Outputs(_Part, frozen=True):
    """Which outputs of the graph mean what; at least one is named."""

    score: Name | None = None
    """One number for the image, in the unit that `decision.calibration` takes."""
    class_scores: Name | None = None
    """(1, K) or (K,): one number per class; the score is the sum over the classes that are not normal."""
    class_activation: Activation = "none"
    """What turns class_scores into probabilities; none where the graph did it."""
    normal_class_ids: list[Annotated[int, Meta(ge=0)]] = []
    """Indices in class_scores that mean normal."""
    anomaly_map: Name | None = None
    """(1, 1, h, w), (1, h, w) or (h, w): one number per pixel, at any resolution; label 1 where it reaches the
    pixel threshold."""
    class_mask: Name | None = None
    """(1, C, h, w) or (C, h, w): one number per class and pixel; the largest decides."""
    mask_activation: Activation = "none"
    """Over the channels of class_mask; matters where the score is taken from them."""
    mask_labels: list[Name] = []
    """For each channel of class_mask the label it paints; several may paint `background`. Empty: as `labels`."""


class NoCalibration(_Part, frozen=True, tag="none", tag_field="kind"):
    """The score is in 0..1 as the graph gives it."""


class LinearCalibration(_Part, frozen=True, tag="linear", tag_field="kind"):
    """`(raw - center) / range + 0.5`, clipped to 0..1 (anomalib's min-max normalisation)."""

    center: float
    range: Annotated[float, Meta(gt=0)]


class LogisticCalibration(_Part, frozen=True, tag="logistic", tag_field="kind"):
    """`1 / (1 + exp(a * x + b))`; x is raw / maximum where maximum is above 1, else raw."""

    a: float
    b: float
    maximum: float = 1.0


Calibration = NoCalibration | LinearCalibration | LogisticCalibration
Combination = Literal["class", "mask", "class and mask", "class or mask"]


class Decision(_Part, frozen=True):
    """What makes an image anomalous: its calibrated score is at least the threshold, both rounded to 4 decimals."""

    threshold: Fraction
    pixel_threshold: float = 0.5
    """In the unit of the anomaly map."""
    calibration: Calibration = msgspec.field(default_factory=NoCalibration)
    combination: Combination = "class"
    """How the score and the mask make the verdict. `class`: the score alone."""


class Label(_Part, frozen=True):
    """A kind of pixel, and its colour in the mask."""

    name: Name
    color: HexColor | None = None
    """None: the default palette's."""


class OnnxModel(_Part, frozen=True, tag="onnx", tag_field="kind"):
    """An ONNX graph: runs anywhere."""


class TensorRtEngine(_Part, frozen=True, tag="tensorrt", tag_field="kind"):
    """A prebuilt engine: runs on the GPU and TensorRT version it was built for."""

    compute_capability: Annotated[str, Meta(pattern=r"^[0-9]{1,2}\.[0-9]$(?!\n)")]
    tensorrt_version: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+){0,2}$(?!\n)")]
    precision: Literal["fp32", "fp16", "int8"]


Runtime = OnnxModel | TensorRtEngine


class PackageFile(_Part, frozen=True):
    """A file of the package. A file that is not listed is ignored, whatever it is."""

    path: RelativePath
    size: Annotated[int, Meta(ge=0)]
    """Bytes."""
    sha256: Sha256
    runtime: Runtime | None = None
    """What runs it; None for files that are no models (external data, self-test images, masks)."""


class SelfTestImage(_Part, frozen=True):
    """An image and what the model must answer to it before it serves."""

    path: RelativePath
    """A listed file: width x height x 3 bytes, RGB, row by row. (No encoded images: the service decodes none.)"""
    width: Side
    height: Side
    score: Fraction
    is_anomalous: bool
    areas: dict[str, Fraction] = {}
    """For segmentation: fraction of the pixels per label."""
    tolerance: dict[Literal["fp32", "fp16", "int8"], Fraction] = msgspec.field(
        default_factory=lambda: {"fp32": 0.005, "fp16": 0.05}
    )
    """How far score and areas may be off, per precision the model runs in."""


class Reference(_Part, frozen=True):
    """What the scores of good images looked like, for watching drift."""

    score_quantiles: dict[str, Fraction] = {}
    """Quantile ("0.5") to score."""


class Manifest(_Part, frozen=True, kw_only=True):
    """`manifest.json` of a model package."""

    format_version: Literal[1]
    model: Identity
    task: Literal["classification", "segmentation"]
    image: ImageSize
    preprocessing: Preprocessing
    outputs: Outputs
    decision: Decision
    labels: Annotated[list[Label], Meta(max_length=MAX_LABELS)] = []
    """For segmentation: `background` first, then the anomaly types."""
    files: Annotated[list[PackageFile], Meta(min_length=1, max_length=1000)]
    self_test: Annotated[list[SelfTestImage], Meta(min_length=1, max_length=8)]
    reference: Reference = msgspec.field(default_factory=Reference)

    @property
    def mask_labels(self) -> list[str]:
        """For each channel of the class mask, the name of the label it paints."""
        return self.outputs.mask_labels or [label.name for label in self.labels]


def read_manifest(content: bytes) -> Manifest:
    """The manifest in `content`, checked.

    Raises:
        BadManifest: it is no strict JSON, or a field is missing, unknown or not allowed; names field and value.
    """
    raw = _strict_json(content)
    if isinstance(raw, dict) and raw.get("format_version") != 1:
        raise BadManifest("format_version", raw.get("format_version"), "this agent reads format version 1")
    try:
        manifest = msgspec.convert(raw, Manifest, strict=True)
    except msgspec.ValidationError as error:
        _refuse(error, raw)
    _check_consistency(manifest)
    return manifest


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON that people can read, ending in a line break."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the manifest (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}


def _strict_json(content: bytes) -> Any:
    if len(content) > MAX_BYTES:
        raise BadManifest(None, None, f"it holds {len(content)} bytes; at most {MAX_BYTES} are read")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise BadManifest(None, twice, "the key stands there twice")
        return found

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise BadManifest(None, text, "numbers must be finite")
        return number

    try:
        raw = json.loads(
            content.decode("utf-8"), object_pairs_hook=no_duplicates, parse_constant=finite, parse_float=finite
        )
        json.dumps(raw, ensure_ascii=False).encode("utf-8")
        return raw
    except UnicodeEncodeError:  # an escape such as \ud800 alone: no name of a file, no text of a sentence
        raise BadManifest(None, None, "an escape stands for half a character (a lone surrogate)") from None
    except UnicodeDecodeError as error:
        raise BadManifest(None, None, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadManifest(None, None, f"no JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadManifest(None, None, "it is nested too deeply") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise BadManifest(None, None, f"{error}") from None


def _refuse(error: msgspec.ValidationError, raw: Any) -> NoReturn:
    """Says which field and value msgspec did not accept; its message ends in the path: - at `$.image.width`."""
    reason, _, where = str(error).partition(" - at `")
    # A key of a mapping: ``... - at `key` in `$.self_test[0].tolerance` ``.
    path = where.rstrip("`").rpartition("`")[2].removeprefix("$").removeprefix(".")
    # It quotes unknown keys and values: one line, not endless.
    reason = "".join(character if character.isprintable() else "?" for character in reason[:200])
    value = raw
    for key in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:  # msgspec writes [...] for "some value of this mapping"
            break
    scalar = value if isinstance(value, str | int | float | bool | None) else None
    raise BadManifest(
        path or None, scalar, reason.replace("`", "'")[:1].lower() + reason.replace("`", "'")[1:]
    ) from None


def check_relative_path(field: str, path: str) -> None:
    """A path of a package stays inside it.

    Raises:
        BadManifest: it is absolute, climbs out, is spelled in more than one way, or is no path (URL, NUL, backslash).
    """
    plain = PurePosixPath(path)
    if (
        not plain.parts
        or plain.is_absolute()
        or str(plain) != path
        or ".." in plain.parts
        or re.search(r"[\x00-\x1f\x7f\\:]", path)
    ):
        raise BadManifest(field, path, "paths are relative, inside the package, with '/' between plain names")


def _check_consistency(manifest: Manifest) -> None:
    """What the types cannot say: parts that must agree with each other."""
    outputs, preprocessing = manifest.outputs, manifest.preprocessing
    listed: set[str] = set()
    for index, file in enumerate(manifest.files):
        check_relative_path(f"files[{index}].path", file.path)
        if file.path.casefold() in listed:
            raise BadManifest(f"files[{index}].path", file.path, "the file is listed twice")
        listed.add(file.path.casefold())
    paths = {file.path: file for file in manifest.files}
    if not any(file.runtime for file in manifest.files):
        raise BadManifest("files", None, "no file has a 'runtime': there is no model in this package")

    if not (outputs.score or outputs.class_scores or outputs.anomaly_map or outputs.class_mask):
        raise BadManifest("outputs", None, "name at least one of score, class_scores, anomaly_map and class_mask")
    if outputs.anomaly_map and outputs.class_mask:
        raise BadManifest(
            "outputs.class_mask", outputs.class_mask, "anomaly_map is named too; one of them makes the mask"
        )
    if outputs.class_scores and not outputs.normal_class_ids:
        raise BadManifest("outputs.normal_class_ids", None, "class_scores needs to know which classes are normal")

    _check_labels(manifest)

    if isinstance(preprocessing, AgentPreprocessing):
        if any(value <= 0 for value in preprocessing.std):
            raise BadManifest("preprocessing.std", str(preprocessing.std), "every value must be above 0")
        identity = AgentPreprocessing(tensor="-", width=1, height=1)
        as_they_are = (preprocessing.scale, preprocessing.mean, preprocessing.std) == (
            identity.scale,
            identity.mean,
            identity.std,
        )
        if preprocessing.dtype == "uint8" and not as_they_are:
            raise BadManifest("preprocessing.dtype", "uint8", "uint8 pixels go in as they are: no scale, mean and std")
    region, image = preprocessing.region_of_interest, manifest.image
    if (region or preprocessing.ignore_mask) and image.any_size:
        raise BadManifest("image.any_size", True, "a region of interest or an ignore mask needs images of one size")
    if region and (region.x + region.width > image.width or region.y + region.height > image.height):
        raise BadManifest("preprocessing.region_of_interest", None, "it reaches outside the image")
    _check_raw_file("preprocessing.ignore_mask", preprocessing.ignore_mask, image.width * image.height, paths)

    labels = {label.name for label in manifest.labels}
    for index, test in enumerate(manifest.self_test):
        field = f"self_test[{index}]"
        _check_raw_file(f"{field}.path", test.path, test.width * test.height * 3, paths)
        if not image.any_size and (test.width, test.height) != (image.width, image.height):
            raise BadManifest(f"{field}.width", test.width, f"images must be {image.width} x {image.height}")
        unknown = sorted(set(test.areas) - labels)
        if unknown:
            raise BadManifest(f"{field}.areas", unknown[0], "no label has this name")


def _check_labels(manifest: Manifest) -> None:
    names = [label.name for label in manifest.labels]
    draws_mask = bool(manifest.outputs.anomaly_map or manifest.outputs.class_mask)
    if manifest.task == "segmentation":
        if not draws_mask:
            raise BadManifest("outputs", None, "segmentation needs an anomaly_map or a class_mask")
        if len(names) < 2 or names[0] != "background":
            raise BadManifest("labels", None, "segmentation needs 'background' first and at least one anomaly type")
        if len(set(names)) != len(names):
            raise BadManifest("labels", None, "two labels have the same name")
    if manifest.decision.combination != "class" and manifest.task != "segmentation":
        raise BadManifest("decision.combination", manifest.decision.combination, "only segmentation has a mask")
    for index, name in enumerate(manifest.outputs.mask_labels):
        if name not in names:
            raise BadManifest(f"outputs.mask_labels[{index}]", name, "no label has this name")


def _check_raw_file(field: str, path: str | None, size: int, files: dict[str, PackageFile]) -> None:
    if path is None:
        return
    if path not in files:
        raise BadManifest(field, path, "the file is not listed in 'files'")
    if files[path].size != size:
        raise BadManifest(field, path, f"it is listed with {files[path].size} bytes, not {size}")
