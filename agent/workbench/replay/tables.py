"""What `edge-agent replay` prints."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from agent.workbench.replay.replay import AreaChange, Change, Replay, Replayed

SHOWN = 20
"""How many pictures are listed; all are in the file of --json."""
AREAS = 2
"""How many anomaly types of one picture are listed, those that changed most."""


def summary(replay: Replay, tolerance: float) -> str:
    """Which models, how many verdicts changed and which way, and how the scores moved."""
    counted = tabulate(_counts(replay, tolerance), headers=["what changed", "pictures"])
    moved = tabulate(
        [[*(f"{change:+.4f}" for change in replay.score_percentiles.values()), f"{replay.mean_score_distance:.4f}"]],
        headers=["score now - then: lowest", "10 %", "median", "90 %", "highest", "mean distance"],
        disable_numparse=True,
        stralign="right",
    )
    head = f"{replay.models_then} then, {replay.models_now} now: {len(replay.replayed)} captured pictures"
    return f"{head}\n\n{counted}\n\n{moved}"


def pictures_table(replay: Replay) -> str:
    """A line per picture, the greatest changes first."""
    labelled = any(one.picture.is_anomalous is not None for one in replay.replayed)
    headers = ["picture", "verdict", *(["label says"] if labelled else []), "score", "threshold", "areas", "mask IoU"]
    rows = [_row(one, labelled) for one in replay.replayed[:SHOWN]]
    table = tabulate(rows, headers=headers, disable_numparse=True)
    more = len(replay.replayed) - SHOWN
    if more <= 0:
        return table
    changed = len(replay.changed) - SHOWN
    return f"{table}\n... and {more} more, {changed if changed > 0 else 'none'} of them changed"


def verdict(is_anomalous: bool) -> str:
    """In a word."""
    return "anomalous" if is_anomalous else "normal"


def areas(changes: Sequence[AreaChange]) -> str:
    """The areas that changed most, as people write them."""
    most_first = sorted(changes, key=lambda area: -abs(area.now - area.then))
    told = [
        f"{area.name} {area.now:.2%}" if area.now == area.then else f"{area.name} {area.then:.2%} -> {area.now:.2%}"
        for area in most_first[:AREAS]
    ]
    return ", ".join([*told, *(["..."] if len(most_first) > AREAS else [])])


def _counts(replay: Replay, tolerance: float) -> list[tuple[str, int]]:
    became_anomalous = [one for one in replay.flipped if one.now.is_anomalous]
    became_normal = [one for one in replay.flipped if not one.now.is_anomalous]
    figures = len(replay.changed) - len(replay.flipped)
    counts = [
        (f"normal -> anomalous{_by_label(became_anomalous)}", len(became_anomalous)),
        (f"anomalous -> normal{_by_label(became_normal)}", len(became_normal)),
        (f"same verdict; another threshold, or score, area or mask by more than {tolerance:g}", figures),
        ("nothing", len(replay.replayed) - len(replay.changed)),
    ]
    return [*counts, ("no answer", len(replay.unanswered))] if replay.unanswered else counts


def _by_label(flipped: Sequence[Replayed]) -> str:
    right = sum(one.is_right is True for one in flipped)
    wrong = sum(one.is_right is False for one in flipped)
    return f" (by their labels {right} right now, {wrong} wrong)" if right or wrong else ""


def _row(one: Replayed, labelled: bool) -> list[str]:
    then, now, truth = one.then, one.now, one.picture.is_anomalous
    return [
        one.picture.name,
        verdict(now.is_anomalous) if one.change is not Change.VERDICT else _turned(one),
        *(["" if truth is None else verdict(truth)] if labelled else []),
        _number(then.score, now.score),
        _number(then.threshold, now.threshold),
        areas(one.areas),
        "" if one.masks is None else f"{one.masks.iou:.3f}",
    ]


def _turned(one: Replayed) -> str:
    return f"{verdict(one.then.is_anomalous)} -> {verdict(one.now.is_anomalous)}"


def _number(then: float, now: float) -> str:
    return f"{now:.4f}" if then == now else f"{then:.4f} -> {now:.4f}"
