"""The manifest of a model package: its types, and how it is written.

`docs/model-package.schema.json` is generated from them; `agent.packages.manifest_reader` reads and checks one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent.packages.palette import color_of

MANIFEST_NAME = "manifest.json"
MAX_BYTES = 1 << 20
"""A manifest is a few kilobytes; more than a mebibyte is not a manifest."""
MAX_LABELS = 100
"""Anomaly types in one project, as the original service had it; 20 of them show in one mask."""

# Of anything, also bytes: what system calls can say. Integers of JSON may have thousands of digits.
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
# 64 to 4096 pixels a side is the range of the wire contract, whatever the package says.
Side = Annotated[int, Meta(ge=64, le=4096)]
TensorSide = Annotated[int, Meta(ge=1, le=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
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
    training_images: Count = 0
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
    antialias: bool = True
    """Whether pixels between are smoothed over when the image shrinks (Pillow, torchvision); bilinear and bicubic can
    do without, as OpenCV does."""
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    """How the image comes to width x height. `stretch`: whatever its proportions. `letterbox`: keeps them, centred, and
    fills the rest with `padding` (Ultralytics). `crop`: keeps them, makes the shorter side `shorter_side` pixels and
    takes the middle (torchvision's Resize and CenterCrop)."""
    shorter_side: TensorSide | None = None
    """For `crop`; None: as small as covers width x height."""
    padding: Annotated[int, Meta(ge=0, le=255)] = 114
    """For `letterbox`: the grey value beside the image."""
    scale: float = 1 / 255
    mean: Triple = msgspec.field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: Triple = msgspec.field(default_factory=lambda: [1.0, 1.0, 1.0])
    region_of_interest: Rectangle | None = None
    """Only this part of the image is inspected; the rest is background."""
    ignore_mask: RelativePath | None = None
    """A listed file of width x height bytes: pixels whose byte is not 0 are background whatever the model says."""


Preprocessing = GraphPreprocessing | AgentPreprocessing
Activation = Literal["none", "sigmoid", "softmax"]


class Cover(_Part, frozen=True):
    """A part of a plane, as fractions of its width and height."""

    x: Fraction
    y: Fraction
    width: PositiveFraction
    height: PositiveFraction


class Boxes(_Part, frozen=True):
    """Detections: boxes with a score per class, in pixels of the input tensor."""

    tensor: Name
    layout: Literal["anchors", "rows"]
    """`anchors`: (1, 4 + classes + coefficients, N): centre x and y, width, height, then one score per class
    (Ultralytics' raw head); of two that overlap by more than 0.7 of their union and are of one class, the better one
    paints. `rows`: (1, N, 6 + coefficients): left, top, right, bottom, score, class (its end-to-end heads, and exports
    with NMS). At most the 300 best paint."""
    labels: Annotated[list[Name], Meta(min_length=1, max_length=10_000)]
    """For each class the label that its boxes paint; `background` for classes that are normal."""
    prototypes: Name | None = None
    """(1, M, h, w): instance masks are the sums of these, weighted by a box's M coefficients and cut at 0, inside the
    box. None: the box itself is painted."""


class Outputs(_Part, frozen=True):
    """Which outputs of the graph mean what; at least one is named."""

    score: Name | None = None
    """One number for the image, in the unit that `decision.calibration` takes."""
    class_scores: Name | None = None
    """(1, K) or (K,): one number per class; the score is the sum over the classes that are not normal."""
    class_activation: Activation = "none"
    """What turns class_scores into probabilities; none where the graph did it."""
    normal_class_ids: list[Count] = []
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
    mask_bias: list[float] = []
    """For each channel of class_mask what is added to the graph's own values before the largest decides; empty:
    nothing."""
    mask_score: Literal["maximum", "mean"] = "maximum"
    """How class_mask makes the score where no other output does: the highest probability of anomaly of a pixel, or the
    mean of the whole mask, all channels and all pixels, before mask_bias (Lookout for Vision's segmentation head)."""
    boxes: Boxes | None = None
    """Detections; the score is the highest of a class that is not normal, and boxes whose score, calibrated, reaches
    the threshold paint."""
    map_covers: Cover | None = None
    """Which part of the tensor's plane anomaly_map and class_mask cover (a graph that crops the centre); None: all."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are read from the graph, each once."""
        boxes = (self.boxes.tensor, self.boxes.prototypes) if self.boxes else ()
        named = (self.score, self.class_scores, self.anomaly_map, self.class_mask, *boxes)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def draws_mask(self) -> bool:
        """Whether there is an output that tells of pixels."""
        return self.anomaly_map is not None or self.class_mask is not None or self.boxes is not None


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


class TargetDevice(_Part, frozen=True, tag="device", tag_field="kind"):
    """A device by name."""

    name: Literal["jetson_xavier", "jetson_orin", "jetson_thor", "x86_cpu", "arm_cpu"]


class TargetPlatform(_Part, frozen=True, tag="platform", tag_field="kind"):
    """A device by what it is."""

    os: Literal["LINUX"]
    architecture: Literal["X86_64", "ARM64"]
    accelerator: Literal["NVIDIA"] | None = None
    compiler_options: dict[
        Literal["gpu-code", "trt-ver", "cuda-ver", "mcpu"], Annotated[str, Meta(min_length=1, max_length=100)]
    ] = {}


Target = TargetDevice | TargetPlatform


class PackageFile(_Part, frozen=True):
    """A file of the package. A file that is not listed is ignored, whatever it is."""

    path: RelativePath
    size: Count
    """Bytes."""
    sha256: Sha256
    runtime: Runtime | None = None
    """What runs it; None for files that are no models (external data, self-test images, masks)."""


def onnx_file(files: Iterable[PackageFile]) -> PackageFile | None:
    """The ONNX model among the files of a package; None where it holds prebuilt engines only."""
    return next((file for file in files if isinstance(file.runtime, OnnxModel)), None)


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
    target: Target | None = None
    """What it was packaged for. An ONNX model runs anywhere; a prebuilt engine only there."""

    @property
    def model_size(self) -> int:
        """Bytes of the largest model file with the external data; self-test images do not count. Of an ONNX model and
        engines for several devices one is loaded."""
        tests = {test.path for test in self.self_test}
        beside = sum(file.size for file in self.files if file.runtime is None and file.path not in tests)
        return beside + max((file.size for file in self.files if file.runtime is not None), default=0)

    @property
    def mask_labels(self) -> list[str]:
        """For each channel of the class mask, the name of the label it paints."""
        return self.outputs.mask_labels or [label.name for label in self.labels]

    @property
    def colors(self) -> list[str]:
        """The colour of each label: its own, or the default palette's."""
        return [label.color or color_of(index) for index, label in enumerate(self.labels)]


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON that people can read, ending in a line break."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the manifest (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}
