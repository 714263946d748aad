"""The manifest of Lookout for Vision's model packages: what of it tells how the model is used.

Packages of the service, of its Marketplace algorithm and of AWS's Defect Detection Application have it. What the keys
mean is learned from that application's public source (its `lyra_science_processing_utils`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.workbench.errors import BadSource

MANIFEST_NAME = "manifest.json"
INFORMATION_NAME = "mochi.json"
"""Beside the manifest in training outputs: the model's name and version."""
MAX_BYTES = 1 << 20

Ids = list[Annotated[int, Meta(ge=0)]]
Side = Annotated[int, Meta(ge=1, le=4096)]


class Classes(msgspec.Struct, frozen=True):
    """Names of a head's outputs, and which of them are normal."""

    names: list[str] = []
    normal_ids: Ids = []


class Geometry(msgspec.Struct, frozen=True):
    """How the image comes to the model's size, where a block of its own says so."""

    preserve_aspect: bool = False


class Stage(msgspec.Struct, frozen=True):
    """One model and what is done before and after it."""

    type: str
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    image_width: Side | None = None
    image_height: Side | None = None
    image_range_scale: bool | None = None
    """Whether pixels are divided by 255."""
    normalize: bool | None = None
    """Whether ImageNet's mean is subtracted and its deviation divided by."""
    interpolation: int = 3
    """OpenCV's number; 3 is INTER_AREA."""
    preserve_aspect: bool = False
    preprocessing: Geometry = Geometry()
    detection: Geometry = Geometry()
    transform_preprocessing: object = None
    classification_head_enabled: bool = False
    segmentation_head_enabled: bool = False
    class_normal_ids: Ids | None = None
    seg_normal_ids: Ids | None = None
    seg_recall_bias: float | None = None
    calibrated: bool = False
    calibrator_scaling: float | None = None
    calibrator_shift: float | None = None
    max_val_score: float | None = None
    classification_logic: Literal["cls_head", "seg_head", "cls_and_seg", "cls_or_seg"] | None = None
    raw_image_shape: list[Side] | None = None
    """Height and width that the mask is resized to."""

    @property
    def keeps_aspect(self) -> bool:
        return self.preserve_aspect or self.preprocessing.preserve_aspect or self.detection.preserve_aspect


class Graph(msgspec.Struct, frozen=True):
    """The stages, and what their outputs are called."""

    stages: Annotated[list[Stage], Meta(min_length=1)]
    model_graph_type: str = "single_stage_model_graph"
    image_level_classes: Classes = Classes()
    pixel_level_classes: Classes = Classes()


class Dataset(msgspec.Struct, frozen=True):
    """Of the training images."""

    image_width: Side
    image_height: Side


class LookoutManifest(msgspec.Struct, frozen=True):
    """`manifest.json`. Keys that are not named here do not change what the model answers."""

    model_graph: Graph
    runtime: str = "dlr"
    """`dlr` (compiled by SageMaker Neo) where nothing is said."""
    runtime_artifact: str | None = None
    task: str = "anomaly"
    dataset: Dataset | None = None


class ModelInformation(msgspec.Struct, frozen=True):
    name: str = ""
    version: str = ""


class _Information(msgspec.Struct, frozen=True):
    model_info: ModelInformation = ModelInformation()


def read_lookout_manifest(file: Path) -> LookoutManifest:
    """The manifest in `file`.

    Raises:
        BadSource: it is unreadable, or a field is missing or not what it must be.
    """
    try:
        return msgspec.json.decode(_content(file), type=LookoutManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSource(
            file,
            f"it is no manifest of Lookout for Vision ({error})",
            "give the package as it was trained or deployed; one of this agent is for edge-agent package fitted",
        ) from None


def read_information(folder: Path) -> ModelInformation:
    """What `mochi.json` in `folder` says of the model; nothing where it is not there or says nothing."""
    try:
        return msgspec.json.decode(_content(folder / INFORMATION_NAME), type=_Information).model_info
    except (BadSource, msgspec.DecodeError, UnicodeDecodeError):
        return ModelInformation()


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadSource(file, f"it cannot be read ({error.strerror})", "give the package's folder") from None
    if len(content) > MAX_BYTES:
        raise BadSource(file, f"it has more than {MAX_BYTES} bytes", "give a package's own manifest")
    return content
