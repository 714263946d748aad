"""The camera client as a process, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from tests.support.agent_process import PATIENCE, wait_for
from tests.support.checkout import ROOT
from tests.support.packages import HEIGHT, WIDTH

SCRIPT = ROOT / "client_examples/camera/camera.py"


class CameraProcess:
    """`camera.py` with verdicts in `verdicts.jsonl`; ended on leaving."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """`folder`: where it runs. `settings` go into its configuration file; None: there is none."""
        self.folder = folder
        self._flags, self._python = flags, python
        self._environment = {"PYTHONPATH": "", **(environment or {})}
        self.settings = None if settings is None else {"json_lines": {"path": "verdicts.jsonl"}, **settings}
        self.log = folder / "camera.log"

    def __enter__(self) -> CameraProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(self.log.read_text())

    def start(self) -> None:
        command = [self._python, str(SCRIPT), *self._flags]
        if self.settings is not None:
            (self.folder / "line.json").write_text(json.dumps(self.settings))
            command += ["--config", "line.json"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=os.environ | self._environment
            )

    def stop(self) -> int:
        """Asks it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def wait(self) -> int:
        """Its exit code, when it has ended by itself."""
        return self.process.wait(PATIENCE)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """What it has written, in order."""
        path = self.folder / "verdicts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_verdicts(self, count: int) -> list[dict[str, Any]]:
        wait_for(f"{count} verdicts", lambda: len(self.verdicts) >= count or self.process.poll() is not None)
        return self.verdicts

    def wait_for_log(self, pattern: str) -> None:
        wait_for(f"the log to say {pattern}", lambda: re.search(pattern, self.log.read_text()) is not None)

    def counts(self) -> dict[str, int]:
        """The numbers of its last words: frames, verdicts."""
        line = next(line for line in self.log.read_text().splitlines() if "in all" in line)
        names = ("read", "inspect", "replaced", "verdicts", "pass", "reject", "uncertain", "without")
        patterns = dict.fromkeys(names, r"(\d+) {}") | {
            "read": r"(\d+) frames read",
            "inspect": r"(\d+) to inspect",
        }
        return {name: int(re.search(pattern.format(name), line)[1]) for name, pattern in patterns.items()}

    def sink_counts(self, name: str) -> dict[str, int]:
        """What became of what a sink was given, by its last words."""
        line = next(line for line in self.log.read_text().splitlines() if "sinks: " in line)
        said = re.search(rf"{name}: ([^;]*)", line)[1]
        return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", said)}

    @property
    def segments(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"edge-agent-client-{self.process.pid}-*"))


def put_picture(folder: Path, name: str, brightness: int = 255, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A grey picture in a folder that may be watched: it appears whole. The tiny model calls dark ones anomalous."""
    folder.mkdir(exist_ok=True)
    pixels = np.full((size[1], size[0], 3), brightness, np.uint8)
    unfinished = folder / f".{name}.tmp"
    Image.fromarray(pixels).save(unfinished, "PNG")
    return unfinished.rename(folder / name)
