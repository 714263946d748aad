"""Row E12: a registry full of packages, nearly all of them bad."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from tests.faults.packages_manifests import FILES
from tests.faults.packages_support import check_sentence
from tests.faults.processes_support import answers_right, serves, unstarted_agent, wait_until_running
from tests.faults.row import Run, row
from tests.support.agent_process import AgentProcess, gone, names, wait_for
from tests.support.packages import make_package

GOOD = "good"
PACKAGES = 1000
PATIENCE = 120.0


def _without_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _with_another_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another")


BAD: list[Callable[[Path], object]] = [
    *(lambda folder, spoil=spoil: spoil(folder / "manifest.json") for spoil, _ in FILES.values()),
    _without_model,
    _with_another_model,
]


@row(
    "E12",
    "1,000 packages, 999 of them bad: the agent is up, tells what is wrong with each, and the good one serves",
    unit="packages",
    full=20_000,
    short=100,
    uses_shared_agent=False,
)
def many_packages(run: Run) -> None:
    """All are to start by themselves: the bad ones as well."""
    count = min(PACKAGES, run.wanted)
    good = make_package(run.folder / GOOD, task="classification")
    for number in range(count - 1):
        folder = run.folder / f"bad-{number:04}"
        shutil.copytree(good, folder)
        BAD[number % len(BAD)](folder)
    up, ready = list[float](), list[float]()
    for _ in run.steps(each=count):
        with unstarted_agent() as agent:
            for folder in [good, *run.folder.glob("bad-*")]:
                write_record(agent.registry, Record(folder.name, "1.0.0", str(folder)))
            _start(run, agent, up, ready)
    run.figures["up after, at most"] = f"{max(up):.2f} s"
    run.figures["good one runs after, at most"] = f"{max(ready):.2f} s"


def _start(run: Run, agent: AgentProcess, up: list[float], ready: list[float]) -> None:
    agent.launch()
