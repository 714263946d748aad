"""Verdicts in a file, one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from camera_client.inspection import Inspection
from camera_client.settings import JsonLines


class JsonLinesWriter:
    """Opens the file for each line: it may be moved or removed at any time, and a full disk may get room again."""

    needs_pixels = False

    def __init__(self, settings: JsonLines) -> None:
        self._settings, self._path = settings, Path(settings.path)
        self._most_bytes = int(settings.most_megabytes * 500_000)

    def wants(self, inspection: Inspection) -> bool:
        return inspection.decision.verdict in self._settings.verdicts

    def write(self, inspection: Inspection) -> None:
        line = json.dumps(inspection.record()).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                os.ftruncate(descriptor, size)  # no half line for the next one to be appended to
                raise
        finally:
            os.close(descriptor)
        if size + len(line) > self._most_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
