"""Row F3: the Greengrass configuration changes over and over while clients call."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.faults.row import ANY_SIZE, Run, row, start_models
from tests.faults.settings import needs_sdk
from tests.support.agent_process import AgentProcess, detect, inline_request, wait_for
from tests.support.component_process import ComponentProcess
from tests.support.nucleus import Nucleus
from tests.support.packages import grey

CALLERS = 4
"""Two are answered at once; the queue is never shorter than the others."""
LOOK_EACH = 20
"""Changes after which the log must have caught up."""
FORCED = re.compile(r"QueueLength (\d+), was")


@row(
    "F3",
    "the Greengrass configuration changes under load: in force or `takes effect when ... restarts`, and no call fails",
    unit="changes",
    full=10_000,
    short=60,
    uses_shared_agent=False,
)
def changes_under_load(run: Run) -> None:
    needs_sdk()
    with Nucleus(lite=bool(run.seed % 2)) as nucleus, ComponentProcess(nucleus) as agent:
        start_models(agent, run.folder)
        with callers(run, agent):
            for step in run.steps():
                change = some_change(run.random, step)
                nucleus.change(**change)
                if step % LOOK_EACH == LOOK_EACH - 1:
                    wait_for(f"{change} to be in force", lambda length=change["QueueLength"]: in_force(agent) == length)
        nucleus.change(CallsInFlight=4)
        wait_for("the line", lambda: "CallsInFlight 4 takes effect when the component restarts" in agent.log_text())
        assert " ERROR " not in agent.log_text()
        assert len(agent.worker_pids()) == 2, "a model was restarted"
        assert agent.stop() == 0


def some_change(chance: random.Random, step: int) -> dict[str, Any]:
    """Live settings, another queue length each time, and something that waits for the restart."""
    return {
        "QueueLength": CALLERS + step % (49 - CALLERS),
        "RunTimeLimit": chance.randint(10, 3600),
        "LoadTimeLimit": chance.randint(10, 86400),
        "MessageMemory": chance.randint(64, 1024),
        "Threads": chance.randint(0, 4),
        "WorkerGrowth": chance.choice([0, 512, 4096]),
        "UnloadFirst": chance.choice([True, False]),
        "AutoStart": chance.choice([True, False]),
        "LogLevel": chance.choice(["debug", "info"]),
        "LogFormat": chance.choice(["text", "json"]),
    }


def in_force(agent: AgentProcess) -> int:
    lengths = FORCED.findall(agent.log_text())
    return int(lengths[-1]) if lengths else -1


@contextmanager
def callers(run: Run, agent: AgentProcess) -> Iterator[None]:
    """Clients that call meanwhile; a refused call is an error on leaving."""
    is_over = threading.Event()

    def call() -> None:
        stub, image = agent.stub(), inline_request(ANY_SIZE, grey(0))
        while not is_over.is_set():
            assert detect(stub, image).is_anomalous
            run.saw("OK")

    with ThreadPoolExecutor(CALLERS) as threads:
        calls = [threads.submit(call) for _ in range(CALLERS)]
        try:
            yield
        finally:
            is_over.set()
        for each in calls:
            each.result()
    run.figures["calls meanwhile"] = str(run.outcomes["OK"])
