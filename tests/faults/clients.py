"""Clients of the rows that have many of them: models of their own in the shared agent, threads, and figures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.agent_process import AgentProcess, describe, names, status, wait_for

PATIENCE = 60.0
"""Seconds; a call that takes longer hangs."""


def start(stub: EdgeAgentStub, component: str) -> wire.StartModelResponse:
    return stub.StartModel(wire.StartModelRequest(model_component=component), timeout=PATIENCE)


def stop(stub: EdgeAgentStub, component: str) -> wire.StopModelResponse:
    return stub.StopModel(wire.StopModelRequest(model_component=component), timeout=PATIENCE)


def has_loaded(stub: EdgeAgentStub, component: str) -> int:
    """RUNNING or FAILED: what became of a model that is STARTING."""
    wait_for(f"{component} to load", lambda: status(stub, component) != wire.STARTING, PATIENCE)
    return status(stub, component)


@contextlib.contextmanager
def registered(agent: AgentProcess, packages: dict[str, Path]) -> Iterator[EdgeAgentStub]:
    """Models that are STOPPED, and are taken away again."""
    stub = agent.stub()
    for component, package in packages.items():
        agent.register(component, package)
    wait_for("the models to be listed", lambda: packages.keys() <= set(names(stub)))
    try:
        yield stub
    finally:
        for component in packages:
            with contextlib.suppress(grpc.RpcError):  # it does not run
                stop(stub, component)  # else it would run again as soon as it is registered again
            agent.remove(component)
        wait_for("the models to leave", lambda: packages.keys().isdisjoint(names(stub)))


@contextlib.contextmanager
def running(agent: AgentProcess, packages: dict[str, Path]) -> Iterator[EdgeAgentStub]:
    """As `registered`, all of them RUNNING."""
    with registered(agent, packages) as stub:
        for component in packages:
            start(stub, component)
        for component in packages:
            assert has_loaded(stub, component) == wire.RUNNING, describe(stub, component).status_message
        yield stub


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Does all at once; raises what one of them raised."""
    with ThreadPoolExecutor(len(works)) as threads:
        for done in [threads.submit(work) for work in works]:
            done.result()


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:.0f} ms"
