"""Row E12: a registry full of packages, nearly all of them bad."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.packages_manifests import FILES
from tests.faults.packages_support import check_sentence
from tests.faults.processes_support import Clients, wait_until_running
from tests.faults.row import CLASSIFIER, Run, row
from tests.support.agent_process import AgentProcess, wait_for
from tests.support.packages import make_package

PACKAGES = 1000
WITH_A_WORKER = 50
"""One bad package of so many has a good manifest, so that it takes a worker to tell."""
MOST_WORKERS = 12
"""Eight load at a time (LOADS_AT_ONCE of the keeper); others serve, or are on their way out."""
PATIENCE = 120.0
"""Seconds until all have been tried."""


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
    short=101,
    uses_shared_agent=False,
)
def many_packages(run: Run) -> None:
    folders = _packages(run.folder, min(PACKAGES, run.wanted))
    for _ in run.steps(each=len(folders)):
        agent = AgentProcess("--auto-start", "true")
        for folder in folders:
            write_record(agent.registry, Record(folder.name, "1.0.0", str(folder)))
        began = time.monotonic()
        with agent:
            run.figures["up after"] = f"{time.monotonic() - began:.1f} s"
            _try_all(run, agent, len(folders), began)


def _packages(around: Path, count: int) -> list[Path]:
    """One good package, and others that are bad in every way."""
    good = make_package(around / CLASSIFIER, task="classification")
    bad = [around / f"bad-{number:04}" for number in range(count - 1)]
    for number, folder in enumerate(bad):
        shutil.copytree(good, folder)
        spoil = _another_model if number % WITH_A_WORKER == 0 else BAD_MANIFESTS[number % len(BAD_MANIFESTS)]
        spoil(folder)
    return [good, *bad]


def _try_all(run: Run, agent: AgentProcess, count: int, began: float) -> None:
    stub, most = agent.stub(), 0
    wait_until_running(stub, CLASSIFIER)
    run.figures["the good one runs after"] = f"{time.monotonic() - began:.1f} s"
    with Clients(run, agent, CLASSIFIER, 1) as clients:

        def all_are_tried() -> bool:
            nonlocal most
            most = max(most, len(agent.worker_pids()))
            return not any(model.status == wire.STARTING for model in _models(stub))

        wait_for("all models to be tried", all_are_tried, PATIENCE)
        clients.wait_for_answers()
    models = _models(stub)
    assert len(models) == count
    for model in models:
        if model.model_component != CLASSIFIER:
            assert model.status == wire.FAILED, model
            check_sentence(model.status_message, run.folder)
    run.figures["workers at a time, at most"] = str(most)
    assert most <= MOST_WORKERS


def _models(stub: EdgeAgentStub) -> list[wire.ModelMetadata]:
    return list(stub.ListModels(wire.ListModelsRequest()).models)
