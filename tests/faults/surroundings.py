"""Rows F5 to F7: full disks, stalled logs, power cuts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.row import Run, row
from tests.support.agent_process import PATIENCE, AgentProcess, detect, inline_request, refusal, status, wait_for
from tests.support.checkout import ROOT
from tests.support.packages import grey, make_package

DROPPED = re.compile(r"log lines dropped here: (\d+);")
LONG_NAME = "\U0001f600" * 80
"""A name that makes a line of 900 bytes: the refusal quotes it escaped."""
CALLERS = 4
MODEL = "model"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


class NoLogToRead(AgentProcess):
    """An agent whose standard error is no plain file."""

    def log_text(self) -> str:
        return "(not in a file)"


@row(
    "F5",
    "log and records on a full disk: serving goes on, and the log tells what it lost once there is room",
    unit="calls",
    full=100_000,
    short=30,
    uses_shared_agent=False,
)
def full_disk(run: Run) -> None:
    with AgentProcess() as agent:
        agent.run_model(MODEL, make_package(run.folder / "package", any_size=True))
        stub = agent.stub()
        may_write(agent, 0)
        lines = agent.log_text()
        refused, durations = 0, []
        for number in run.steps():
            began = time.monotonic()
            if number % 3:
                assert detect(stub, inline_request(MODEL, grey(0))).is_anomalous
                run.saw("OK")
            else:
                run.saw(refused_for_its_name(stub))
                refused += 1
            durations.append(time.monotonic() - began)
        run.figures["longest call"] = milliseconds(max(durations))
        # A model can be stopped, though nobody can write down that it is to stay so.
        stub.StopModel(wire.StopModelRequest(model_component=MODEL))
        assert agent.log_text() == lines

        may_write(agent, resource.RLIM_INFINITY)
        run.saw(refused_for_its_name(stub))
        wait_for("the log to tell what it lost", lambda: DROPPED.search(agent.log_text()) is not None)
        (lost,) = DROPPED.findall(agent.log_text())
        assert int(lost) >= refused
        run.figures["lines dropped"] = lost
        stub.StartModel(wire.StartModelRequest(model_component=MODEL))
        wait_for("the model to run again", lambda: status(stub, MODEL) == wire.RUNNING)
        assert agent.stop() == 0
    always_full_log(run)


def may_write(agent: AgentProcess, size: int) -> None:
    """Files of the agent may become so long: 0 is a disk without room."""
    pid = agent.running.pid
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


def refused_for_its_name(stub: EdgeAgentStub) -> str:
    """A call that makes a long line in the log; its status code."""
    request = wire.DescribeModelRequest(model_component=LONG_NAME)
    code, sentence = refusal(lambda: stub.DescribeModel(request, timeout=PATIENCE))
    assert code is grpc.StatusCode.INVALID_ARGUMENT, sentence
    return code.name


def always_full_log(run: Run) -> None:
    agent = NoLogToRead()
    agent.log = Path("/dev/full")
    with agent:
        run.saw(refused_for_its_name(agent.stub()))
        assert agent.stop() == 0


class LogReader(AbstractContextManager["LogReader"]):
    """Whoever reads an agent's log, through a pipe of one page, and stalls until told to go on."""

    def __init__(self, agent: AgentProcess) -> None:
        os.mkfifo(agent.log)
        self._descriptor = os.open(agent.log, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, 4096)
        self._read = b""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def text(self) -> str:
        """All that has come so far."""
        try:
            while content := os.read(self._descriptor, 1 << 16):
                self._read += content
        except BlockingIOError:
            pass
        return self._read.decode()


@row(
    "F6",
    "a flood of log lines and a reader that has stalled: no call waits, and none holds up the end",
    unit="lines",
    full=1_000_000,
    short=1600,
    uses_shared_agent=False,
)
def stalled_log(run: Run) -> None:
    agent = NoLogToRead()
    with LogReader(agent) as reader, agent:
        wait_for("the agent's first line", lambda: "serves" in reader.text())
        durations = flood(run, agent)
        p50, p99, longest = np.quantile(durations, [0.5, 0.99, 1])
        run.figures["p50"], run.figures["p99"], run.figures["longest"] = map(milliseconds, (p50, p99, longest))

        def kept_and_dropped() -> tuple[int, int]:
            text = reader.text()
            return text.count(" INFO agent.rpc"), sum(map(int, DROPPED.findall(text)))

        wait_for("every line to be written or told of", lambda: sum(kept_and_dropped()) == len(durations))
        run.figures["lines dropped"] = str(kept_and_dropped()[1])
        # Stalled again, with a full pipe: the end does not wait for it.
        for _ in range(10):
            refused_for_its_name(agent.stub())
        began = time.monotonic()
        assert agent.stop() == 0
        run.figures["end with a stalled reader"] = milliseconds(time.monotonic() - began)


def flood(run: Run, agent: AgentProcess) -> list[float]:
    """Refused calls from several clients, each a line; how many seconds each took."""
    durations: list[float] = []
    lock = threading.Lock()

    def call() -> None:
        stub = agent.stub()
        own = []
        for _ in run.steps():
            began = time.monotonic()
            run.saw(refused_for_its_name(stub))
            own.append(time.monotonic() - began)
        with lock:
            durations.extend(own)

    with ThreadPoolExecutor(CALLERS) as threads:
        for done in [threads.submit(call) for _ in range(CALLERS)]:
            done.result()
    return durations


@row(
    "F7",
    "power cut at every step of writing a record, the wanted models or a TensorRT engine: old or new, never torn",
    unit="cuts",
    full=1000,
    short=50,
    uses_shared_agent=False,
)
def power_cut(run: Run) -> None:
    cuts = 50
    for _ in run.steps(each=cuts):
        command = [sys.executable, "-m", "tests.faults.surroundings_cuts", str(run.folder), str(cuts)]
        told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600).stdout
        run.outcomes.update(json.loads(told))
