"""Figures of masks, per anomaly type; added up image by image, so that memory stays flat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Region, rgb
from agent.packages.palette import BACKGROUND
from agent.workbench.dataset.labelled_folder import ANOMALY_TYPE
from agent.workbench.evaluation.metrics import Counts, ratio

Masks = Mapping[str, NDArray[np.bool_]]
"""Anomaly type to where it is: bool, (height, width)."""


@dataclass(frozen=True)
class ClassMetrics:
    """Of the pixels of one anomaly type."""

    name: str
    counts: Counts
    """Pixels, summed over all images."""
    average_iou: float
    """Mean over the images where truth or prediction has the type of |truth and prediction| / |truth or prediction|."""
    images: int
    """How many those are."""


class PixelMetrics:
    """Collects masks with a known truth."""

    def __init__(self) -> None:
        self._types: dict[str, _Sums] = defaultdict(_Sums)
        self._any = _Sums()
        self._true_types: set[str] = set()
        self._predicted_types: set[str] = set()
        self._has_masks = False

    def add(self, truth: Masks, predicted: Masks) -> None:
        """One image: every type that is drawn in its truth, and every one that the model found."""
        self._has_masks = True
        self._true_types |= {name for name, mask in truth.items() if mask.any()}
        self._predicted_types |= {name for name, mask in predicted.items() if mask.any()}
        for name in truth.keys() | predicted.keys():
            self._types[name].add(truth.get(name), predicted.get(name))
        self._any.add(_union(truth), _union(predicted))

    @property
    def classes(self) -> list[ClassMetrics]:
        """Per anomaly type that is drawn or was found, by name; empty where the truth draws none.

        Where one side tells types and the other only `anomaly`, all of them are one type.
        """
        if not self._true_types:  # masks of good images alone would show every speck, and nothing that was found
            return []
        names = sorted(self._true_types | self._predicted_types)
        if self._merged:
            return [self._any.metrics(self._merged)]
        return [self._types[name].metrics(name) for name in names]

    @property
    def notes(self) -> list[str]:
        """What the reader of the figures should know, a sentence each."""
        if self._merged:
            side = "model" if self._predicted_types == {ANOMALY_TYPE} else "truth"
            types = ", ".join(sorted((self._true_types | self._predicted_types) - {ANOMALY_TYPE}))
            return [f"The {side} tells no types of anomalies: whatever it marks is compared with {types}."]
        if self._has_masks and not self._true_types:
            return ["The model draws masks, but no anomaly is drawn in the truth: nothing is said of pixels."]
        return [
            f"Nothing of the type '{one.name}' {why}: its {figure} is shown as 0."
            for one in self.classes
            for why, figure, whole in (
                ("was found", "precision", one.counts.true_positives + one.counts.false_positives),
                ("is drawn in the truth", "recall", one.counts.true_positives + one.counts.false_negatives),
            )
            if whole == 0
        ]

    @property
    def _merged(self) -> str:
        """The one name for all types where one side tells types and the other does not; empty elsewhere."""
        true, predicted = self._true_types, self._predicted_types
        if not true or not predicted or true == predicted or {ANOMALY_TYPE} not in (true, predicted):
            return ""
        told = sorted((true | predicted) - {ANOMALY_TYPE})
        return told[0] if len(told) == 1 else ANOMALY_TYPE


class _Sums:
    """What is added up of one type."""

    def __init__(self) -> None:
        self._both = self._true = self._predicted = self._images = 0
        self._iou = 0.0

    def add(self, truth: NDArray[np.bool_] | None, predicted: NDArray[np.bool_] | None) -> None:
        """None: nowhere."""
        true = 0 if truth is None else int(np.count_nonzero(truth))
        found = 0 if predicted is None else int(np.count_nonzero(predicted))
        if true == found == 0:
            return
        both = 0 if truth is None or predicted is None else int(np.count_nonzero(truth & predicted))
        self._both, self._true, self._predicted = self._both + both, self._true + true, self._predicted + found
        self._iou += both / (true + found - both)
        self._images += 1

    def metrics(self, name: str) -> ClassMetrics:
        counts = Counts(self._both, self._predicted - self._both, self._true - self._both)
        return ClassMetrics(name, counts, ratio(self._iou, self._images), self._images)


def masks_of_labels(labels: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """The masks of a truth: `labels` (uint8, (height, width)) are indices into `names`, background first."""
    present = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    return {names[index]: labels == index for index in present if index}


def masks_of_regions(mask: NDArray[np.uint8], regions: Sequence[Region]) -> dict[str, NDArray[np.bool_]]:
    """The masks of an answer: `mask` (uint8, (height, width, 3), RGB) is painted in the colours of `regions`."""
    return {
        region.name: np.logical_and.reduce(
            [mask[..., channel] == value for channel, value in enumerate(rgb(region.color))]
        )
        for region in regions
        if region.name != BACKGROUND
    }


def _union(masks: Masks) -> NDArray[np.bool_] | None:
    return np.logical_or.reduce(list(masks.values())) if masks else None
