"""The live view as a process, in a folder of its own."""

from __future__ import annotations

import html
import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.support.agent_process import PATIENCE, wait_for
from tests.support.checkout import ROOT

needs_web = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("flask", "waitress"))), reason="needs flask and waitress"
)
SCRIPT = ROOT / "client_examples/live_view/live_view.py"


class LivePage:
    """The page at a port of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def html(self, path: str = "/") -> str:
        status, _, body = self.ask(path)
        assert status == 200, body
        return body.decode()

    def text(self, path: str = "/") -> str:
        """What a reader sees of it, roughly."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.html(path))).split())

    def row(self, window: str, query: str = "") -> list[str]:
        """A window's counts: pictures, reject, anomaly ratio, anomalous, uncertain, without answer, pass."""
        found = re.search(rf">{window}</a></th>\s*(.*?)</tr>", self.html(f"/history?{query}"), re.DOTALL)
        return re.findall(r"<td>(.*?)</td>", found[1]) if found else []

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        """For something that is asked of the page, which takes more than looking at a file."""
        wait_for(what, holds, every=0.1)

    def wait_for_text(self, words: str, path: str = "/") -> None:
        self.wait_for(f"the page to say {words!r}", lambda: words in self.text(path))

    def wait_for_pictures(self, count: int, query: str = "") -> None:
        self.wait_for(f"{count} pictures to be counted", lambda: self.row("last hour", query)[:1] == [f"{count:,}"])


class LiveViewProcess(LivePage):
    """`live_view.py` on a free port of the loopback; on leaving it is asked to end, and must do so with code 0."""

    def __init__(self, folder: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        """`folder`: where it runs, and where its store is."""
        self.folder, self._flags = folder, flags
        self._environment = {"PYTHONPATH": "", **(environment or {})}
        self.log = folder / "live_view.log"
        self._is_killed = False

    def __enter__(self) -> LiveViewProcess:
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *self._flags],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment,
            )
        wait_for("the page's address", lambda: self._port_in_log(begin) is not None or self.process.poll() is not None)
        port = self._port_in_log(begin)
        assert port is not None, self.log.read_text()
        self.port = port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(self.log.read_text())
        if self._is_killed:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        assert code == 0 or kind is not None, self.log.read_text()

    def kill(self) -> None:
        """As a power failure would."""
        self.process.kill()
        self.process.wait()
        self._is_killed = True

    def _port_in_log(self, begin: int) -> int | None:
        return port_of(self.log.read_bytes()[begin:].decode())


def port_of(log: str) -> int | None:
    """Where the page was served last; None where it was not yet."""
    ports = re.findall(r"the page: http://[^/]*:(\d+)/", log)
    return int(ports[-1]) if ports else None


def told(number: int, **changes: Any) -> dict[str, Any]:
    """A record as the camera client writes it: a normal part of now."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return {
        "id": f"line-1-0badcafe-{number}", "camera": "line-1", "model": "Plates", "time": now,
        "width": 96, "height": 64, "verdict": "pass", "reason": "normal", "model_version": "1.0.0",
        "is_anomalous": False, "confidence": 0.9, "anomaly_score": 0.1, "anomaly_threshold": 0.5, "anomalies": [],
        "milliseconds": 14.1,
    } | changes  # fmt: skip


def rejected(number: int, **changes: Any) -> dict[str, Any]:
    """A record of an anomalous part."""
    anomalies = [
        {"name": "background", "total_percentage_area": 0.98, "hex_color": "#FFFFFF"},
        {"name": "scratch", "total_percentage_area": 0.02, "hex_color": "#23A436"},
    ]
    usual = {"verdict": "reject", "reason": "anomalous", "is_anomalous": True, "anomaly_score": 0.9}
    return told(number, **(usual | {"anomalies": anomalies} | changes))


def unanswered(number: int) -> dict[str, Any]:
    """A record of a part that the agent did not answer."""
    record = told(number, verdict="uncertain", reason="no answer: UNAVAILABLE: connection refused")
    for key in ("is_anomalous", "confidence", "anomaly_score", "anomaly_threshold", "anomalies", "milliseconds"):
        del record[key]
    return record


def append(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
