"""Rows B: who outlives whom - segments their clients, segments the agent, and no call its descriptors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults import segments_client
from tests.faults.row import ANY_SIZE, CLASSIFIER, Run, row
from tests.faults.segments_support import (
    DARK,
    SIZE,
    from_clients,
    handle,
    image_in,
    mask_in,
    mask_of,
    memory_of,
    must_answer,
    path_of,
    wait_until_let_go,
)
from tests.support.agent_process import RECONNECT, AgentProcess, answers, describe, segment, status, wait_for
from tests.support.packages import make_package


@row("B14", "a client is killed in a call: the agent lets its segment go", unit="clients", full=1000, short=5)
def client_killed_in_a_call(run: Run) -> None:
    with nursery(run.agent) as born:
        for number in run.steps():
            name = f"ea-test-{os.getpid()}-killed-{number}"
            try:
                os.kill(born(name, run.random.randrange(1, 10)), 9)
                wait_until_let_go(run.agent, name)
            finally:
                path_of(name).unlink(missing_ok=True)
            run.saw("killed")


@contextlib.contextmanager
def nursery(agent: AgentProcess) -> Iterator[Callable[[str, int], int]]:
    """Gives the process id of a client in the middle of a call, by the name of its segment and how many it has had."""
    command = [sys.executable, segments_client.__file__, str(agent.socket)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def born(name: str, answers: int) -> int:
            process.stdin.write(f"{name} {answers}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield born
        process.stdin.close()  # ends it
    assert process.returncode == 0


@row(
    "B15",
    "the agent ends, is killed, or gets a new version: clients' segments stay",
    unit="restarts",
    full=1000,
    short=3,
    uses_shared_agent=False,
)
def segments_outlive_the_agent(run: Run) -> None:
    package = make_package(run.folder / ANY_SIZE, any_size=True)
    with AgentProcess() as agent, segment(DARK.tobytes(), 2 * SIZE) as old:
        agent.run_model(ANY_SIZE, package)
        for number in run.steps():
            with segment(DARK.tobytes(), 2 * SIZE) as new:
                before = {name: path_of(name).stat().st_ino for name in (old, new)}
                stub = agent.stub(RECONNECT)
                wait_for("the model to run", lambda stub=stub: answers(lambda: status(stub, ANY_SIZE) == wire.RUNNING))
                requests = [mask_in(handle(name, SIZE, SIZE), image_in(handle(name))) for name in before]
                for request in requests:
                    must_answer(run, stub, request)
                in_hand = [stub.DetectAnomalies.future(request) for request in requests]
                if number % 3 == 2:
                    update(agent, stub, package, f"1.0.{number}")
                    run.saw("new version")
                else:
                    run.saw(restart(agent, gently=number % 3 == 0))
                for call in in_hand:
                    call.cancel()
                agent.close_channels()
                for name, inode in before.items():
                    assert path_of(name).stat().st_ino == inode
                    assert path_of(name).read_bytes() == DARK.tobytes() + mask_of(DARK).tobytes()


def update(agent: AgentProcess, stub: EdgeAgentStub, package: Path, version: str) -> None:
    agent.register(ANY_SIZE, package, version)
    wait_for(f"{version} to serve", lambda: f"version {version}," in describe(stub, ANY_SIZE).status_message)


def restart(agent: AgentProcess, gently: bool) -> str:
    if gently:
        assert agent.stop() == 0
    else:
        agent.kill()
    agent.start()
    return "asked to stop" if gently else "killed"


CLIENTS = 2
WARM_UP = 150
"""Calls of each client, after which the allocators of all threads have what they need."""


@row("B17", "a segment opened, read and closed over and over: nothing leaks", unit="calls", full=1_000_000, short=500)
def opened_over_and_over(run: Run) -> None:
    with segment(DARK.tobytes(), 2 * SIZE) as name:
        image, mask = handle(name), handle(name, SIZE, SIZE)

        def inspect(stub: EdgeAgentStub, steps: Iterable[int]) -> None:
            for number in steps:
                if number % 2:
                    must_answer(run, stub, image_in(image, component=CLASSIFIER))
                else:
                    must_answer(run, stub, mask_in(mask, image_in(image)))

        from_clients(run, CLIENTS, lambda stub: inspect(stub, range(WARM_UP)))
        before, open_before = memory_of(run.agent), worker_descriptors(run.agent)
        from_clients(run, CLIENTS, lambda stub: inspect(stub, run.steps()))
        grown = memory_of(run.agent) / before - 1
        assert worker_descriptors(run.agent) == open_before
    run.figures["memory grew by"] = f"{grown:.1%}"
    assert grown < 10 * 0.02


def worker_descriptors(agent: AgentProcess) -> dict[int, int]:
    return {pid: len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in agent.worker_pids()}
