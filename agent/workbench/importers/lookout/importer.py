"""Packages of Lookout for Vision, its Marketplace algorithm and AWS's Defect Detection Application.

What a model answers is carried over exactly: preprocessing, score, calibration, mask and how the two make the verdict
are those of the Defect Detection Application's public source (`BasicPreProcessor`, `SupervisedMultiHeadPostProcessor`,
`SingleStageModelGraph`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import onnx

from agent.images.bitmap import MAX_SIDE, MIN_SIDE
from agent.packages.manifest import (
    AgentPreprocessing,
    Calibration,
    Combination,
    Decision,
    ImageSize,
    Label,
    LogisticCalibration,
    NoCalibration,
    Outputs,
)
from agent.packages.palette import BACKGROUND
from agent.workbench.errors import BadSource
from agent.workbench.importers.generic.preprocessing_options import IMAGENET_MEAN, IMAGENET_STD
from agent.workbench.importers.graphs.onnx_file import Tensor, inputs_of, outputs_of, read_onnx, serialised
from agent.workbench.importers.lookout.manifest import (
    MANIFEST_NAME,
    LookoutManifest,
    Stage,
    read_information,
    read_lookout_manifest,
)
from agent.workbench.importers.lookout.source_folder import opened_folder
from agent.workbench.packaging.draft import MODEL_FILE, Draft, background_and
from agent.workbench.packaging.naming import is_version

Value = TypeVar("Value")
MULTI_HEAD = ("mochi", "supervised_multi_head_model")
"""Both names of the one kind of model there is an ONNX form of."""
COMBINATIONS: dict[str | None, Combination] = {
    None: "class",
    "cls_head": "class",
    "seg_head": "mask",
    "cls_and_seg": "class and mask",
    "cls_or_seg": "class or mask",
}
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "bilinear", 2: "bicubic", 3: "area"}
"""OpenCV's numbers (`InterpolationFlags`)."""
EXPORT = (
    "load the TorchScript file of the training output (mochi.pt) with torch.jit.load where you trust it, write it with "
    "torch.onnx.export to mochi/model.onnx beside the manifest, and give that folder"
)


def lookout_draft(source: Path) -> Draft:
    """The package at `source`: its folder, or a ZIP or tar.gz of it.

    Raises:
        BadSource: it is no such package, its model was compiled for one device or is a pickle, or it is used in a way
            that a package cannot express.
    """
    with opened_folder(source) as folder:
        root = _root_of(source, folder)
        manifest = read_lookout_manifest(root / MANIFEST_NAME)
        stage = _stage_of(source, manifest)
        model = read_onnx(_model_file(source, root, manifest, stage))
        information = read_information(root)
        if not information.name:  # a training output has it beside the folder of what was exported
            information = read_information(root.parent)
    heads = _Heads(source, manifest, stage, outputs_of(model))
    return Draft(
        task="segmentation" if heads.draws_mask else "classification",
        preprocessing=_preprocessing(source, stage, model),
        outputs=heads.outputs,
        decision=Decision(
            threshold=_present(source, stage.threshold, "threshold"),
            calibration=_calibration(source, stage),
            combination=heads.combination,
        ),
        source=f"Imported from {source.name}, a package of Lookout for Vision (stage '{stage.type}').",
        files={MODEL_FILE: serialised(model)},
        labels=heads.labels if heads.draws_mask else (),
        image=_image(source, manifest, stage),
        name=information.name[:200],
        version=information.version if is_version(information.version) else "",
        notes=[*heads.notes, f"Threshold {stage.threshold:.4f}, as the package has it."],
    )


def _root_of(source: Path, folder: Path) -> Path:
    """The folder with the manifest: the one that was given, or one not far below."""
    for level in (".", "*", "*/*"):
        found = sorted(folder.glob(f"{level}/{MANIFEST_NAME}"))
        if len(found) == 1:
            return found[0].parent
        if found:
            names = ", ".join(str(one.parent.relative_to(folder)) for one in found[:3])
            raise BadSource(source, f"it holds several packages ({names})", "give one of them")
    raise BadSource(source, f"there is no {MANIFEST_NAME} in it", "give the folder, ZIP or tar.gz of one model")


def _stage_of(source: Path, manifest: LookoutManifest) -> Stage:
    graph = manifest.model_graph
    stage = graph.stages[0]
    if len(graph.stages) > 1 or graph.model_graph_type != "single_stage_model_graph":
        raise BadSource(
            source,
            f"it is a '{graph.model_graph_type}' of {len(graph.stages)} models, and a package holds one",
            "train a model of one stage",
        )
    if manifest.task == "object_detection":
        raise BadSource(source, "it detects objects", "package its ONNX file with edge-agent package ultralytics")
    if stage.type not in MULTI_HEAD:
        raise BadSource(
            source,
            f"its stage is '{stage.type}', and only {' and '.join(MULTI_HEAD)} are known",
            "package its ONNX file with edge-agent package onnx, where you can say what it takes and answers",
        )
    if stage.transform_preprocessing is not None:
        raise BadSource(
            source, "it straightens round parts before it looks at them (transform_preprocessing)", "train without it"
        )
    return stage


def _model_file(source: Path, root: Path, manifest: LookoutManifest, stage: Stage) -> Path:
    """The ONNX file: in the stage's folder as on devices, or beside the manifest as in training outputs."""
    name = manifest.runtime_artifact or MODEL_FILE
    places = [root / stage.type / name, root / name]
    if PurePosixPath(name).name == name and name.endswith(".onnx"):
        for place in places:
            if place.is_file():
                return place
    held = sorted(path.name for folder in {root, root / stage.type} for path in folder.glob("*") if path.is_file())
    pickles = [name for name in held if name.endswith((".pt", ".pth"))]
    if pickles:
        raise BadSource(source, f"its model is {pickles[0]}, which is not read because reading it runs code", EXPORT)
    if manifest.runtime == "dlr":
        compiled = [name for name in held if ".so" in name]
        raise BadSource(
            source,
            f"its model was compiled for one device{f' ({compiled[0]})' if compiled else ''} and cannot be turned back",
            EXPORT,
        )
    raise BadSource(source, f"there is no {name!r} in its folder '{stage.type}'", EXPORT)


def _preprocessing(source: Path, stage: Stage, model: onnx.ModelProto) -> AgentPreprocessing:
    width = _present(source, stage.image_width, "image_width")
    height = _present(source, stage.image_height, "image_height")
    if stage.interpolation not in INTERPOLATIONS:
        raise BadSource(source, f"its interpolation is {stage.interpolation}", "train with OpenCV's 0 to 3")
    interpolation = INTERPOLATIONS[stage.interpolation]
    normalised = _present(source, stage.normalize, "normalize")
    dtype = _input_of(source, model, width, height)
    return AgentPreprocessing(
        tensor=inputs_of(model)[0].name,
        width=width,
        height=height,
        dtype=dtype,
        interpolation=interpolation,
        antialias=interpolation not in ("bilinear", "bicubic"),  # OpenCV's do not smooth
        resize="letterbox" if stage.keeps_aspect else "stretch",
        scale=1 / 255 if _present(source, stage.image_range_scale, "image_range_scale") else 1.0,
        mean=IMAGENET_MEAN if normalised else [0.0, 0.0, 0.0],
        std=IMAGENET_STD if normalised else [1.0, 1.0, 1.0],
    )


def _input_of(source: Path, model: onnx.ModelProto, width: int, height: int) -> Literal["float32", "float16"]:
    """The type of the one input, which takes (1, 3, height, width)."""
    inputs = inputs_of(model)
    shape = inputs[0].shape if len(inputs) == 1 else ()
    fits = len(shape) == 4 and all(
        size in (None, wanted) for size, wanted in zip(shape[1:], (3, height, width), strict=True)
    )
    dtype = inputs[0].dtype if fits else ""
    if dtype == "float32":
        return "float32"
    if dtype == "float16":
        return "float16"
    raise BadSource(
        source,
        f"its graph takes {', '.join(map(str, inputs)) or 'nothing'}, and its manifest says float32 [1, 3, {height}, "
        f"{width}]",
        "export the model as it was trained",
    )


def _calibration(source: Path, stage: Stage) -> Calibration:
    """Only the class head is calibrated."""
    if not (stage.calibrated and stage.classification_head_enabled):
        return NoCalibration()
    return LogisticCalibration(
        a=_present(source, stage.calibrator_scaling, "calibrator_scaling"),
        b=_present(source, stage.calibrator_shift, "calibrator_shift"),
        maximum=_present(source, stage.max_val_score, "max_val_score"),
    )


def _image(source: Path, manifest: LookoutManifest, stage: Stage) -> ImageSize | None:
    """The size of the training images, and so of the camera's."""
    if manifest.dataset is not None:
        width, height = manifest.dataset.image_width, manifest.dataset.image_height
    elif stage.raw_image_shape is not None and len(stage.raw_image_shape) == 2:
        height, width = stage.raw_image_shape
    else:
        return None
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise BadSource(
            source,
            f"it was trained on images of {width}x{height}, and {MIN_SIDE} to {MAX_SIDE} pixels a side are served",
            "train on larger images",
        )
    return ImageSize(width, height)


@dataclass(frozen=True)
class _Heads:
    """Which outputs there are, and what the verdict is made from.

    The outputs come in a fixed order: (mask, score) of two heads, else the one there is.
    """

    source: Path
    manifest: LookoutManifest
    stage: Stage
    given: Sequence[Tensor]

    def __post_init__(self) -> None:
        wanted = self.stage.classification_head_enabled + self.stage.segmentation_head_enabled
        if not wanted:
            raise BadSource(self.source, "neither of its heads is enabled", "give a package that was trained")
        if len(self.given) < wanted:
            self._refuse(f"its graph has {len(self.given)} outputs, and its manifest enables {wanted} heads")
        self._check_class_head()
        if self.draws_mask:
            self._check_mask_head()

    @property
    def score(self) -> Tensor | None:
        if not self.stage.classification_head_enabled:
            return None
        return self.given[1 if self.stage.segmentation_head_enabled else 0]

    @property
    def mask(self) -> Tensor | None:
        return self.given[0] if self.stage.segmentation_head_enabled else None

    @property
    def draws_mask(self) -> bool:
        """Whether anything comes of the mask: its classes have names, the verdict needs it, or there is nothing else.
        (The original draws none either where its classes have no names.)"""
        named = bool(self.manifest.model_graph.pixel_level_classes.names)
        return self.mask is not None and (named or self.combination != "class" or self.score is None)

    @property
    def combination(self) -> Combination:
        """What `classification_logic` says, which counts only where there are a mask and its normal classes."""
        if self.mask is None or self.stage.seg_normal_ids is None:
            return "class"
        return COMBINATIONS[self.stage.classification_logic]

    @property
    def class_normal_ids(self) -> list[int]:
        told = self.stage.class_normal_ids
        return sorted(set(self.manifest.model_graph.image_level_classes.normal_ids if told is None else told))

    @property
    def mask_normal_ids(self) -> list[int]:
        told = self.stage.seg_normal_ids
        return self.manifest.model_graph.pixel_level_classes.normal_ids if told is None else told

    @property
    def channels(self) -> list[str]:
        """For each channel of the mask the label it paints."""
        assert self.mask is not None  # only asked for where there is one
        names = self.manifest.model_graph.pixel_level_classes.names
        count = self.mask.shape[1] if len(self.mask.shape) == 4 else None
        names = names or [f"class {index}" for index in range(count or 0)]
        return [BACKGROUND if index in self.mask_normal_ids else name for index, name in enumerate(names)]

    @property
    def labels(self) -> list[Label]:
        return background_and(*(name for name in dict.fromkeys(self.channels) if name != BACKGROUND))

    @property
    def outputs(self) -> Outputs:
        named: dict[str, Any] = {}
        if self.score is not None:
            named |= {"class_scores": self.score.name, "normal_class_ids": self.class_normal_ids}
        if self.mask is not None and self.draws_mask:
            named |= {"class_mask": self.mask.name, "mask_labels": self.channels}
            if self.score is None:
                named["mask_score"] = "mean"
            if self.stage.seg_recall_bias:
                bias = self.stage.seg_recall_bias
                named["mask_bias"] = [
                    0.0 if index in self.mask_normal_ids else bias for index in range(len(self.channels))
                ]
        return Outputs(**named)

    @property
    def notes(self) -> list[str]:
        """What was found, for the engineer to read."""
        notes = []
        if self.score is not None:
            names = self.manifest.model_graph.image_level_classes.names
            normal = [names[index] if index < len(names) else str(index) for index in self.class_normal_ids]
            notes.append(f"Score: the sum of '{self.score.name}' but for {', '.join(normal)}.")
        elif self.mask is not None:
            notes.append(f"Score: the mean of '{self.mask.name}', all of its classes, as the original has it.")
        if self.draws_mask:
            notes.append(f"Mask: {', '.join(self.channels)}. Verdict by {self.combination}.")
        return notes

    def _check_class_head(self) -> None:
        if self.score is None:
            return
        if not self.class_normal_ids:
            self._refuse("nothing says which of its classes are normal (class_normal_ids)")
        shape = self.score.shape
        if shape and (len(shape) != 2 or (shape[1] or self.class_normal_ids[-1] + 1) <= self.class_normal_ids[-1]):
            self._refuse(f"its class head is {self.score}, and its normal classes are {self.class_normal_ids}")

    def _check_mask_head(self) -> None:
        assert self.mask is not None  # only called where there is one
        shape, channels = self.mask.shape, self.channels
        if shape and (len(shape) != 4 or shape[1] not in (None, len(channels))):
            self._refuse(f"its mask is {self.mask}, and its manifest names {len(channels)} classes of pixels")
        if not set(channels) - {BACKGROUND}:
            self._refuse("nothing says what the classes of its mask are (pixel_level_classes)")
        painted = {index for index, name in enumerate(channels) if name == BACKGROUND}
        if self.combination != "class" and (not painted or painted - set(self.mask_normal_ids)):
            self._refuse(
                f"its verdict needs the normal classes of the mask, and seg_normal_ids is {self.mask_normal_ids}"
            )

    def _refuse(self, why: str) -> None:
        raise BadSource(self.source, why, "correct the manifest, or export the model as it was trained")


def _present(source: Path, value: Value | None, field: str) -> Value:
    """`value`, which the manifest must have."""
    if value is None:
        raise BadSource(source, f"its manifest does not say {field}", "add it to the stage, as the model was trained")
    return value
