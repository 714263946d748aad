"""What a model's outputs mean: score, verdict, confidence, label of every pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import ModelDoesNotFit
from agent.images.box_painting import paint_boxes
from agent.images.boxes import Detections, detections
from agent.images.detection import SCORE_DECIMALS
from agent.images.inspected import Inspected
from agent.images.maps import labels_where_reached, nearest_labels, values_that_count
from agent.images.outputs import Tensors, activate, anomaly_map, channel_labels, class_channels, finite, one_number
from agent.images.placement import Placement
from agent.packages.manifest import (
    Calibration,
    Combination,
    Decision,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
)

COMBINED: dict[Combination, Callable[[bool, bool], bool]] = {
    "class": lambda by_score, by_mask: by_score,
    "mask": lambda by_score, by_mask: by_mask,
    "class and mask": lambda by_score, by_mask: by_score and by_mask,
    "class or mask": lambda by_score, by_mask: by_score or by_mask,
}
"""Verdict from the score's verdict and from whether the mask shows any anomaly."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model answered to one image, and all that is needed to read it."""

    tensors: Tensors
    manifest: Manifest
    placement: Placement
    """Where the inspected part of the image lies in the input tensor."""
    inspected: Inspected | None = None
    """None: no pixel is ignored."""

    @cached_property
    def detections(self) -> Detections:
        boxes = self.manifest.outputs.boxes
        assert boxes is not None  # only asked for where the manifest names them
        return detections(self.tensors, boxes, self.placement, self.inspected)

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32]:
        """(h, w)."""
        name = self.manifest.outputs.anomaly_map
        assert name is not None  # as above
        return anomaly_map(self.tensors, name)

    @cached_property
    def class_channels(self) -> NDArray[np.float32]:
        """(channels, h, w), as the graph gives them."""
        return class_channels(self.tensors, self.manifest)

    def counted(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those of a map's `values` ((h, w)) that count for the score, (N,)."""
        return values_that_count(values, self.placement, self.manifest.outputs.map_covers, self.inspected)


def image_score(answer: Answer) -> float:
    """The calibrated anomaly score, 0..1, not rounded.

    The named score, else the sum over the class scores that are not normal, else what the mask's output makes: the
    maximum of the anomaly map, the maximum or mean probability of anomaly in the class mask, the best box. To these
    only pixels of the image count that no ignore mask covers; where there are none, it is that of 0.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: an output has not the shape that its manifest says.
    """
    outputs, tensors = answer.manifest.outputs, answer.tensors
    if outputs.score is not None:
        raw = one_number(tensors, outputs.score)
    elif outputs.class_scores is not None:
        # Probabilities of a float16 graph would be off in the fourth decimal.
        given = finite(tensors, outputs.class_scores).ravel().astype(np.float32, copy=False)
        scores = activate(given, outputs.class_activation)
        normal = sorted(set(outputs.normal_class_ids))
        if normal[-1] >= scores.size:
            raise ModelDoesNotFit(
                f"'{outputs.class_scores}' has {scores.size} classes; class {normal[-1]} is none of them"
            )
        # In float64: sums of large float32 scores would be infinite.
        raw = float(np.delete(scores, normal).sum(dtype=np.float64))
    elif outputs.anomaly_map is not None:
        raw = _maximum(answer.counted(answer.anomaly_map))
    elif outputs.class_mask is not None:
        raw = _class_mask_score(answer)
    else:
        raw = _maximum(answer.detections.scores)
    return float(calibrate(raw, answer.manifest.decision.calibration))


def _class_mask_score(answer: Answer) -> float:
    outputs = answer.manifest.outputs
    channels = activate(answer.class_channels, outputs.mask_activation)
    if outputs.mask_score == "mean":
        values = answer.counted(channels.mean(axis=0))
        return float(values.mean(dtype=np.float64)) if values.size else 0.0
    anomalous = [channel for channel, label in enumerate(channel_labels(answer.manifest)) if label != 0]
    return _maximum(answer.counted(channels[anomalous].sum(axis=0)))


def _maximum(values: NDArray[Any]) -> float:
    """Of `values` ((N,)); 0 where there are none."""
    return float(values.max()) if values.size else 0.0


def calibrate(raw: float | NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """`raw` in the package's unit as 0..1, one by one; the formulas stand with the manifest's types."""
    values = np.asarray(raw, np.float64)
    with np.errstate(over="ignore"):  # infinity becomes 0 or 1
        if isinstance(calibration, LinearCalibration):
            values = (values - calibration.center) / calibration.range + 0.5
        elif isinstance(calibration, LogisticCalibration):
            x = values / calibration.maximum if calibration.maximum > 1 else values
            # exp overflows beyond 709; the score is 0 or 1 long before.
            values = 1 / (1 + np.exp(np.clip(calibration.a * x + calibration.b, -700, 700)))
    return np.asarray(np.clip(values, 0, 1))


def decide(score: float, decision: Decision, mask_shows_anomaly: bool) -> tuple[bool, float, float, float]:
    """Verdict, confidence, rounded score and rounded threshold."""
    is_anomalous = COMBINED[decision.combination](_reaches(score, decision), mask_shows_anomaly)
    score, threshold = round(score, SCORE_DECIMALS), round(decision.threshold, SCORE_DECIMALS)
    return is_anomalous, score if is_anomalous else round(1 - score, SCORE_DECIMALS), score, threshold


def _reaches(score: float, decision: Decision) -> bool:
    """Whether a calibrated score is at least the threshold, in the decimals that are sent."""
    return round(score, SCORE_DECIMALS) >= round(decision.threshold, SCORE_DECIMALS)


def pixel_labels(answer: Answer) -> NDArray[np.uint8]:
    """The label index of every pixel of the inspected part of the image: uint8, (height, width).

    Maps are resized bilinearly and then compared with the pixel threshold; class masks take the largest channel and are
    resized to the nearest neighbour; boxes that reach the threshold are painted. What the model did not see, and what
    is ignored, is background.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: an output has not the shape that its manifest says.
    """
    manifest, placement = answer.manifest, answer.placement
    outputs = manifest.outputs
    if outputs.anomaly_map is not None:
        threshold = manifest.decision.pixel_threshold
        labels = labels_where_reached(answer.anomaly_map, threshold, placement, outputs.map_covers)
    elif outputs.class_mask is not None:
        channels = answer.class_channels
        if outputs.mask_bias:
            channels = channels + np.array(outputs.mask_bias, np.float32)[:, None, None]
        by_channel = np.array(channel_labels(manifest), np.uint8)
        labels = nearest_labels(by_channel[channels.argmax(axis=0)], placement, outputs.map_covers)
    else:
        reaching = answer.detections.where(_reach(answer.detections.scores, manifest.decision))
        assert outputs.boxes is not None  # the manifest names one of the three for segmentation
        labels = paint_boxes(reaching, outputs.boxes, [label.name for label in manifest.labels], placement)
    if answer.inspected is not None:
        labels = labels * answer.inspected.pixels
    return labels


def _reach(scores: NDArray[np.float64], decision: Decision) -> NDArray[np.bool_]:
    """For each of `scores` (as the graph gives them) whether it makes a box, or an image, anomalous."""
    calibrated = calibrate(scores, decision.calibration)
    reach = calibrated >= decision.threshold - 10**-SCORE_DECIMALS
    # Rounded one by one: NumPy rounds some decimals another way, and the verdict must agree with what is painted.
    for index in np.flatnonzero(reach):
        reach[index] = _reaches(float(calibrated[index]), decision)
    return np.asarray(reach)
