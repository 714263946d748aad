"""The agent, and the peer, as processes of their own."""

from __future__ import annotations

import http.client
import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from benchmarks.serving.model import Package
from benchmarks.serving.orders import Order
from benchmarks.serving.processes import children, running, wait_until

COMPONENT = "model"
RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100)]


@dataclass(frozen=True)
class Server:
    """A process that answers at `address`."""

    pid: int
    address: str
    """Path of the unix socket."""
    seconds_to_ready: float
    """From its start to its first answer; of an agent with a model: until it is RUNNING."""

    @property
    def workers(self) -> list[int]:
        return children(self.pid)


@contextmanager
def agent(folder: Path, package: Package | None = None) -> Iterator[Server]:
    """`edge-agent serve` on defaults, with `package` RUNNING as COMPONENT where there is one."""
    folder.mkdir(parents=True)
    address, registry, log = folder / "agent", folder / "registry", folder / "agent.log"
    if package is not None:
        write_record(registry, Record(COMPONENT, "1.0.0", str(package.folder)))
    command = ["-m", "agent", "serve", "--socket", f"unix://{address}", "--registry", str(registry)]
    began = time.monotonic()
    with running([*command, "--auto-start", "true"], log) as process:
        wait_until("the agent", address.exists, process, log)
        with grpc.insecure_channel(f"unix:{address}", options=RECONNECT) as channel:
            stub = EdgeAgentStub(channel)
            wait_until("the model", lambda: _running_models(stub) == (package is not None), process, log)
        yield Server(process.pid, str(address), time.monotonic() - began)


def _running_models(stub: EdgeAgentStub) -> int:
    models = stub.ListModels(wire.ListModelsRequest(), wait_for_ready=True).models
    return sum(model.status == wire.RUNNING for model in models)


def peers_are_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("fastapi", "uvicorn"))


@contextmanager
def fastapi(folder: Path, package: Package) -> Iterator[Server]:
    """The peer, answering."""
    folder.mkdir(parents=True)
    address, log = folder / "fastapi", folder / "fastapi.log"
    began = time.monotonic()
    with running(["-m", "benchmarks.serving.fastapi_server", str(address), str(package.model)], log) as process:
        wait_until("FastAPI", lambda: _answers(str(address)), process, log)
        yield Server(process.pid, str(address), time.monotonic() - began)


def _answers(address: str) -> bool:
    from benchmarks.serving.clients import fastapi_client

    try:
        with fastapi_client(Order("fastapi", 1, 64, 64, address)) as call:
            call()
    except (OSError, http.client.HTTPException):
        return False
    return True
