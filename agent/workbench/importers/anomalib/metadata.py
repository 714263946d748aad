"""`metadata.json`, which anomalib 0.7 to 1.2 writes beside an export."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.workbench.errors import BadSource
from agent.workbench.importers.anomalib.normalisation import Scale, scale_of

METADATA_NAME = "metadata.json"
NEVER_COMPUTED = 0.5
"""anomalib's threshold before any was computed."""
Task = Literal["classification", "segmentation", "detection"]
TASKS: tuple[Task, ...] = ("classification", "segmentation", "detection")


@dataclass(frozen=True)
class Metadata:
    """What it says, as far as it says something."""

    task: Task | None
    threshold: float | None
    """Of the raw score; None where none was computed."""
    scale: Scale | None
    """Of the score; None where no range was measured."""
    pixel_threshold: float | None
    """Of the raw map; None where none was computed."""
    is_distribution: bool
    """Whether scores were normalised by a cumulative distribution (0.7's `cdf`)."""
    transform: Mapping[str, Any] | None
    """0.7: what the caller does with the image."""


def read_metadata(file: Path) -> Metadata:
    """Reads `file`.

    0.7 has one range for scores and maps (`min`, `max`), 1.x one for each (`pred_scores.min`, `anomaly_maps.min`, ...).
    Numbers that are not finite mean that nothing was measured.

    Raises:
        BadSource: it is no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise BadSource(file, "it is no JSON object", "take the file that anomalib wrote beside the model")

    # Thresholds of distributions are in units of their own: 0.7's `cdf`.
    is_distribution = "image_mean" in content
    score_range = _range(content, "pred_scores.") or _range(content, "")
    map_range = _range(content, "anomaly_maps.") or _range(content, "")
    threshold = None if is_distribution else _threshold(content, "image_threshold", score_range)
    task, transform = content.get("task"), content.get("transform")
    return Metadata(
        task=task if task in TASKS else None,
        threshold=threshold,
        scale=scale_of(threshold, score_range),
        pixel_threshold=None if is_distribution else _threshold(content, "pixel_threshold", map_range),
        is_distribution=is_distribution,
        transform=transform if isinstance(transform, dict) else None,
    )


def _threshold(content: Mapping[str, Any], key: str, measured_range: float | None) -> float | None:
    value = _number(content, key)
    return None if value == NEVER_COMPUTED and measured_range is None else value


def _number(content: Mapping[str, Any], key: str) -> float | None:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _range(content: Mapping[str, Any], prefix: str) -> float | None:
    lowest, highest = _number(content, f"{prefix}min"), _number(content, f"{prefix}max")
    return None if lowest is None or highest is None else highest - lowest
