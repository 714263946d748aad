"""From what an export says and what the engineer says to thresholds and a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.packages.manifest import Decision, LinearCalibration
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.anomalib.graph import Found
from agent.workbench.importers.anomalib.normalisation import MIDDLE, Scale

Task = Literal["classification", "segmentation"]
STRICTLY_ABOVE = (
    "anomalib 2 calls a score or pixel anomalous that is above its threshold, this agent one that reaches it: "
    "they differ only exactly at the threshold, and where the threshold is 0 or 1."
)


@dataclass(frozen=True)
class Choices:
    """What the command line may settle."""

    threshold: float | None = None
    """In the unit of the raw score."""
    pixel_threshold: float | None = None
    """In the unit of the raw map."""
    range: float | None = None
    """How much of the raw score makes 1, where the export does not tell."""
    task: Task | None = None
    anomaly_name: str = "anomaly"
    resize: Literal["agent", "graph"] = "agent"


@dataclass(frozen=True)
class Decided:
    task: Task
    decision: Decision
    notes: Sequence[str]


def decide(found: Found, choices: Choices, model: Path, why_uncalibrated: str) -> Decided:
    """The task, thresholds and calibration of a package.

    Raises:
        BadSource: the export is not calibrated, and no threshold was given.
        SettingOutOfRange: a choice does not go with the export.
    """
    scale, threshold, notes = _score_decision(found, choices, model, why_uncalibrated)
    pixel_threshold, pixel_notes = _pixel_threshold(found, choices)
    task, task_notes = _task(found, choices, pixel_threshold)
    if found.version.startswith("2"):
        notes = [*notes, STRICTLY_ABOVE]
    decision = Decision(
        threshold=threshold,
        pixel_threshold=MIDDLE if pixel_threshold is None else pixel_threshold,
        calibration=LinearCalibration(center=scale.threshold, range=scale.range),
    )
    return Decided(task, decision, [*notes, *(pixel_notes if task == "segmentation" else []), *task_notes])


def _score_decision(
    found: Found, choices: Choices, model: Path, why_uncalibrated: str
) -> tuple[Scale, float, list[str]]:
    """The scale, the threshold on it, and what is to be told of them."""
    if found.scale is None:
        scale = _scale_around(found, choices, model, why_uncalibrated)
        return scale, MIDDLE, [f"{_shown(scale, MIDDLE)} The export measured no range; --range sets another."]
    scale, threshold = found.scale, found.threshold
    if choices.range is not None:
        raise SettingOutOfRange("--range", f"{choices.range:g}", f"left out: the export has one, {scale.range:g}")
    if choices.threshold is not None:
        threshold = round(scale.normalised(choices.threshold), 6)
    if not 0 <= threshold <= 1:
        allowed = f"{scale.raw(0):g} to {scale.raw(1):g}, the range of this model's raw scores"
        raise SettingOutOfRange("--threshold", f"{scale.raw(threshold):g}", allowed)
    return scale, threshold, [_shown(scale, threshold)]


def _shown(scale: Scale, threshold: float) -> str:
    return (
        f"Raw scores are shown as (raw - {scale.threshold:g}) / {scale.range:g} + 0.5, clipped to 0..1, "
        f"with the threshold at {threshold:g} (raw {scale.raw(threshold):g})."
    )


def _scale_around(found: Found, choices: Choices, model: Path, why_uncalibrated: str) -> Scale:
    threshold = found.raw_threshold if choices.threshold is None else choices.threshold
    if threshold is None:
        raise BadSource(
            model,
            f"it is not calibrated: {why_uncalibrated}",
            "validate the model with good and anomalous images before the export, or give --threshold, in raw scores",
        )
    return Scale(threshold, choices.range or 2 * abs(threshold) or 1.0)


def _pixel_threshold(found: Found, choices: Choices) -> tuple[float | None, list[str]]:
    """In the unit of the raw map; None where nobody tells one."""
    if found.map is None:
        if choices.pixel_threshold is not None:
            raise SettingOutOfRange("--pixel-threshold", choices.pixel_threshold, "left out: the model has no map")
        return None, []
    if choices.pixel_threshold is not None:
        return choices.pixel_threshold, []
    if found.pixel_threshold is None and choices.threshold is not None:
        return choices.threshold, [
            "Pixels are compared with --threshold too, as anomalib does where only one is known; "
            "--pixel-threshold sets another."
        ]
    return found.pixel_threshold, []


def _task(found: Found, choices: Choices, pixel_threshold: float | None) -> tuple[Task, list[str]]:
    can_segment = found.map is not None and pixel_threshold is not None
    if choices.task == "segmentation" and not can_segment:
        what = "classification: the model has no map" if found.map is None else "given with --pixel-threshold"
        raise SettingOutOfRange("--task", "segmentation", what)
    if choices.task is not None:
        return choices.task, []
    if found.task == "classification" and found.map is not None:
        return "classification", ["It was trained for classification; --task segmentation paints its map too."]
    if found.map is not None and not can_segment:
        return "classification", ["Its map has no threshold: give --pixel-threshold, in the map's unit, to have masks."]
    if found.task == "detection":
        return "segmentation", ["It was trained for detection: the masks show what its boxes were drawn around."]
    return ("segmentation" if can_segment else "classification"), []
