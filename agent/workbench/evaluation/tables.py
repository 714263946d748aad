"""What `edge-agent evaluate` prints of evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from agent.workbench.evaluation.client_rules import ClientRules
from agent.workbench.evaluation.comparison import changed_verdicts, differences
from agent.workbench.evaluation.evaluation import Answer, Evaluation
from agent.workbench.evaluation.metrics import ImageMetrics
from agent.workbench.evaluation.mistakes import kind_of, worst_first

SHOWN = 10
"""How many answers of one kind are listed; all are in the files."""
NAMED = 5
"""How many files are named in a sentence."""


def summary(evaluation: Evaluation) -> str:
    """Which model on which images, the confusion matrix and the figures of whole images."""
    model, metrics = evaluation.model, evaluation.metrics
    counts = metrics.counts
    normal, anomalous = counts.false_positives + metrics.true_negatives, counts.true_positives + counts.false_negatives
    head = f"{title(evaluation)}: {len(evaluation.answers)} images, {normal} normal and {anomalous} anomalous"
    if model.arn:
        head += f"\n{model.arn}"
    figures = tabulate(
        [
            ("precision", counts.precision, "of those called anomalous, this fraction is"),
            ("recall", counts.recall, "of those that are anomalous, this fraction is found"),
            ("F1", counts.f1, "harmonic mean of both"),
            ("ROC AUC", metrics.roc_auc, "how well scores tell them apart, whatever the threshold"),
            ("average precision", metrics.average_precision, "mean precision over all thresholds"),
        ],
        headers=["figure", f"at {evaluation.threshold:g}", ""],
        floatfmt=".4f",
    )
    return f"{head}\n\n{_confusion(metrics, 'called normal', 'called anomalous')}\n\n{figures}"


def client_table(evaluation: Evaluation, rules: ClientRules) -> str:
    """What a client with rules of its own makes of the answers."""
    metrics = rules.metrics(evaluation)
    counts = metrics.counts
    return (
        f"A client that rejects what is {rules}:\n\n{_confusion(metrics, 'passed', 'rejected')}\n\n"
        f"precision {counts.precision:.4f}, recall {counts.recall:.4f}, F1 {counts.f1:.4f}"
    )


def title(evaluation: Evaluation) -> str:
    """The model's name and version."""
    return f"{evaluation.model.name} {evaluation.model.version}".rstrip()


def types_table(evaluation: Evaluation) -> str:
    """The figures of masks, a line per anomaly type."""
    rows = [
        (one.name, one.counts.precision, one.counts.recall, one.counts.f1, one.average_iou, one.images)
        for one in evaluation.classes
    ]
    headers = ["anomaly type", "pixel precision", "pixel recall", "pixel F1", "average IoU", "images"]
    return tabulate(rows, headers=headers, floatfmt=".4f")


def mistakes_table(evaluation: Evaluation) -> str:
    """The wrong verdicts, the farthest from the threshold first."""
    wrong = [answer for answer in worst_first(evaluation.answers) if not answer.is_right]
    rows = [
        (answer.image.path.name, kind_of(answer), answer.detection.score, answer.detection.threshold)
        for answer in wrong[:SHOWN]
    ]
    table = tabulate(rows, headers=["mistake", "", "score", "threshold"], floatfmt=".4f")
    return table if len(wrong) <= SHOWN else f"{table}\n... and {len(wrong) - SHOWN} more"


def comparison(first: Evaluation, second: Evaluation) -> str:
    """Every figure that both have, and the images of which they say different things."""
    names = _told_apart(title(first), title(second))
    figures = tabulate(
        [(one.figure, one.first, one.second, f"{one.change:+.4f}") for one in differences(first, second)],
        headers=["figure", *names, "difference"],
        floatfmt=".4f",
        disable_numparse=[3],
        colalign=("left", "right", "right", "right"),
    )
    changed = changed_verdicts(first, second)
    if not changed:
        return f"{figures}\n\nBoth give the same verdict on every image."
    rows = [
        (one.image.path.name, "anomalous" if one.image.is_anomalous else "normal", _said(one), _said(other))
        for one, other in changed[:SHOWN]
    ]
    verdicts = tabulate(rows, headers=["verdict differs", "truth", *names], disable_numparse=True)
    more = f"\n... and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{figures}\n\n{verdicts}{more}"


def left_out(evaluation: Evaluation) -> Iterator[str]:
    """Which images count in no figure, and why, a sentence each."""
    if evaluation.unlabelled:
        yield f"Left out, because nobody has labelled them: {_named(evaluation.unlabelled)}."
    if evaluation.refused:
        named, first_reason = _named([path for path, _ in evaluation.refused]), evaluation.refused[0][1]
        yield f"Left out, because they could not be compared: {named}. The first one: {first_reason}"


def _confusion(metrics: ImageMetrics, negative: str, positive: str) -> str:
    counts = metrics.counts
    rows = [
        ("truth: normal", metrics.true_negatives, counts.false_positives),
        ("truth: anomalous", counts.false_negatives, counts.true_positives),
    ]
    return tabulate(rows, headers=["", negative, positive])


def _named(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:NAMED])
    return names if len(paths) <= NAMED else f"{names} and {len(paths) - NAMED} more ({len(paths)} together)"


def _said(answer: Answer) -> str:
    detection = answer.detection
    mark = "" if answer.is_right else " (wrong)"
    return f"{'anomalous' if detection.is_anomalous else 'normal'} {detection.score:.4f}{mark}"


def _told_apart(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first != second else (f"first: {first}", f"second: {second}")
