"""ONNX exports of Ultralytics: detect, segment, semantic and classify.

How they prepare their images, and what they answer, is that of Ultralytics' predictors (8.0 to 8.4; `LetterBox` and
`classify_transforms` in `ultralytics/data/augment.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.packages.manifest import AgentPreprocessing, Boxes, Decision, Label, Outputs
from agent.packages.palette import BACKGROUND
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.class_names import guessed_normal_ids, listed, normal_ids, painted_labels
from agent.workbench.importers.graphs.edit import GraphEdit, fitted_input
from agent.workbench.importers.graphs.image_input import ImageInput, image_input
from agent.workbench.importers.graphs.onnx_file import read_onnx, serialised
from agent.workbench.importers.graphs.probe import Answers, probe
from agent.workbench.importers.graphs.source import onnx_file_in
from agent.workbench.importers.ultralytics.metadata import EXPORT_AGAIN, UltralyticsMetadata, read_metadata
from agent.workbench.packaging.draft import MODEL_FILE, Draft

TASKS = ("detect", "segment", "semantic", "classify")
BOX_THRESHOLD = 0.25
"""From which confidence Ultralytics' `predict` shows a box, unless told otherwise."""
CLASS_THRESHOLD = 0.5
FIRST_TORCHVISION_CROP = (8, 0, 233)
"""Before this version classifiers cropped first and resized with OpenCV; since, with torchvision on a Pillow image."""


@dataclass(frozen=True)
class UltralyticsOptions:
    """What was asked for; None or empty where nothing was."""

    types: Mapping[str, str] = field(default_factory=dict)
    """Class name to anomaly type; a class that is not in it paints its own name."""
    normal: Sequence[str] = ()
    """Names or indices of normal classes."""
    threshold: float | None = None


def import_ultralytics(source: Path, wanted: UltralyticsOptions, pictures: Sequence[NDArray[np.uint8]] = ()) -> Draft:
    """A draft of the export in `source`, a file or the folder that holds it; `pictures` as for `import_onnx`.

    Raises:
        BadSource: it is no export of Ultralytics, does not run, or is of a task that has no anomalies.
        SettingOutOfRange: an option is wrong, or one is needed.
    """
    file = onnx_file_in(source)
    model = read_onnx(file)
    return _Import(file, model, read_metadata(file, model), wanted).draft(pictures)


class _Import:
    """One export on its way to a draft."""

    def __init__(
        self, file: Path, model: onnx.ModelProto, metadata: UltralyticsMetadata, wanted: UltralyticsOptions
    ) -> None:
        self._file, self._model, self._metadata, self._wanted = file, model, metadata, wanted
        self._edit = GraphEdit(model)
        self._notes = [
            f"{metadata.description or 'Ultralytics'}: {metadata.task}, {len(metadata.names)} classes "
            f"({listed(metadata.names)})."
        ]

    def draft(self, pictures: Sequence[NDArray[np.uint8]]) -> Draft:
        metadata, task = self._metadata, self._metadata.task
        self._refuse_other_tasks()
        read, prepare, usual = {
            "detect": (self._boxes, _letterbox, BOX_THRESHOLD),
            "segment": (self._boxes, _letterbox, BOX_THRESHOLD),
            "semantic": (self._semantic, _letterbox, CLASS_THRESHOLD),
            "classify": (self._classify, _torchvision_crop, CLASS_THRESHOLD),
        }[task]
        image = image_input(self._file, self._model, "NCHW")
        preprocessing, edits = fitted_input(self._edit, image, prepare(image, metadata))
        self._notes += edits
        outputs, labels = read(probe(self._file, self._model, preprocessing, pictures))
        threshold = usual if self._wanted.threshold is None else self._wanted.threshold
        if self._wanted.threshold is None:
            self._notes.append(f"Anomalous from a score of {threshold:g} on (--threshold).")
        return Draft(
            task="classification" if task == "classify" else "segmentation",
            preprocessing=preprocessing,
            outputs=outputs,
            decision=Decision(threshold=threshold),
            source=f"{self._file.name}, exported by Ultralytics {'.'.join(map(str, metadata.version))}".strip(),
            files={MODEL_FILE: serialised(self._model)},
            labels=labels,
            notes=self._notes,
        )

    def _refuse_other_tasks(self) -> None:
        metadata = self._metadata
        if metadata.task not in TASKS:
            raise BadSource(
                self._file,
                f"it is a model for {metadata.task!r}, and its answers are no anomalies",
                "train one of detect, segment, semantic or classify on the same pictures",
            )
        if "rtdetr" in (metadata.head + metadata.description).lower().replace("-", ""):
            raise BadSource(
                self._file, "it is an RT-DETR, whose boxes come in another form", "train a YOLO model on the same data"
            )

    # Boxes ----------------------------------------------------------------------------------------------------------

    def _boxes(self, answers: Answers) -> tuple[Outputs, list[Label]]:
        head, prototypes = self._heads(answers)
        layout, coefficients = self._layout(answers[0][head].shape, answers[0].get(prototypes or ""))
        painted, labels = painted_labels(self._file, self._types(), self._normal_ids(), "--class")
        how = "instance masks" if coefficients else "whole boxes"
        self._notes.append(
            f"The score is the highest confidence of a class that is not normal; where it reaches the threshold, {how} "
            f"are painted as {listed([label.name for label in labels[1:]])} (--class, --normal)."
        )
        return Outputs(boxes=Boxes(tensor=head, layout=layout, labels=painted, prototypes=prototypes)), labels

    def _heads(self, answers: Answers) -> tuple[str, str | None]:
        """The output with the boxes, and that with the prototypes of instance masks."""
        heads = [name for name, values in answers[0].items() if values.ndim == 3]
        prototypes = [name for name, values in answers[0].items() if values.ndim == 4]
        if len(heads) != 1 or (self._metadata.task == "segment") != (len(prototypes) == 1):
            shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in answers[0].items())
            raise BadSource(
                self._file, f"its outputs are not those of a {self._metadata.task} model: {shapes}", EXPORT_AGAIN
            )
        return heads[0], next(iter(prototypes), None)

    def _layout(
        self, shape: tuple[int, ...], prototypes: NDArray[np.generic] | None
    ) -> tuple[Literal["anchors", "rows"], int]:
        """How the boxes lie in their output, and how many mask coefficients each has."""
        coefficients = 0 if prototypes is None else prototypes.shape[1]
        classes = len(self._metadata.names)
        if shape[2] == 6 + coefficients:
            return "rows", coefficients
        if shape[1] == 4 + classes + coefficients:
            return "anchors", coefficients
        raise BadSource(
            self._file,
            f"its boxes are {list(shape)}: neither (1, {4 + classes + coefficients}, boxes) nor "
            f"(1, boxes, {6 + coefficients})",
            EXPORT_AGAIN,
        )

    # Classes of the image or of its pixels --------------------------------------------------------------------------

    def _classify(self, answers: Answers) -> tuple[Outputs, list[Label]]:
        if self._wanted.types:
            raise SettingOutOfRange("--class", "given", "left out: a classifier has no mask to paint types in")
        output = self._only_output(answers)
        count = answers[0][output].size
        if count != len(self._metadata.names):
            raise BadSource(self._file, f"it gives {count} numbers for its classes", EXPORT_AGAIN)
        self._notes.append("The score is the sum of the probabilities of the classes that are not normal.")
        return Outputs(class_scores=output, normal_class_ids=self._told_normal_ids()), []

    def _semantic(self, answers: Answers) -> tuple[Outputs, list[Label]]:
        output = self._only_output(answers)
        values, count = answers[0][output], len(self._metadata.names)
        painted, labels = painted_labels(self._file, self._types(), self._told_normal_ids(), "--class")
        if values.dtype.kind in "iu":  # since 8.4 the graph chooses the class of each pixel itself
            self._notes.append("The score is 1 where any pixel is of a class that is not normal, else 0.")
            return Outputs(class_mask=self._edit.one_hot(output, values.ndim, count), mask_labels=painted), labels
        if values.ndim != 4 or values.shape[1] != count:
            raise BadSource(self._file, f"its mask is {list(values.shape)}, not (1, {count}, h, w)", EXPORT_AGAIN)
        self._notes.append("The score is the highest probability of a class that is not normal in any pixel.")
        return Outputs(class_mask=output, mask_activation="softmax", mask_labels=painted), labels

    def _only_output(self, answers: Answers) -> str:
        if len(answers[0]) != 1:
            raise BadSource(self._file, f"it has {len(answers[0])} outputs, and its task one", EXPORT_AGAIN)
        return next(iter(answers[0]))

    def _told_normal_ids(self) -> list[int]:
        """As `_normal_ids`, for tasks in which some class is always the likeliest: a normal one is needed."""
        ids = self._normal_ids()
        if not ids:
            known = f"the name or index of each normal class: one of {listed(self._metadata.names)}"
            raise SettingOutOfRange("--normal", "not given", known)
        return ids

    # Of all tasks ---------------------------------------------------------------------------------------------------

    def _types(self) -> list[str]:
        """For each class what it paints."""
        names = self._metadata.names
        unknown = sorted(set(self._wanted.types) - set(names))
        if unknown:
            raise SettingOutOfRange("--class", repr(unknown[0]), f"CLASS=ANOMALY-TYPE of one of {listed(names)}")
        return [self._wanted.types.get(name, name) for name in names]

    def _normal_ids(self) -> list[int]:
        """The classes told to be normal, else those named so, and those that paint `background`."""
        names = self._metadata.names
        if self._wanted.normal:
            told = normal_ids(self._wanted.normal, names, len(names))
        else:
            told = [index for index in guessed_normal_ids(names) if names[index] not in self._wanted.types]
        ids = sorted({*told, *(index for index, name in enumerate(self._types()) if name == BACKGROUND)})
        if len(ids) == len(names):
            raise SettingOutOfRange("--normal", listed(names), "fewer than all classes: one has to be an anomaly")
        if ids:
            self._notes.append(f"Normal: {listed([names[index] for index in ids])} (--normal).")
        return ids


def _letterbox(image: ImageInput, metadata: UltralyticsMetadata) -> AgentPreprocessing:
    """As `LetterBox` with OpenCV's INTER_LINEAR, which does not smooth when it shrinks."""
    return AgentPreprocessing(
        tensor=image.name,
        width=image.width or metadata.width,
        height=image.height or metadata.height,
        dtype=image.dtype,
        antialias=False,
        resize="letterbox",
    )


def _torchvision_crop(image: ImageInput, metadata: UltralyticsMetadata) -> AgentPreprocessing:
    """As `classify_transforms`: a square by the shorter side and a centre crop, else stretched; /255, no mean."""
    width, height = image.width or metadata.width, image.height or metadata.height
    with_opencv = bool(metadata.version) and metadata.version < FIRST_TORCHVISION_CROP
    return AgentPreprocessing(
        tensor=image.name,
        width=width,
        height=height,
        dtype=image.dtype,
        antialias=not with_opencv,
        resize="crop" if width == height else "stretch",
    )
