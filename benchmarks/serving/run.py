"""One run of the whole benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import around, servers
from benchmarks.serving.measure import Plan, measure
from benchmarks.serving.model import Package, Task, make_packages
from benchmarks.serving.orders import Contender
from benchmarks.serving.processes import resident_memory
from benchmarks.serving.results import Results


@dataclass(frozen=True)
class Around:
    """How long, in seconds, or how often what is beside the calls is measured; 0: not at all."""

    overload: float
    idling: float
    starts: int


@dataclass
class Report:
    """What came out."""

    results: dict[Task, Results] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    """Beside the calls, by name."""


def run(folder: Path, plan: Plan, beside: Around, tasks: Sequence[Task], *, peers: bool) -> Report:
    """Measures everything; servers and packages live in `folder`.

    Raises:
        WrongAnswer: somebody did something else than the floor.
    """
    report = Report()
    packages = make_packages(folder / "packages")
    for task in tasks:
        _measure_task(folder / task, plan, beside, packages[task], peers, report)
    _measure_starts(folder, beside, packages["classification"], peers, report.figures)
    return report


def _measure_task(folder: Path, plan: Plan, beside: Around, package: Package, peers: bool, report: Report) -> None:
    with ExitStack() as opened:
        agent = opened.enter_context(servers.agent(folder / "agent", package))
        addresses: dict[Contender, str] = {"segment": agent.address, "message": agent.address}
        peer = None
        if peers and package.task == "classification":  # a mask is nothing they know of
            peer = opened.enter_context(servers.fastapi(folder / "fastapi", package))
            addresses["fastapi"] = peer.address
        report.results[package.task] = measure(plan, package, addresses)

        figures = report.figures
        figures[f"{package.task}: memory of the agent after the calls, MB"] = resident_memory(agent.pid)
        figures[f"{package.task}: memory of its worker, MB"] = sum(map(resident_memory, agent.workers))
        if peer is not None:
            figures["FastAPI: memory after the calls, MB"] = resident_memory(peer.pid)
        if package.task == "classification":
            if beside.idling:
                figures["idling, one model RUNNING, % of a core"] = around.idling(agent, beside.idling)
            if beside.overload:
                figures |= around.overload(agent.address, beside.overload)


def _measure_starts(folder: Path, beside: Around, package: Package, peers: bool, figures: dict[str, float]) -> None:
    """Each from a process that is not there to an answer, the median."""
    if not beside.starts:
        return
    starts = {
        "ready without models, s": lambda folder: servers.agent(folder),
        "ready with one model, s": lambda folder: servers.agent(folder, package),
    }
    if peers:
        starts["FastAPI: ready, s"] = lambda folder: servers.fastapi(folder, package)
    for name, server in starts.items():
        figures[name] = around.start(server, folder / name.partition(",")[0], beside.starts)
