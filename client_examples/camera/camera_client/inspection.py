"""One inspected frame, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edge_agent_client import Result

Verdict = Literal["pass", "reject", "uncertain"]
LARGEST_MESSAGE = 7000
"""Bytes. Nucleus lite drops a connection at frames over 10,000, which carry the payload in Base64."""


@dataclass(frozen=True)
class Decision:
    """What happens to the part."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Inspection:
    """A frame, the agent's answer and the verdict."""

    id: str  # of this frame; no other has it, not of another run or camera either
    camera: str
    model: str
    captured_on: datetime  # UTC
    captured_at: float  # seconds on the monotonic clock
    file: str  # that the frame came from; empty for cameras
    width: int
    height: int
    decision: Decision
    result: Result | None  # None: no answer came
    pixels: NDArray[np.uint8] | None  # (height, width, 3) RGB; only where a sink wants them

    def keeping(self, pixels: NDArray[np.uint8]) -> Inspection:
        """The same with copies of the pixels and of the mask, which the next frame overwrites in shared memory."""
        result = self.result
        if result is not None and result.mask is not None:
            result = replace(result, mask=result.mask.copy())
        return replace(self, result=result, pixels=pixels.copy())

    def record(self) -> dict[str, Any]:
        """What is told of it, for JSON."""
        told: dict[str, Any] = {
            "id": self.id,
            "camera": self.camera,
            "model": self.model,
            "time": self.captured_on.isoformat(timespec="milliseconds"),
            **({"file": self.file} if self.file else {}),
            "width": self.width,
            "height": self.height,
            "verdict": self.decision.verdict,
            "reason": self.decision.reason,
        }
        if self.result is not None:
            if version := self.result.details.get("model-version"):
                told["model_version"] = version
            told |= {
                "is_anomalous": self.result.is_anomalous,
                "confidence": round(self.result.confidence, 4),
                "anomaly_score": round(self.result.anomaly_score, 4),
                "anomaly_threshold": round(self.result.anomaly_threshold, 4),
                "anomalies": [
                    {
                        "name": anomaly.name,
                        "total_percentage_area": round(anomaly.total_percentage_area, 6),
                        "hex_color": anomaly.hex_color,
                    }
                    for anomaly in self.result.anomalies
                ],
                "milliseconds": round(self.result.milliseconds, 1),
            }
        return told

    def message(self) -> bytes:
        """The record in at most LARGEST_MESSAGE bytes; the smallest areas are left out, and counted, where needed."""
        record = self.record()
        while len(payload := json.dumps(record).encode()) > LARGEST_MESSAGE and record.get("anomalies"):
            record["anomalies"].remove(min(record["anomalies"], key=lambda found: found["total_percentage_area"]))
            record["anomalies_left_out"] = record.get("anomalies_left_out", 0) + 1
        return payload
