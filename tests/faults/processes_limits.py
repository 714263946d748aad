"""Rows D: too little memory, too few descriptors, no processor to be had, a clock that cannot be trusted."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.oracle import nothing_stays_behind
from tests.faults.processes_support import (
    OTHER,
    VICTIM,
    Clients,
    agent_with,
    answers_right,
    numbered,
    outcome,
    quick_package,
    replacement,
    slow_package,
    spread,
    start_again,
    tells,
    wait_until_running,
)
from tests.faults.row import ANY_SIZE, CLASSIFIER, Run, row
from tests.support.agent_process import (
    LARGE_REPLIES,
    PATIENCE,
    AgentProcess,
    describe,
    detect,
    freeze,
    inline_request,
    names,
    segment,
    segment_request,
    status,
    wait_for,
)
from tests.support.jumping_clock import jumping_clock
from tests.support.no_threads import no_threads
from tests.support.packages import HEIGHT, WIDTH, grey, make_package

LARGE = 1536
"""Pixels a side of an image that takes some tens of megabytes to inspect."""
CALLS_BETWEEN_DEATHS = 100
TIME_LIMIT = 10
"""Seconds one image may take: many times what it takes on a busy machine, too."""
BUSY = "while True: pass"
WRITING = """
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
while True:
    os.pwrite(file, bytes(1 << 20), 0)
    os.fsync(file)
"""
NICENESS = 5


@row(
    "D13",
    "worker that may not have the memory it needs: INTERNAL or a new worker, and all is well when it may",
    unit="shortages",
    full=100,
    short=1,
    uses_shared_agent=False,
)
def too_little_memory(run: Run) -> None:
    packages = {OTHER: quick_package(run), VICTIM: make_package(run.folder / VICTIM, any_size=True)}
    large = inline_request(VICTIM, grey(0, LARGE, LARGE))
    with agent_with(packages) as agent:
        other, _ = agent.worker_pids()
        stub = agent.stub(LARGE_REPLIES)
        for number in run.steps():
            if number:
                start_again(stub, VICTIM)
            victim = replacement(agent, {other})
            with _limited(victim, resource.RLIMIT_AS, _address_space(victim) + run.random.randrange(32 << 20)):
                outcome(run, lambda: detect(stub, large), [grpc.StatusCode.INTERNAL])
                answers_right(agent, OTHER)
            if victim not in agent.worker_pids():
                run.saw("new worker")
            assert detect(stub, large).is_anomalous
        assert other in agent.worker_pids()
    assert run.outcomes["INTERNAL"] or run.outcomes["new worker"]


def _address_space(pid: int) -> int:
    """Bytes. Source: proc(5), statm."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _limited(pid: int, kind: int, limit: int) -> Iterator[None]:
    """A soft limit of a process, as it was again afterwards."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have died of it
            resource.prlimit(pid, kind, before)


@row(
    "D14",
    "agent without descriptors or new threads: what needs none is answered, the rest refused, and all is well later",
    unit="shortages",
    full=1000,
    short=1,
    uses_shared_agent=False,
)
def too_few_descriptors(run: Run) -> None:
    """Clients that connect take what is left; then a model is started."""
    packages = {
        ANY_SIZE: make_package(run.folder / ANY_SIZE, any_size=True),
        CLASSIFIER: quick_package(run, CLASSIFIER),
    }
    switch = run.folder / "switch"
    with agent_with(packages, environment=no_threads(switch)) as agent, nothing_stays_behind(agent):
        pid = agent.running.pid
        for _ in run.steps():
            stub = agent.stub()
            stub.StopModel(wire.StopModelRequest(model_component=CLASSIFIER))
            with _limited(pid, resource.RLIMIT_NOFILE, _descriptors(pid) + run.random.randrange(16)):
                _call_in_need(run, agent, stub)
            switch.touch()
            _call_without_threads(run, stub)
            switch.unlink()
            stub.StartModel(wire.StartModelRequest(model_component=CLASSIFIER))
            wait_until_running(stub, CLASSIFIER)
            assert len(names(agent.stub([("grpc.use_local_subchannel_pool", 1)]))) == 2  # on a new connection
            agent.close_channels()
    assert run.outcomes["INTERNAL"] or run.outcomes["FAILED"]


def _call_in_need(run: Run, agent: AgentProcess, stub: EdgeAgentStub) -> None:
    pixels = grey(0)
    with segment(pixels.tobytes()) as name, ExitStack() as held:
        for _ in range(8):
            held.enter_context(socket.socket(socket.AF_UNIX)).connect(str(agent.socket))
        by_segment = segment_request(ANY_SIZE, WIDTH, HEIGHT, name)
        outcome(run, lambda: detect(stub, by_segment), [grpc.StatusCode.INTERNAL])
        assert detect(stub, inline_request(ANY_SIZE, pixels)).is_anomalous
        start = wire.StartModelRequest(model_component=CLASSIFIER)
        code, _ = outcome(run, lambda: stub.StartModel(start), [grpc.StatusCode.INTERNAL])
    if code is grpc.StatusCode.OK:
        wait_for("the model to fail", lambda: status(stub, CLASSIFIER) == wire.FAILED)
        assert "Too many open files" in describe(stub, CLASSIFIER).status_message
        run.saw("FAILED")


def _call_without_threads(run: Run, stub: EdgeAgentStub) -> None:
    """More calls at once than ever before would each start a thread; they take turns instead."""
    calls = [stub.DetectAnomalies.future(inline_request(ANY_SIZE, grey(0)), timeout=PATIENCE) for _ in range(16)]
    for call in calls:
        outcome(run, call.result)
    stub.StartModel(wire.StartModelRequest(model_component=CLASSIFIER), timeout=PATIENCE)
    wait_for("the model to fail", lambda: status(stub, CLASSIFIER) == wire.FAILED)


def _descriptors(pid: int) -> int:
    """How many are open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@row(
    "D16",
    "wall clock that jumps by ten years all the time: no time limit, back-off or log notices",
    unit="calls",
    full=100_000,
    short=CALLS_BETWEEN_DEATHS,
    uses_shared_agent=False,
)
def jumping_clocks(run: Run) -> None:
    """Calls with deadlines, starts, stops, deaths of the worker; and all processes frozen, as by a suspend."""
    with agent_with({VICTIM: quick_package(run, VICTIM)}, environment=jumping_clock()) as agent:
        stub = agent.stub()
        for number in run.steps():
            assert tells(detect(stub, numbered(VICTIM, number % 256)), number % 256)
            run.saw("OK")
            if number % CALLS_BETWEEN_DEATHS == 0:
                start_again(stub, VICTIM)
                (worker,) = agent.worker_pids()
                os.kill(worker, signal.SIGKILL)
                assert tells(detect(stub, numbered(VICTIM, 5)), 5)
                _freeze(agent, stub)
        log = agent.log_text()
    year = datetime.now(timezone.utc).year
    assert any(line.startswith(f"{year + 10}-") for line in log.splitlines()), "the clock did not jump"
    assert any(line.startswith(f"{year - 10}-") for line in log.splitlines()), "the clock did not jump"
    assert "Traceback" not in log


def _freeze(agent: AgentProcess, stub: EdgeAgentStub) -> None:
    """Stops agent and worker, and lets them go on with a call under way."""
    frozen = [agent.running.pid, *agent.worker_pids()]
    for pid in frozen:
        freeze(pid)
    call = stub.DetectAnomalies.future(numbered(VICTIM, 9))
    with contextlib.suppress(grpc.FutureTimeoutError):
        call.result(timeout=0.05)
        raise AssertionError("a frozen agent answered")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    assert tells(call.result().detect_anomaly_result, 9)


@row(
    "D17",
    "no processor and no disk to be had: slow answers, and no worker is taken for hanging",
    unit="calls",
    full=10_000,
    short=5,
    uses_shared_agent=False,
)
def starvation(run: Run) -> None:
    """Twice as many busy processes as cores, and one that has the disk write."""
    calls, control_calls = [], []
    with (
        agent_with({VICTIM: slow_package(run)}, "--run-time-limit", str(TIME_LIMIT)) as agent,
        _starved(run.folder / "written"),
        Clients(run, agent, VICTIM, 2) as clients,
    ):
        stub, workers = agent.stub(), agent.worker_pids()
        for number in run.steps():
            began = time.monotonic()
            assert tells(detect(stub, numbered(VICTIM, number % 10)), number % 10)
            calls.append(time.monotonic() - began)
            began = time.monotonic()
            assert status(stub, VICTIM) == wire.RUNNING
            control_calls.append(time.monotonic() - began)
        clients.wait_for_answers()
        assert agent.worker_pids() == workers
        assert "the worker is replaced" not in agent.log_text()
    run.figures["call"] = spread(calls)
    run.figures["control call"] = spread(control_calls)


@contextlib.contextmanager
def _starved(written: Path) -> Iterator[None]:
    """Load on processor and disk; a little nice, as others use this machine too."""
    busy = [[sys.executable, "-c", BUSY]] * 2 * (os.cpu_count() or 1)
    with ExitStack() as started:
        for command in [*busy, [sys.executable, "-c", WRITING, str(written)]]:
            process = started.enter_context(subprocess.Popen(command))
            started.callback(process.kill)  # before it is waited for
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        yield
