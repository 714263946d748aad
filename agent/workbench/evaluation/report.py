"""One page of pictures for a person: scores by class, confusion matrix, ROC and precision over recall."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from agent.workbench.contact_sheet import INK, PAPER, UNKNOWN, WRONG
from agent.workbench.evaluation.evaluation import Evaluation

NORMAL_COLOUR, ANOMALOUS_COLOUR, CURVE = "#4C78A8", "#E07B39", "#33658A"
"""Blue and orange are told apart by those who do not see red and green."""
INCHES = (12, 9)
DOTS_PER_INCH = 110
BINS = 25


def report(evaluation: Evaluation, title: str) -> Figure:
    """The page; save it with `savefig`. What cannot be drawn (one class is missing) says so in its place."""
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.2, h_pad=0.2)  # type: ignore[union-attr, call-arg]
    figure.suptitle(title, fontsize=15, color=INK, parse_math=False)
    (scores, confusion), (roc, precision) = figure.subplots(2, 2)
    _draw_scores(scores, evaluation)
    _draw_confusion(confusion, evaluation)
    _draw_roc(roc, evaluation)
    _draw_precision(precision, evaluation)
    return figure


def _draw_scores(axes: Axes, evaluation: Evaluation) -> None:
    truth, scores, threshold = evaluation.truth, evaluation.scores, evaluation.threshold
    by_class = [scores[~truth], scores[truth]]
    labels = [f"normal ({by_class[0].size})", f"anomalous ({by_class[1].size})"]
    colours = [NORMAL_COLOUR, ANOMALOUS_COLOUR]
    axes.hist(by_class, _edges(threshold), stacked=True, color=colours, label=labels, edgecolor=PAPER, linewidth=0.8)
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.4, label=f"threshold {threshold:g}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(top=axes.get_ylim()[1] * 1.12)
    _dress(axes, "Anomaly scores", "score", "images")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, fontsize=10)


def _edges(threshold: float) -> list[float]:
    """Of the bars: the threshold is one of them, so that no bar is on both sides of it."""
    below = min(BINS - 1, max(1, round(BINS * threshold)))
    edges = [*np.linspace(0, threshold, below + 1), *np.linspace(threshold, 1, BINS - below + 1)]
    return sorted(set(map(float, edges)))


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    counts = metrics.counts
    table = np.array(
        [[metrics.true_negatives, counts.false_positives], [counts.false_negatives, counts.true_positives]]
    )
    shares = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=2.2, aspect="auto")  # never so dark that ink is lost on it
    names = [["right", "false alarm"], ["missed", "right"]]
    for row, column in np.ndindex(2, 2):
        is_wrong = row != column and table[row, column] > 0
        colour = WRONG if is_wrong else INK
        axes.text(column, row - 0.06, str(table[row, column]), ha="center", va="center", fontsize=24, color=colour)
        axes.text(column, row + 0.2, names[row][column], ha="center", va="center", fontsize=10, color=colour)
    axes.set_xticks([0, 1], ["normal", "anomalous"])
    axes.set_yticks([0, 1], ["normal", "anomalous"], rotation=90, va="center")
    axes.tick_params(length=0)
    _dress(
        axes,
        f"Verdicts: precision {counts.precision:.3f}, recall {counts.recall:.3f}, F1 {counts.f1:.3f}",
        "the model says",
        "the truth",
    )
    axes.spines[:].set_visible(False)


def _draw_roc(axes: Axes, evaluation: Evaluation) -> None:
    truth = evaluation.truth
    _dress(axes, "ROC", "false alarms among normal images", "found among anomalous images")
    if truth.all() or not truth.any():
        _say(axes, "needs normal and anomalous images")
        return
    axes.set_title(f"ROC: area {evaluation.metrics.roc_auc:.4f}", loc="left", fontsize=12, color=INK)
    false_positive, true_positive, _ = roc_curve(truth, evaluation.scores, drop_intermediate=False)
    axes.plot([0, 1], [0, 1], color=UNKNOWN, linewidth=1, linestyle=":", label="guessing")
    axes.plot(false_positive, true_positive, color=CURVE, linewidth=2, clip_on=False)
    counts, negatives = evaluation.metrics.counts, int((~truth).sum())
    _mark(axes, counts.false_positives / negatives, counts.recall)
    _square(axes)
    axes.legend(frameon=False, fontsize=10, loc="lower right")


def _draw_precision(axes: Axes, evaluation: Evaluation) -> None:
    truth = evaluation.truth
    _dress(axes, "Precision and recall", "recall", "precision")
    if not truth.any():
        _say(axes, "needs anomalous images")
        return
    average = evaluation.metrics.average_precision
    axes.set_title(f"Precision and recall: average precision {average:.4f}", loc="left", fontsize=12, color=INK)
    precision, recall, _ = precision_recall_curve(truth, evaluation.scores)
    axes.step(recall, precision, where="post", color=CURVE, linewidth=2, clip_on=False)
    axes.axhline(float(truth.mean()), color=UNKNOWN, linewidth=1, linestyle=":", label="calling everything anomalous")
    _mark(axes, evaluation.metrics.counts.recall, evaluation.metrics.counts.precision)
    _square(axes)
    axes.legend(frameon=False, fontsize=10, loc="lower left")


def _mark(axes: Axes, x: float, y: float) -> None:
    """Where the model's verdicts are on a curve."""
    style = {"color": ANOMALOUS_COLOUR, "markeredgecolor": INK, "markersize": 9, "linestyle": "none"}
    axes.plot([x], [y], marker="o", label="at the threshold", clip_on=False, zorder=3, **style)  # type: ignore[arg-type]


def _square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=UNKNOWN, fontsize=12, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
