"""Two evaluations of the same images, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.workbench.evaluation.evaluation import Answer, Evaluation


@dataclass(frozen=True)
class Difference:
    """One figure of both models."""

    figure: str
    first: float
    second: float

    @property
    def change(self) -> float:
        """From the first to the second."""
        return self.second - self.first


def figures(evaluation: Evaluation) -> dict[str, float]:
    """Every figure of an evaluation by its name, image figures first."""
    metrics = evaluation.metrics
    named = {
        "precision": metrics.counts.precision,
        "recall": metrics.counts.recall,
        "F1": metrics.counts.f1,
        "ROC AUC": metrics.roc_auc,
        "average precision": metrics.average_precision,
    }
    for one in evaluation.classes:
        named |= {
            f"{one.name}: pixel precision": one.counts.precision,
            f"{one.name}: pixel recall": one.counts.recall,
            f"{one.name}: pixel F1": one.counts.f1,
            f"{one.name}: average IoU": one.average_iou,
        }
    return named


def differences(first: Evaluation, second: Evaluation) -> list[Difference]:
    """The figures that both have."""
    other = figures(second)
    return [Difference(name, value, other[name]) for name, value in figures(first).items() if name in other]


def changed_verdicts(first: Evaluation, second: Evaluation) -> list[tuple[Answer, Answer]]:
    """The answers to images of which the two models say different things, in the order of the images."""
    others: dict[Path, Answer] = {answer.image.path: answer for answer in second.answers}
    pairs = ((answer, others[answer.image.path]) for answer in first.answers if answer.image.path in others)
    return [(one, other) for one, other in pairs if one.detection.is_anomalous != other.detection.is_anomalous]
