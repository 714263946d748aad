"""Agents on the device that is checked, and what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from agent.models.registry import Record, write_record
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from benchmarks.serving.model import Package
from benchmarks.serving.processes import running, wait_until
from benchmarks.serving.servers import COMPONENT, RECONNECT


def outcome(package: Package, folder: Path, **environment: str) -> tuple[int, str]:
    """State and message of a model that an agent with this environment has started."""
    folder.mkdir(parents=True)
    address, registry, log = folder / "agent", folder / "registry", folder / "log"
    write_record(registry, Record(COMPONENT, "1.0.0", str(package.folder)))
    command = ["-m", "agent", "serve", "--socket", f"unix://{address}", "--registry", str(registry)]
    with environment_of(**environment), running([*command, "--auto-start", "true"], log) as process:
        wait_until("the agent", address.exists, process, log)
        with stub_of(str(address)) as stub:
            wait_until("the model", lambda: described(stub)[0] in (wire.RUNNING, wire.FAILED), process, log)
            return described(stub)


def described(stub: EdgeAgentStub) -> tuple[int, str]:
    """State and message of the model."""
    request = wire.DescribeModelRequest(model_component=COMPONENT)
    told = stub.DescribeModel(request, wait_for_ready=True).model_description
    return told.status, told.status_message


@contextmanager
def stub_of(address: str) -> Iterator[EdgeAgentStub]:
    with grpc.insecure_channel(f"unix:{address}", options=RECONNECT) as channel:
        yield EdgeAgentStub(channel)


@contextmanager
def environment_of(**values: str) -> Iterator[None]:
    """For the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
