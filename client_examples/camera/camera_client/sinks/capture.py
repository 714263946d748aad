"""Pictures kept for the next model: lossless, with request and answer, as a Ground Truth manifest.

What the model said stands under keys that end in `-detected`, as in the evaluation manifests of the original service;
no label is made up. Whoever labels the pictures adds the label keys.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camera_client.disk_budget import DiskBudget
from camera_client.inspection import Inspection
from camera_client.settings import Capture
from camera_client.whole_lines import append_line

MANIFEST, PICTURES = "capture.manifest", "pictures"
JOB = "capture/edge-agent-camera"


class CaptureWriter:
    """Keeps what the model was not sure of, and some of the rest."""

    needs_pixels = True

    def __init__(self, settings: Capture) -> None:
        self._settings, self._folder = settings, Path(settings.folder)
        self._budget = DiskBudget(self._folder / PICTURES, ".png", settings.most_megabytes)
        self._others = 0
        self._has_failed = True  # so that the first picture tidies up after a power failure, too

    def wants(self, inspection: Inspection) -> bool:
        result = inspection.result
        if result is None:
            return False
        if inspection.decision.verdict == "uncertain":
            return True
        if abs(result.anomaly_score - result.anomaly_threshold) < self._settings.uncertain_band:
            return True
        self._others += 1
        return bool(self._settings.one_in) and self._others % self._settings.one_in == 0

    def write(self, inspection: Inspection) -> None:
        result = inspection.result
        assert inspection.pixels is not None and result is not None
        picture, mask = f"{inspection.id}.png", f"{inspection.id}-mask.png"
        line = _line(inspection, f"{PICTURES}/{picture}")
        try:
            removed = self._budget.write(picture, _png(inspection.pixels))
            if result.mask is not None:
                removed += self._budget.write(mask, _png(result.mask))
                line |= _mask_keys(inspection, f"{PICTURES}/{mask}")
            if removed or self._has_failed:
                self._forget_what_is_gone()
            append_line(self._folder / MANIFEST, json.dumps(line))
        except OSError:
            self._has_failed = True  # perhaps after other pictures have gone for this one
            self._budget.remove({picture, mask})  # without its line nobody would find it
            raise
        self._has_failed = False

    def _forget_what_is_gone(self) -> None:
        """Take the lines of pictures that are no longer there out of the manifest."""
        manifest = self._folder / MANIFEST
        if not manifest.exists():
            return
        # Bytes: they may be no text any more, and characters that end a line of text may stand in a label.
        lines = manifest.read_bytes().splitlines()
        unfinished = manifest.with_name(f".{MANIFEST}")
        unfinished.write_bytes(b"".join(line + b"\n" for line in lines if self._is_there(line)))
        unfinished.replace(manifest)

    def _is_there(self, line: bytes) -> bool:
        try:
            picture = self._folder / json.loads(line)["source-ref"]
        except (ValueError, TypeError, KeyError):  # what a power failure left of a line
            return False
        return picture.is_file()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    # Level 1: a few per cent larger than the default, in a fraction of the time.
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


def _line(inspection: Inspection, picture: str) -> dict[str, Any]:
    result = inspection.result
    assert result is not None
    return {
        "source-ref": picture,
        "anomaly-label-detected": int(result.is_anomalous),
        "anomaly-label-detected-metadata": {
            "class-name": "anomaly" if result.is_anomalous else "normal",
            "confidence": round(result.confidence, 4),
            "type": "groundtruth/image-classification",
            **_made_by(inspection),
            "model-arn": result.details.get("model-arn", ""),
            "project-name": _project(inspection),
            "model-version": result.details.get("model-version", ""),
        },
        # The request is the picture, this model component and no more; the answer is all that the agent said.
        "inspection": inspection.record() | {"details": result.details},
    }


def _mask_keys(inspection: Inspection, mask: str) -> dict[str, Any]:
    assert inspection.result is not None
    return {
        "anomaly-mask-ref-detected": mask,
        "anomaly-mask-ref-detected-metadata": {
            "internal-color-map": {
                str(index): {
                    "class-name": found.name,
                    "hex-color": found.hex_color,
                    "total-percentage-area": found.total_percentage_area,
                }
                for index, found in enumerate(inspection.result.anomalies)
            },
            "type": "groundtruth/semantic-segmentation",
            **_made_by(inspection),
        },
    }


def _project(inspection: Inspection) -> str:
    """What an ARN of the original service names (`...:model/PROJECT/VERSION`); the component for other models."""
    assert inspection.result is not None
    kind, *rest = inspection.result.details.get("model-arn", "").rpartition(":")[2].split("/")
    return rest[0] if kind == "model" and rest else inspection.model


def _made_by(inspection: Inspection) -> dict[str, str]:
    return {
        "human-annotated": "no",
        "creation-date": inspection.captured_on.strftime("%Y-%m-%dT%H:%M:%S.%f"),  # UTC, without a zone
        "job-name": JOB,
    }
