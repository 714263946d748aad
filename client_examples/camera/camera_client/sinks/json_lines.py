"""Verdicts in a file, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path

from camera_client.inspection import Inspection
from camera_client.settings import JsonLines
from camera_client.whole_lines import append_line


class JsonLinesWriter:
    """Each line is there as soon as its verdict is."""

    needs_pixels = False

    def __init__(self, settings: JsonLines) -> None:
        self._settings, self._path = settings, Path(settings.path)
        self._most_bytes = int(settings.most_megabytes * 500_000)

    def wants(self, inspection: Inspection) -> bool:
        return inspection.decision.verdict in self._settings.verdicts

    def write(self, inspection: Inspection) -> None:
        if append_line(self._path, json.dumps(inspection.record())) > self._most_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
