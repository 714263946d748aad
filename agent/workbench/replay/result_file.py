"""A replay as a JSON document, for scripts."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.images.detection import SCORE_DECIMALS, Detection
from agent.packages.palette import BACKGROUND
from agent.workbench.replay.replay import Replay, Replayed


def document(replay: Replay, tolerance: float) -> bytes:
    """All that is known of a replay; `tolerance` is what changes were measured by."""
    content = {
        "version": 1,
        "models_then": replay.models_then,
        "models_now": replay.models_now,
        "tolerance": tolerance,
        "counts": {
            "replayed": len(replay.replayed),
            "unanswered": len(replay.unanswered),
            "normal_to_anomalous": sum(one.now.is_anomalous for one in replay.flipped),
            "anomalous_to_normal": sum(not one.now.is_anomalous for one in replay.flipped),
            "figures_changed": len(replay.changed) - len(replay.flipped),
            "unchanged": len(replay.replayed) - len(replay.changed),
        },
        "score_changes": {
            **{f"percentile_{rank}": _score(change) for rank, change in replay.score_percentiles.items()},
            "mean_distance": _score(replay.mean_score_distance),
        },
        "pictures": [_picture(one) for one in replay.replayed],
        "unanswered": [{"picture": one.name, "why": one.why} for one in replay.unanswered],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _picture(one: Replayed) -> dict[str, Any]:
    picture = one.picture
    return {
        "picture": picture.name,
        "manifest": str(picture.line.manifest),
        "line": picture.line.number,
        "camera": picture.camera,
        "time": picture.time,
        "file": picture.file,
        "verdict_then": picture.verdict,
        "changed": one.change.value,
        "label_says_anomalous": picture.is_anomalous,
        "then": {"model": f"{picture.model} {picture.version}".rstrip(), **_answer(one.then)},
        "now": {"model": one.model, **_answer(one.now)},
        "score_change": _score(one.score_change),
        "mask_iou": None if one.masks is None else one.masks.iou,
        "mask_problem": one.mask_problem,
    }


def _answer(detection: Detection) -> dict[str, Any]:
    return {
        "is_anomalous": detection.is_anomalous,
        "confidence": detection.confidence,
        "anomaly_score": detection.score,
        "anomaly_threshold": detection.threshold,
        "areas": {region.name: region.area for region in detection.regions if region.name != BACKGROUND},
    }


def _score(value: float) -> float:
    return round(value, SCORE_DECIMALS)
