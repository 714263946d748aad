"""Labelled images through a model, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection
from agent.workbench.dataset.labelled_images import LabelledImage, check_labels
from agent.workbench.errors import (
    ImageNotInspected,
    ImageSizeNotAllowed,
    MaskDiffersInSize,
    NothingInspected,
    UnreadableImage,
)
from agent.workbench.evaluation.metrics import ImageMetrics, image_metrics
from agent.workbench.evaluation.pixel_metrics import ClassMetrics, PixelMetrics, masks_of_labels, masks_of_regions
from agent.workbench.inspection.inspector import InspectedModel, Inspector
from agent.workbench.mask_folder import MaskFolder

ADVISED_IMAGES = 10
"""Of each class: with fewer, one image more or less changes every figure (the original service's minimum)."""


@dataclass(frozen=True)
class Answer:
    """What the model said of a labelled image."""

    image: LabelledImage
    detection: Detection
    """Without its mask."""
    mask: Path | None
    """Where the mask is kept, as a PNG in the colours of the regions."""

    @property
    def is_right(self) -> bool:
        """Whether the verdict is the truth."""
        return self.detection.is_anomalous == self.image.is_anomalous


@dataclass(frozen=True)
class Evaluation:
    """All that came out of labelled images and a model."""

    model: InspectedModel
    answers: Sequence[Answer]
    """In the order of the images."""
    unlabelled: Sequence[Path]
    """Images of which nobody has said what they are; left out."""
    refused: Sequence[tuple[Path, str]]
    """Images that the model does not answer, or that cannot be read, or their masks; and why."""
    classes: Sequence[ClassMetrics]
    """Per anomaly type; empty where the truth draws none, or the model has no masks."""
    pixel_notes: Sequence[str]

    @property
    def truth(self) -> NDArray[np.bool_]:
        """(N,): which of the answered images are anomalous."""
        return np.array([answer.image.is_anomalous for answer in self.answers], np.bool_)

    @property
    def scores(self) -> NDArray[np.float64]:
        """(N,): anomaly scores, 0..1."""
        return np.array([answer.detection.score for answer in self.answers], np.float64)

    @property
    def verdicts(self) -> NDArray[np.bool_]:
        """(N,): which images the model calls anomalous."""
        return np.array([answer.detection.is_anomalous for answer in self.answers], np.bool_)

    @property
    def threshold(self) -> float:
        """Score from which on an image was called anomalous."""
        return self.answers[0].detection.threshold

    @property
    def metrics(self) -> ImageMetrics:
        """Of whole images."""
        return image_metrics(self.truth, self.verdicts, self.scores)

    @property
    def notes(self) -> list[str]:
        """What the reader of the figures should know, a sentence each."""
        return [*self.metrics.notes, *self.pixel_notes]

    @property
    def warnings(self) -> list[str]:
        """Why the figures may mean little, a sentence each."""
        anomalous = int(self.truth.sum())
        return [
            f"{count} {kind} image{'' if count == 1 else 's'}: use at least {ADVISED_IMAGES}, "
            "for with fewer a single image changes every figure."
            for kind, count in (("good", len(self.answers) - anomalous), ("anomalous", anomalous))
            if count < ADVISED_IMAGES
        ]


def evaluate(
    inspector: Inspector, images: Sequence[LabelledImage], masks: Path, progress: Callable[[], object]
) -> Evaluation:
    """Puts every labelled image through `inspector` and compares; masks are kept as PNGs in the new folder `masks`.

    `progress` is told after each image that is inspected. No more than one image is in memory at a time.

    Raises:
        NoLabelledImages, NotYetLabelled: none of the images has a label.
        NothingInspected: none of them got an answer.
        Refusal: the inspector cannot go on.
    """
    check_labels(images)
    labelled = [image for image in images if image.is_anomalous is not None]
    answers: list[Answer] = []
    refused: list[tuple[Path, str]] = []
    pixels = PixelMetrics()
    kept = MaskFolder(masks)
    for image in labelled:
        try:
            truth = None if image.mask is None else masks_of_labels(image.mask.labels, image.mask.names)
            detection = inspector.inspect(image.pixels)
        except (ImageNotInspected, UnreadableImage, ImageSizeNotAllowed, MaskDiffersInSize) as refusal:
            refused.append((image.path, str(refusal)))
        else:
            answers.append(Answer(image, replace(detection, mask=None), kept.keep(detection.mask, image.path)))
            if truth is not None and detection.mask is not None:
                pixels.add(truth, masks_of_regions(detection.mask, detection.regions))
        progress()
    if not answers:
        raise NothingInspected(len(refused), refused[0][1])
    unlabelled = [image.path for image in images if image.is_anomalous is None]
    return Evaluation(inspector.model, answers, unlabelled, refused, pixels.classes, pixels.notes)
