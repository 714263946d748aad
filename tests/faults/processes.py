"""Rows D: workers that die, hang, or never answer."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
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
from tests.faults.row import Run, row
from tests.support.agent_process import (
    AgentProcess,
    describe,
    detect,
    freeze,
    gone,
    processor_time,
    status,
    wait_for,
)
from tests.support.faulty_worker import ENDS, faulty_workers
from tests.support.packages import make_package, number_product_model

KILLS_IN_A_ROW = 2
"""Between two starts: more would wait ever longer before they restart, and the sixth makes the model FAILED."""
TIME_LIMIT = 0.5
"""Seconds one image may take, where a row waits for this to pass."""
PAUSE = 0.05
"""Seconds between two calls of those who look whether the other model answers."""
ENDLESS = 1 << 40
"""Steps of a loop that nobody lives to see the end of."""


@row(
    "D1",
    "worker killed with calls in hand: all are answered by the next",
    unit="kills",
    full=1000,
    short=2,
    uses_shared_agent=False,
)
def killed_workers(run: Run) -> None:
    """Four clients call without a pause; no answer is lost, none is mixed up, and another model answers all the while.

    A kill comes only when every client has been answered since the last one: the second try is not hit.
    """
    restarts = []
    with agent_with({OTHER: quick_package(run), VICTIM: slow_package(run)}) as agent:
        other, _ = agent.worker_pids()
        for number in run.steps(each=KILLS_IN_A_ROW):
            if number:
                start_again(agent.stub(), VICTIM)
            with Clients(run, agent, VICTIM, 4) as clients, Clients(run, agent, OTHER, 1, pause=PAUSE) as unharmed:
                for _ in range(KILLS_IN_A_ROW):
                    clients.wait_for_answers()
                    restarts.append(_kill_worker(agent, replacement(agent, {other})))
                clients.wait_for_answers()
                unharmed.wait_for_answers()
            agent.close_channels()
        assert other in agent.worker_pids()
        assert "a call was in hand when its worker died" in agent.log_text()
    run.figures["kill to ready"] = spread(restarts)


def _kill_worker(agent: AgentProcess, victim: int) -> float:
    """Seconds from SIGKILL to the next worker that is ready to answer."""
    stub = agent.stub()
    known = agent.worker_pids()
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    replacement(agent, known)
    wait_for("the new worker to serve", lambda: describe(stub, VICTIM).status_message.startswith("version"))
    assert status(stub, VICTIM) == wire.RUNNING  # a restart is no move
    return time.monotonic() - began


@row(
    "D2",
    "an image that ends its worker, twice: INTERNAL, and the next image is answered",
    unit="deaths",
    full=500,
    short=2 * len(ENDS),
    uses_shared_agent=False,
)
def deadly_images(run: Run) -> None:
    """By SIGSEGV, SIGABRT, SIGBUS, exit 0 and exit 1, each in a model of its own, all at once."""
    packages = {ENDS[red].__name__: quick_package(run, ENDS[red].__name__) for red in ENDS}
    with agent_with({OTHER: quick_package(run), **packages}, environment=faulty_workers("call-ends")) as agent:
        other, *_ = agent.worker_pids()
        with ThreadPoolExecutor(len(ENDS)) as threads:
            for number in run.steps(each=2 * len(ENDS)):
                if number:
                    list(threads.map(lambda component: start_again(agent.stub(), component), packages))
                list(threads.map(lambda red: _die_of_image(run, agent, red), ENDS))
                answers_right(agent, OTHER, 100)
                agent.close_channels()
        assert other in agent.worker_pids()
    assert set(run.outcomes) == {"INTERNAL"}


def _die_of_image(run: Run, agent: AgentProcess, red: int) -> None:
    component, stub = ENDS[red].__name__, agent.stub()
    _, sentence = outcome(run, lambda: detect(stub, numbered(component, red)), [grpc.StatusCode.INTERNAL])
    assert "could not inspect this image: its worker ended unexpectedly" in sentence
    answers_right(agent, component, 200)


@row(
    "D3",
    "worker stopped by SIGSTOP: killed at the time limit, its call answered by the next",
    unit="stops",
    full=100,
    short=1,
    uses_shared_agent=False,
)
def stopped_workers(run: Run) -> None:
    noticed = []
    packages = {OTHER: quick_package(run), VICTIM: quick_package(run, VICTIM)}
    with agent_with(packages, "--run-time-limit", str(TIME_LIMIT)) as agent, ThreadPoolExecutor(1) as threads:
        other, _ = agent.worker_pids()
        for number in run.steps():
            stub = agent.stub()
            if number:
                start_again(stub, VICTIM)
            victim = replacement(agent, {other})
            freeze(victim)
            began = time.monotonic()
            call = threads.submit(detect, stub, numbered(VICTIM, 77))
            wait_for("the stopped worker to be gone", lambda victim=victim: gone(victim))
            noticed.append(time.monotonic() - began)
            assert tells(call.result(), 77)
            run.saw("OK")
            answers_right(agent, OTHER)
            agent.close_channels()
        assert other in agent.worker_pids()
    assert min(noticed) > TIME_LIMIT
    run.figures[f"killed after, limit {TIME_LIMIT:g} s"] = spread(noticed)


@row(
    "D4",
    "model that never ends, or one very long operator: ended at the time limit",
    unit="calls",
    full=100,
    short=2,
    uses_shared_agent=False,
)
def endless_models(run: Run) -> None:
    """Twice, for the call is tried once more, then INTERNAL; images that take no time are answered."""
    product = make_package(run.folder / "product", task="classification", model=number_product_model())
    packages = {OTHER: quick_package(run), "loop": slow_package(run, "loop", ENDLESS), "product": product}
    took: list[float] = []
    with (
        agent_with(packages, "--run-time-limit", str(TIME_LIMIT)) as agent,
        ThreadPoolExecutor(2) as threads,
    ):
        other, *_ = agent.worker_pids()
        for number in run.steps(each=2):
            if number:
                list(threads.map(lambda component: start_again(agent.stub(), component), ("loop", "product")))
            with Clients(run, agent, OTHER, 1, pause=PAUSE) as unharmed:
                took += threads.map(lambda component: _never_end(run, agent, component), ("loop", "product"))
                unharmed.wait_for_answers()
            agent.close_channels()
        assert other in agent.worker_pids()
    assert run.outcomes["INTERNAL"] == len(took)
    assert min(took) > 2 * TIME_LIMIT
    run.figures[f"INTERNAL after, limit twice {TIME_LIMIT:g} s"] = spread(took)


def _never_end(run: Run, agent: AgentProcess, component: str) -> float:
    """Seconds until the call that never ends was given up."""
    stub, began = agent.stub(), time.monotonic()
    _, sentence = outcome(run, lambda: detect(stub, numbered(component, 255)), [grpc.StatusCode.INTERNAL])
    took = time.monotonic() - began
    reason = f"its worker was ended after {TIME_LIMIT:g} s (run_time_limit)"
    assert f"{reason}, and the same happened to the next one." in sentence
    answers_right(agent, component, 0)
    return took


@row(
    "D5",
    "worker that dies whenever it loads its model: ever longer waits, then FAILED; the agent and others live",
    unit="crash loops",
    full=20,
    short=1,
    uses_shared_agent=False,
)
def crash_loops(run: Run) -> None:
    switch = run.folder / "switch"
    environment = faulty_workers("load-crash", model=VICTIM, when=switch)
    packages = {OTHER: quick_package(run), VICTIM: quick_package(run, VICTIM)}
    worked, took = 0.0, 0.0
    with agent_with(packages, environment=environment) as agent:
        other, _ = agent.worker_pids()
        for number in run.steps():
            stub = agent.stub()
            switch.touch()
            worked, took = worked - processor_time(agent.running.pid), took - time.monotonic()
            os.kill(replacement(agent, {other}), signal.SIGKILL)
            # The log and not DescribeModel: asking costs processor time too.
            wait_for("the model to be FAILED", lambda number=number: _failures(agent) == number + 1)
            worked, took = worked + processor_time(agent.running.pid), took + time.monotonic()
            assert "its worker ended 6 times within 60 s" in describe(stub, VICTIM).status_message
            _fails_at_once(run, stub)
            switch.unlink()
            stub.StartModel(wire.StartModelRequest(model_component=VICTIM))
            wait_until_running(stub, VICTIM)
            answers_right(agent, VICTIM)
            answers_right(agent, OTHER)
        assert other in agent.worker_pids()
    run.figures["agent's processor while the model crashes"] = f"{100 * worked / took:.1f} %"
    assert worked / took < 0.5


def _failures(agent: AgentProcess) -> int:
    return agent.log_text().count(f"model {VICTIM}: RUNNING -> FAILED")


def _fails_at_once(run: Run, stub: EdgeAgentStub) -> None:
    """A model that could not be loaded is not tried again by itself, but whenever a client asks."""
    outcome(run, lambda: detect(stub, numbered(VICTIM, 5)), [grpc.StatusCode.FAILED_PRECONDITION])
    stub.StartModel(wire.StartModelRequest(model_component=VICTIM))
    wait_for("the model to be FAILED again", lambda: status(stub, VICTIM) == wire.FAILED)
    assert "its worker ended while it was loading the model" in describe(stub, VICTIM).status_message
