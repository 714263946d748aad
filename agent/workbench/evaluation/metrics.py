"""Figures of a model's verdicts and scores; positive means anomalous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score


@dataclass(frozen=True)
class Counts:
    """What was found, wrongly found and missed: images, or pixels. A figure whose denominator is 0 is 0."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """Fraction of what was found that is there: TP / (TP + FP)."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Fraction of what is there that was found: TP / (TP + FN)."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN)."""
        found_and_there = 2 * self.true_positives + self.false_positives + self.false_negatives
        return ratio(2 * self.true_positives, found_and_there)


@dataclass(frozen=True)
class ImageMetrics:
    """Of the verdicts and scores of whole images."""

    counts: Counts
    true_negatives: int
    roc_auc: float
    """Probability that an anomalous image scores higher than a normal one, ties counted half."""
    average_precision: float
    """Sum over the scores, from the highest down, of precision times the recall gained."""

    @property
    def notes(self) -> list[str]:
        """A sentence for each figure that is 0 because its denominator is."""
        return list(_notes(self.counts, self.true_negatives))


def image_metrics(truth: NDArray[np.bool_], verdicts: NDArray[np.bool_], scores: NDArray[np.float64]) -> ImageMetrics:
    """The metrics of N images: what is true of each, the model's verdict and its score (0..1), all of shape (N,)."""
    counts = Counts(int((truth & verdicts).sum()), int((~truth & verdicts).sum()), int((truth & ~verdicts).sum()))
    anomalous = int(truth.sum())
    return ImageMetrics(
        counts,
        int((~truth & ~verdicts).sum()),
        roc_auc=float(roc_auc_score(truth, scores)) if 0 < anomalous < truth.size else 0.0,
        average_precision=float(average_precision_score(truth, scores)) if anomalous else 0.0,
    )


def ratio(part: float, whole: float) -> float:
    """`part / whole`; 0 where there is no whole."""
    return part / whole if whole else 0.0


def _notes(counts: Counts, true_negatives: int) -> Iterator[str]:
    anomalous = counts.true_positives + counts.false_negatives
    if counts.true_positives + counts.false_positives == 0:
        yield "No image was called anomalous: precision is shown as 0."
    if anomalous == 0:
        yield "No image is anomalous: recall, ROC AUC and average precision are shown as 0."
    if counts.false_positives + true_negatives == 0:
        yield "No image is normal: ROC AUC is shown as 0, and precision says nothing."
