"""What a model's outputs mean: score, verdict, confidence, label of every pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.errors import AnswerNotFinite, ModelDoesNotFit
from agent.images.detection import SCORE_DECIMALS
from agent.packages.manifest import (
    Activation,
    Calibration,
    Combination,
    Decision,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
)

Tensors = Mapping[str, NDArray[Any]]

COMBINED: dict[Combination, Callable[[bool, bool], bool]] = {
    "class": lambda by_score, by_mask: by_score,
    "mask": lambda by_score, by_mask: by_mask,
    "class and mask": lambda by_score, by_mask: by_score and by_mask,
    "class or mask": lambda by_score, by_mask: by_score or by_mask,
}
"""Verdict from the score's verdict and from whether the mask shows any anomaly."""


def image_score(tensors: Tensors, manifest: Manifest, inspected: NDArray[np.bool_] | None) -> float:
    """The calibrated anomaly score, 0..1, not rounded.

    The named score, else the sum over the class scores that are not normal, else the maximum of the anomaly map, else
    the highest probability of anomaly in the class mask. `inspected` (bool, (height, width) of the inspected part)
    leaves the pixels of an ignore mask out of the two last.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: an output has not the shape its manifest says.
    """
    outputs = manifest.outputs
    if outputs.score is not None:
        raw = _one_number(tensors, outputs.score)
    elif outputs.class_scores is not None:
        scores = activate(_finite(tensors, outputs.class_scores).ravel(), outputs.class_activation)
        normal = sorted(set(outputs.normal_class_ids))
        if normal[-1] >= scores.size:
            raise ModelDoesNotFit(
                f"'{outputs.class_scores}' has {scores.size} classes; class {normal[-1]} is none of them"
            )
        # In float64: sums of large float32 scores would be infinite.
        raw = float(np.delete(scores, normal).sum(dtype=np.float64))
    elif outputs.anomaly_map is not None:
        raw = _maximum(anomaly_map(tensors, outputs.anomaly_map), inspected)
    else:
        assert outputs.class_mask is not None  # the manifest names at least one output
        channels = activate(class_channels(tensors, manifest), outputs.mask_activation)
        anomalous = [channel for channel, label in enumerate(_channel_labels(manifest)) if label != 0]
        raw = _maximum(channels[anomalous].sum(axis=0), inspected)
    return calibrate(raw, manifest.decision.calibration)


def calibrate(raw: float, calibration: Calibration) -> float:
    """`raw` in the package's unit as 0..1; the formulas stand with the manifest's types."""
    if isinstance(calibration, LinearCalibration):
        raw = (raw - calibration.center) / calibration.range + 0.5
    elif isinstance(calibration, LogisticCalibration):
        x = raw / calibration.maximum if calibration.maximum > 1 else raw
        # exp overflows beyond 709; the score is 0 or 1 long before.
        raw = 1 / (1 + math.exp(min(700.0, max(-700.0, calibration.a * x + calibration.b))))
    return min(1.0, max(0.0, raw))


def decide(score: float, decision: Decision, mask_shows_anomaly: bool) -> tuple[bool, float, float, float]:
    """Verdict, confidence, rounded score and rounded threshold."""
    score, threshold = round(score, SCORE_DECIMALS), round(decision.threshold, SCORE_DECIMALS)
    is_anomalous = COMBINED[decision.combination](score >= threshold, mask_shows_anomaly)
    return is_anomalous, score if is_anomalous else round(1 - score, SCORE_DECIMALS), score, threshold


def pixel_labels(tensors: Tensors, manifest: Manifest, width: int, height: int) -> NDArray[np.uint8]:
    """The label index of every pixel of the inspected part: uint8, (height, width).

    Maps are resized bilinearly and then compared with the pixel threshold; class masks take the largest channel and are
    resized to the nearest neighbour.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
    """
    outputs = manifest.outputs
    if outputs.anomaly_map is not None:
        values = anomaly_map(tensors, outputs.anomaly_map)
        threshold = manifest.decision.pixel_threshold
        if values.max() < threshold:  # interpolation never exceeds the maximum: most good images end here
            return np.zeros((height, width), np.uint8)
        return np.asarray(resize_map(values, width, height) >= threshold).view(np.uint8)
    by_channel = np.array(_channel_labels(manifest), np.uint8)
    labels: NDArray[np.uint8] = by_channel[class_channels(tensors, manifest).argmax(axis=0)]
    if labels.shape == (height, width):
        return labels
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def resize_map(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """`values` (float32, (h, w)) resized bilinearly to (height, width)."""
    if values.shape == (height, width):
        return values
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))


def anomaly_map(tensors: Tensors, name: str) -> NDArray[np.float32]:
    """The map as float32, (h, w)."""
    values = _finite(tensors, name)
    if values.ndim < 2 or values.size != values.shape[-1] * values.shape[-2]:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; an anomaly map is (1, 1, h, w)")
    return values.reshape(values.shape[-2:]).astype(np.float32, copy=False)


def class_channels(tensors: Tensors, manifest: Manifest) -> NDArray[np.float32]:
    """The class mask as float32, (channels, h, w)."""
    name = manifest.outputs.class_mask
    assert name is not None  # only asked for where the manifest names one
    values = _finite(tensors, name)
    wanted = len(manifest.mask_labels)
    if values.ndim < 3 or values.shape[-3] != wanted or values.size != wanted * values.shape[-1] * values.shape[-2]:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; the manifest labels {wanted} channels")
    return values.reshape(values.shape[-3:]).astype(np.float32, copy=False)


def activate(values: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """`values` as probabilities; softmax goes over the first axis."""
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    if activation == "softmax":
        shifted = np.exp(values - values.max(axis=0, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=0, keepdims=True), np.float32)
    return values


def _channel_labels(manifest: Manifest) -> list[int]:
    names = [label.name for label in manifest.labels]
    return [names.index(name) for name in manifest.mask_labels]


def _finite(tensors: Tensors, name: str) -> NDArray[Any]:
    values = tensors[name]
    if values.size == 0:
        raise ModelDoesNotFit(f"'{name}' is empty")
    if not np.isfinite(values).all():
        raise AnswerNotFinite(name)
    return values


def _one_number(tensors: Tensors, name: str) -> float:
    values = _finite(tensors, name)
    if values.size != 1:  # which of them it is, nobody could tell
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; a score is one number")
    return float(values.item())


def _maximum(values: NDArray[np.float32], inspected: NDArray[np.bool_] | None) -> float:
    if inspected is None:
        return float(values.max())
    height, width = inspected.shape
    kept = resize_map(values, width, height)[inspected]
    return float(kept.max()) if kept.size else 0.0
