"""What the rows on shared memory have in common: requests that name segments, what came back, and who holds what."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.oracle import resident_bytes
from tests.faults.row import ANY_SIZE, Run
from tests.support.agent_process import AgentProcess, detect, inline_request, wait_for
from tests.support.packages import HEIGHT, WIDTH, grey

SHM = Path("/dev/shm")
SIZE = WIDTH * HEIGHT * 3
"""Bytes of the image that most rows send, and of its mask."""
DARK, BRIGHT = grey(0), grey(255)
ANOMALY = (0x23, 0xA4, 0x36)
"""Colour of the first label that is not background."""


def handle(name: str, size: int = SIZE, offset: int = 0) -> wire.SharedMemoryHandle:
    return wire.SharedMemoryHandle(name=name, size=size, offset=offset)


def image_in(
    where: wire.SharedMemoryHandle, *, width: int = WIDTH, height: int = HEIGHT, component: str = ANY_SIZE
) -> wire.DetectAnomaliesRequest:
    bitmap = wire.Bitmap(width=width, height=height, shared_memory_handle=where)
    return wire.DetectAnomaliesRequest(model_component=component, bitmap=bitmap)


def mask_in(
    where: wire.SharedMemoryHandle, request: wire.DetectAnomaliesRequest | None = None
) -> wire.DetectAnomaliesRequest:
    """`request`, or one with a dark image inline, whose mask is to be written to `where`."""
    request = request or inline_request(ANY_SIZE, DARK)
    request.anomaly_mask_params.shared_memory_handle.CopyFrom(where)
    return request


def mask_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask of an image of black and white pixels: black is anomalous."""
    return np.where(pixels == 0, np.array(ANOMALY, np.uint8), np.uint8(255))


@dataclass(frozen=True)
class Reply:
    """What a call came to."""

    code: grpc.StatusCode
    sentence: str = ""
    """Of the refusal."""
    result: wire.DetectAnomalyResult | None = None
    """Where the code is OK."""

    @property
    def is_ok(self) -> bool:
        return self.code is grpc.StatusCode.OK

    @property
    def areas(self) -> dict[str, float]:
        assert self.result is not None, self.sentence
        return {anomaly.name: anomaly.pixel_anomaly.total_percentage_area for anomaly in self.result.anomalies}


def ask(run: Run, stub: EdgeAgentStub, request: wire.DetectAnomaliesRequest) -> Reply:
    """The reply to a call, counted. A refusal is one printable sentence that tells nothing of the agent's inside."""
    try:
        reply = Reply(grpc.StatusCode.OK, result=detect(stub, request))
    except grpc.RpcError as error:
        reply = Reply(error.code(), error.details())
        assert reply.sentence.isprintable() and len(reply.sentence) < 500, reply
        own_words = re.sub('".*"', "", reply.sentence)  # without the names that the client gave
        assert not any(inside in own_words for inside in ("/proc", "memfd", "Traceback", str(run.folder))), reply
    run.saw(reply.code.name)
    return reply


def must_refuse(run: Run, stub: EdgeAgentStub, request: wire.DetectAnomaliesRequest, because: str = "") -> None:
    """INVALID_ARGUMENT, and a sentence that contains `because`."""
    reply = ask(run, stub, request)
    assert reply.code is grpc.StatusCode.INVALID_ARGUMENT and because in reply.sentence, reply


def must_answer(run: Run, stub: EdgeAgentStub, request: wire.DetectAnomaliesRequest) -> Reply:
    reply = ask(run, stub, request)
    assert reply.is_ok, reply
    return reply


def path_of(name: str) -> Path:
    return SHM / name.removeprefix("/")


@contextlib.contextmanager
def laid_down(lay: Callable[[Path], object]) -> Iterator[str]:
    """The name of what `lay` puts into /dev/shm, whatever it is; gone afterwards."""
    name = f"/ea-test-{os.getpid()}-{time.monotonic_ns()}"
    path = path_of(name)
    try:
        lay(path)
        yield name
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def processes_of(agent: AgentProcess) -> list[int]:
    return [agent.running.pid, *sorted(agent.worker_pids())]


def memory_of(agent: AgentProcess) -> int:
    return sum(resident_bytes(pid) for pid in processes_of(agent))


@contextlib.contextmanager
def no_worker_dies(agent: AgentProcess) -> Iterator[None]:
    """The processes after the block are those before it. (A call whose worker dies is tried again, and answered.)"""
    before = processes_of(agent)
    yield
    assert processes_of(agent) == before, agent.log_text()


def held_by(pid: int) -> set[str]:
    """What a process has open or mapped, as proc(5) names it."""
    process, names = Path(f"/proc/{pid}"), set()
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(str(descriptor.readlink()))
    for line in (process / "maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6:
            names.add(fields[5])
    return names


def wait_until_let_go(agent: AgentProcess, name: str) -> None:
    """Returns when neither the agent nor a worker holds the segment: its memory is freed when the client unlinks it."""
    told = str(path_of(name))
    wait_for(
        f"nobody to hold {told}",
        lambda: not any(held.startswith(told) for pid in processes_of(agent) for held in held_by(pid)),
    )


def from_clients(run: Run, count: int, go: Callable[[EdgeAgentStub], None]) -> None:
    """`go` from `count` clients at once, each on a channel of its own."""
    stubs = [run.agent.stub() for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(go, stubs))
