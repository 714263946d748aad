"""Row E12: a registry full of packages, nearly all of them bad."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from agent.models.keeper import LOADS_AT_ONCE
from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.packages_manifests import FILES
from tests.faults.packages_support import check_sentence
from tests.faults.processes_support import Clients
from tests.faults.row import CLASSIFIER, Run, row
from tests.support.agent_process import AgentProcess, wait_for
from tests.support.packages import make_package

PACKAGES = 1000
WITH_A_WORKER = 10
"""One bad package of so many has a good manifest, so that it takes a worker to tell; they are the first to start."""
MOST_WORKERS = LOADS_AT_ONCE + 1
"""Those that load, and the good one."""
PATIENCE = 120.0
"""Seconds until the agent is up, and until all have been tried."""


def _another_model(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"another")


def _spoiling(spoil: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: spoil(folder / "manifest.json")


BAD_MANIFESTS = [_spoiling(spoil) for spoil, _ in FILES.values()]


@row(
    "E12",
    "1,000 packages that are all to start, 999 of them bad: the agent is up, says why of each, the good one serves",
    unit="packages",
    full=20_000,
    short=41,
    uses_shared_agent=False,
)
def many_packages(run: Run) -> None:
    folders = _packages(run.folder, min(PACKAGES, run.wanted))
    for _ in run.steps(each=len(folders)):
        agent = AgentProcess("--auto-start", "true")
        for folder in folders:
            write_record(agent.registry, Record(folder.name, "1.0.0", str(folder)))
        agent.launch()
        with ExitStack() as ended:
            ended.push(agent)
            _start(run, agent, len(folders))


def _packages(around: Path, count: int) -> list[Path]:
    """One good package, and others that are bad in every way."""
    good = make_package(around / CLASSIFIER, task="classification")
    bad = [around / f"bad-{number:04}" for number in range(count - 1)]
    for number, folder in enumerate(bad):
        shutil.copytree(good, folder)
        spoil = _another_model if number < count // WITH_A_WORKER else BAD_MANIFESTS[number % len(BAD_MANIFESTS)]
        spoil(folder)
    return [good, *bad]


class _Workers:
    """How many an agent has at a time."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent, self.most = agent, 0

    def are_counted(self) -> bool:
        self.most = max(self.most, len(self._agent.worker_pids()))
        return True


def _start(run: Run, agent: AgentProcess, count: int) -> None:
    workers, began = _Workers(agent), time.monotonic()
    wait_for("the agent to be up", lambda: workers.are_counted() and agent.socket.exists(), PATIENCE)
    run.figures["up after"] = f"{time.monotonic() - began:.1f} s"
    stub = agent.stub()
    wait_for(
        "all models to be tried",
        lambda: workers.are_counted() and not any(model.status == wire.STARTING for model in _models(stub)),
        PATIENCE,
    )
    run.figures["workers at a time, at most"] = str(workers.most)
    assert workers.most <= MOST_WORKERS
    with Clients(run, agent, CLASSIFIER, 1) as clients:
        clients.wait_for_answers()
    models = _models(stub)
    assert len(models) == count
    for model in models:
        if model.model_component != CLASSIFIER:
            assert model.status == wire.FAILED, model
            check_sentence(model.status_message, run.folder)


def _models(stub: EdgeAgentStub) -> list[wire.ModelMetadata]:
    return list(stub.ListModels(wire.ListModelsRequest()).models)
