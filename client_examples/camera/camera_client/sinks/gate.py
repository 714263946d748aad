"""Runs a program for a verdict: it moves the reject gate."""

from __future__ import annotations

import os
import subprocess
import time

from camera_client.inspection import Inspection
from camera_client.settings import Gate
from camera_client.sinks import SinkFailed


class GateWriter:
    """The program runs to its end before it is run again."""

    needs_pixels = False

    def __init__(self, settings: Gate) -> None:
        self._settings = settings

    def wants(self, inspection: Inspection) -> bool:
        return inspection.decision.verdict in self._settings.verdicts

    def write(self, inspection: Inspection) -> None:
        late_ms = (time.monotonic() - inspection.captured_at) * 1000
        if late_ms > self._settings.within_ms:
            raise SinkFailed(f"not moved: the verdict was there only {late_ms:.0f} ms after its frame")
        told = {"VERDICT": inspection.decision.verdict, "REASON": inspection.decision.reason, "ID": inspection.id}
        program = self._settings.command[0]
        try:
            ended = subprocess.run(
                self._settings.command,
                env=os.environ | told,
                stdin=subprocess.DEVNULL,
                timeout=self._settings.timeout_ms / 1000,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SinkFailed(f"{program} was ended after {self._settings.timeout_ms:g} ms") from None
        if ended.returncode:
            raise SinkFailed(f"{program} ended with code {ended.returncode}")
