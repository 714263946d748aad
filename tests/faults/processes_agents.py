"""Rows D: the agent that is killed, asked to stop, or started again."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import grpc

from agent.commands.serve import DRAIN_LIMIT
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.processes_support import (
    VICTIM,
    agent_with,
    folder_holds,
    interrupt,
    numbered,
    outcome,
    replacement,
    serves,
    slow_package,
    spread,
    start_over,
    tells,
    wait_until_busy,
    wait_until_running,
)
from tests.faults.row import Run, row
from tests.support.agent_process import (
    PATIENCE,
    RECONNECT,
    AgentProcess,
    answers,
    detect,
    gone,
    names,
    status,
    wait_for,
)
from tests.support.faulty_worker import faulty_workers

LEFT_BEHIND = {"registry", "log", "s.lock"}
"""In the folder of an agent that has ended as it should. (The log is ours.)"""
UNAVAILABLE, CANCELLED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED


@row(
    "D6",
    "agent killed with a call in hand: UNAVAILABLE at once, no worker stays, the next agent starts",
    unit="restarts",
    full=1000,
    short=2,
    uses_shared_agent=False,
)
def killed_agents(run: Run) -> None:
    noticed, orphaned, ready = [], [], []
    with agent_with({VICTIM: slow_package(run)}) as agent:
        for number in run.steps():
            if number:
                ready.append(_start_idle(agent))
            stub = agent.stub()
            if number:
                stub.StartModel(wire.StartModelRequest(model_component=VICTIM))
            wait_until_running(stub, VICTIM)
            (worker,) = agent.worker_pids()
            call = stub.DetectAnomalies.future(numbered(VICTIM, 255), timeout=PATIENCE)
            wait_until_busy(worker)
            began = time.monotonic()
            agent.running.kill()
            outcome(run, call.result, [UNAVAILABLE])
            noticed.append(time.monotonic() - began)
            wait_for("the worker to be gone", lambda worker=worker: gone(worker))
            orphaned.append(time.monotonic() - began)
            agent.running.wait()
            agent.close_channels()
        start_over(agent)
    assert set(run.outcomes) == {"UNAVAILABLE"}
    run.figures["UNAVAILABLE after"] = spread(noticed)
    run.figures["worker gone after"] = spread(orphaned)
    if ready:
        run.figures["ready without models"] = spread(ready)
    assert max(noticed) < 0.5 and max(orphaned) < 10


def _start_idle(agent: AgentProcess) -> float:
    """Seconds from the start of an agent that loads no model by itself to its first answer."""
    (agent.registry / ".wanted-models").unlink()
    began = time.monotonic()
    start_over(agent)
    assert names(agent.stub()) == [VICTIM]
    return time.monotonic() - began


@contextlib.contextmanager
def _idle(agent: AgentProcess) -> Iterator[None]:
    yield


@contextlib.contextmanager
def _calls_in_hand(agent: AgentProcess) -> Iterator[None]:
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(detect, agent.stub(), numbered("slow", 40))
        wait_until_busy(agent.worker_pids()[0])
        began = time.monotonic()
        yield
        if time.monotonic() - began < DRAIN_LIMIT:  # on a very slow machine there is no time for it
            assert tells(call.result(), 40)


@contextlib.contextmanager
def _loading(agent: AgentProcess) -> Iterator[None]:
    stub = agent.stub()
    stub.StartModel(wire.StartModelRequest(model_component="hanging"))
    replacement(agent, agent.worker_pids()[:1])
    assert status(stub, "hanging") == wire.STARTING
    yield


@contextlib.contextmanager
def _unloading(agent: AgentProcess) -> Iterator[None]:
    stub = agent.stub()
    with _calls_in_hand(agent), ThreadPoolExecutor(1) as threads:
        stopped = threads.submit(stub.StopModel, wire.StopModelRequest(model_component="slow"))
        wait_for("the model to be STOPPING", lambda: status(stub, "slow") != wire.RUNNING)
        began = time.monotonic()
        yield
        if time.monotonic() - began < DRAIN_LIMIT:
            assert stopped.result().status == wire.STOPPED


Scene = Callable[[AgentProcess], AbstractContextManager[None]]
SCENES: tuple[Scene, ...] = (_idle, _calls_in_hand, _loading, _unloading)
SIGNALS = ((signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM,))
STOPS = [(scene, SIGNALS[(turn + at) % 3]) for turn in range(3) for at, scene in enumerate(SCENES)]
"""Every scene with every signal; the first four have all of both."""


@row(
    "D10",
    "agent asked to stop, whatever it is doing: new calls UNAVAILABLE, those in hand answered, exit 0",
    unit="stops",
    full=1200,
    short=4,
    uses_shared_agent=False,
)
def asked_to_stop(run: Run) -> None:
    slow_package(run, "slow")
    slow_package(run, "hanging")
    took: list[float] = []
    with ThreadPoolExecutor(2) as threads:
        for number in run.steps(each=2):
            took += threads.map(lambda step: _stop(run, *STOPS[step % len(STOPS)]), (2 * number, 2 * number + 1))
    assert run.outcomes["UNAVAILABLE"] == len(took)
    run.figures["exit after"] = spread(took)


def _stop(run: Run, scene: Scene, signals: tuple[int, ...]) -> float:
    """Seconds from the signal to the agent's exit."""
    packages = {"slow": run.folder / "slow"}
    with agent_with(packages, environment=faulty_workers("load-sleep", model="hanging")) as agent:
        agent.register("hanging", run.folder / "hanging")
        client = agent.stub()
        wait_for("both models to be listed", lambda: len(names(client)) == 2)
        with scene(agent):
            workers = agent.worker_pids()
            began = time.monotonic()
            for number in signals:
                agent.running.send_signal(number)
            wait_for("new calls to be refused", lambda: _is_refused(run, client))
            assert agent.running.wait(PATIENCE) == 0
            took = time.monotonic() - began
        wait_for("the workers to be gone", lambda: all(map(gone, workers)))
        assert folder_holds(agent) == LEFT_BEHIND
    return took


def _is_refused(run: Run, client: EdgeAgentStub) -> bool:
    try:
        names(client)
    except grpc.RpcError as error:
        # CANCELLED is gRPC's for a call that comes at the very moment.
        assert error.code() in (UNAVAILABLE, CANCELLED), error.details()
        run.saw(error.code().name)
        return error.code() is UNAVAILABLE
    return False


@row(
    "D11",
    "SIGTERM to the workers first, then to the agent, SIGKILL 5 s later: calls in hand are answered",
    unit="stops",
    full=1000,
    short=1,
    uses_shared_agent=False,
)
def stopped_as_by_the_nucleus(run: Run) -> None:
    """Two calls are with the worker and two wait. Workers are signalled while they load, too.

    How long the agent takes is measured: the nucleus would kill it after 5 s.
    """
    took = []
    with agent_with({VICTIM: slow_package(run)}, "--queue-length", "2") as agent:
        for number in run.steps():
            if number:
                agent.start()
                interrupt([replacement(agent, ())], signal.SIGTERM)
            stub = agent.stub(RECONNECT)
            wait_until_running(stub, VICTIM)
            workers, calls = agent.worker_pids(), _four_in_hand(stub)
            began = time.monotonic()
            interrupt(workers, signal.SIGTERM)
            assert agent.stop() == 0
            took.append(time.monotonic() - began)
            # On a very slow machine even these calls do not fit into the time there is.
            allowed = [UNAVAILABLE, CANCELLED] if took[-1] > DRAIN_LIMIT else []
            for value, call in calls.items():
                code, _ = outcome(run, call.result, allowed)
                assert code in allowed or tells(call.result().detect_anomaly_result, value)
            wait_for("the workers to be gone", lambda workers=workers: all(map(gone, workers)))
            assert folder_holds(agent) == LEFT_BEHIND
            agent.close_channels()
        assert "worker died" not in agent.log_text()
        start_over(agent)
    assert run.outcomes["OK"]
    run.figures["exit after"] = spread(took)


def _four_in_hand(stub: EdgeAgentStub) -> dict[int, grpc.Future]:
    """Calls the agent certainly has, by the number in their image: as many as it takes, for it refused a fifth."""
    while True:
        calls = {value: stub.DetectAnomalies.future(numbered(VICTIM, value)) for value in range(20, 25)}
        wait_for("one of them to be refused", lambda calls=calls: any(call.done() for call in calls.values()))
        ended = [value for value, call in calls.items() if call.done()]
        if len(ended) == 1 and calls[ended[0]].code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            del calls[ended[0]]
            return calls
        # The first was answered before the last came: once more.
        wait_for("all to end", lambda calls=calls: all(call.done() for call in calls.values()))


@row(
    "D12",
    "a client's channel over restarts of the agent: it works again by itself",
    unit="restarts",
    full=1000,
    short=2,
    uses_shared_agent=False,
)
def channels_over_restarts(run: Run) -> None:
    """Killed and asked to stop in turn; the client goes on calling, so its channel backs off when the next comes."""
    took = []
    with AgentProcess() as agent:
        client = agent.stub(RECONNECT)
        names(client)
        for number in run.steps():
            if number % 2:
                assert agent.stop() == 0
            else:
                agent.kill()
            outcome(run, lambda: names(client), [UNAVAILABLE])
            agent.launch()
            wait_for("the agent to serve", lambda: _serves_again(agent, client))
            began = time.monotonic()
            wait_for("the old channel to work again", lambda: answers(lambda: names(client) == []))
            took.append(time.monotonic() - began)
    assert set(run.outcomes) == {"UNAVAILABLE"} and max(took) < 10
    run.figures["recovered after"] = spread(took)


def _serves_again(agent: AgentProcess, client: EdgeAgentStub) -> bool:
    answers(lambda: names(client) == [])  # keeps the channel trying
    return serves(agent)


@row(
    "D18",
    "agent killed between request and answer: a client that tries again gets the same answer",
    unit="kills",
    full=1000,
    short=2,
    uses_shared_agent=False,
)
def calls_tried_again(run: Run) -> None:
    """On the same channel, until the model runs in the next agent."""
    took = []
    with agent_with({VICTIM: slow_package(run)}) as agent, ThreadPoolExecutor(1) as threads:
        client = agent.stub(RECONNECT)
        for _ in run.steps():
            wait_until_running(client, VICTIM)
            number = run.random.randrange(30, 60)
            (worker,) = agent.worker_pids()
            call = threads.submit(_until_answered, run, client, number)
            wait_until_busy(worker)
            agent.kill()
            began = time.monotonic()
            start_over(agent)
            assert tells(call.result(), number)
            took.append(time.monotonic() - began)
    assert run.outcomes["UNAVAILABLE"] >= len(took)
    run.figures["answered after the restart"] = spread(took)


def _until_answered(run: Run, client: EdgeAgentStub, number: int) -> wire.DetectAnomalyResult:
    """UNAVAILABLE while there is no agent, FAILED_PRECONDITION while it loads the model; nothing else."""
    request, kept = numbered(VICTIM, number), []
    retried = [UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION]

    def call() -> None:
        kept.append(detect(client, request))

    wait_for("an answer", lambda: outcome(run, call, retried)[0] is grpc.StatusCode.OK)
    return kept[0]
