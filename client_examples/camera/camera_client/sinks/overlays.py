"""Pictures with what was found drawn over them."""

from __future__ import annotations

import io
from pathlib import Path

from overlay import overlay

from camera_client.disk_budget import DiskBudget
from camera_client.inspection import Inspection
from camera_client.settings import Overlays


class OverlayWriter:
    """For looking at, so as JPEG."""

    needs_pixels = True

    def __init__(self, settings: Overlays) -> None:
        self._verdicts = settings.verdicts
        self._budget = DiskBudget(Path(settings.folder), ".jpg", settings.most_megabytes)

    def wants(self, inspection: Inspection) -> bool:
        return inspection.decision.verdict in self._verdicts and inspection.result is not None

    def write(self, inspection: Inspection) -> None:
        assert inspection.pixels is not None and inspection.result is not None
        content = io.BytesIO()
        overlay(inspection.pixels, inspection.result).save(content, "JPEG", quality=85)
        self._budget.write(f"{inspection.id}-{inspection.decision.verdict}.jpg", content.getvalue())
