"""What the rows on processes share: agents with models that tell images apart, clients that never rest, figures."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import statistics
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.row import Run
from tests.support.agent_process import (
    AgentProcess,
    answers,
    detect,
    inline_request,
    processor_time,
    status,
    wait_for,
)
from tests.support.packages import grey, make_package, slow_model

VICTIM, OTHER = "victim", "other"
"""The model whose processes are hurt, and one that must not notice."""
Codes = Sequence[grpc.StatusCode]


# --- models and images that carry a number ---


def slow_package(run: Run, name: str = VICTIM, steps_per_value: int = 150) -> Path:
    """A model that works as long as the number in the image says (255: about a second), then tells it."""
    return make_package(run.folder / name, task="classification", model=slow_model(steps_per_value))


def quick_package(run: Run, name: str = OTHER) -> Path:
    """A model that tells the number in the image."""
    return make_package(run.folder / name, task="classification")


def numbered(component: str, number: int) -> wire.DetectAnomaliesRequest:
    """An image with `number` (0 to 255) as the red of its first pixel."""
    pixels = grey(0)
    pixels[0, 0, 0] = number
    return inline_request(component, pixels)


def tells(result: wire.DetectAnomalyResult, number: int) -> bool:
    """Whether this is the answer to the image with `number`."""
    return round(result.anomaly_score, 4) == round(number / 255, 4)


def answers_right(agent: AgentProcess, component: str, number: int = 5) -> None:
    assert tells(detect(agent.stub(), numbered(component, number)), number), component


# --- agents and their workers ---


@contextlib.contextmanager
def agent_with(
    packages: Mapping[str, Path], *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[AgentProcess]:
    """An agent that runs these models, by component. Its worker processes are in the same order."""
    agent = AgentProcess(*flags, environment=environment)
    for component, package in packages.items():
        agent.register(component, package)
    with agent:
        stub = agent.stub()
        for component in packages:
            stub.StartModel(wire.StartModelRequest(model_component=component))
            wait_until_running(stub, component)
        yield agent


@contextlib.contextmanager
def unstarted_agent(through: Sequence[str] = ()) -> Iterator[AgentProcess]:
    """An agent that has yet to be launched; ended, whichever process it is then, on leaving."""
    agent = AgentProcess(through=through)
    try:
        yield agent
    finally:
        agent.__exit__(None, None, None)


def wait_until_running(stub: EdgeAgentStub, component: str) -> None:
    wait_for(f"{component} to run", lambda: answers(lambda: status(stub, component) == wire.RUNNING))


def start_again(stub: EdgeAgentStub, component: str) -> None:
    """Stops and starts a model: its earlier deaths count no more."""
    stub.StopModel(wire.StopModelRequest(model_component=component))
    stub.StartModel(wire.StartModelRequest(model_component=component))
    wait_until_running(stub, component)


def replacement(agent: AgentProcess, known: Collection[int]) -> int:
    """The worker process that is none of the `known` ones, as soon as there is one."""
    new: list[int] = []
    wait_for("a new worker", lambda: bool(new.extend(set(agent.worker_pids()) - set(known)) or new))
    return new[0]


def wait_until_busy(pid: int) -> None:
    """Returns when the worker works on the call that was just sent."""
    worked = processor_time(pid)
    wait_for("the worker to work on the call", lambda: processor_time(pid) > worked + 0.02)


def listener(path: Path) -> int | None:
    """The process that takes connections at a unix socket; None where none does. Source: unix(7), SO_PEERCRED."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def start_over(agent: AgentProcess) -> None:
    """Starts an agent where one was killed: the socket of that one still lies there."""
    agent.launch()
    wait_for("the agent to serve", lambda: serves(agent) or agent.running.poll() is not None)
    assert agent.running.poll() is None, agent.log_text()


def serves(agent: AgentProcess) -> bool:
    return listener(agent.socket) == agent.running.pid


class Clients:
    """Clients that call a model all the time, each with a number of its own that all its answers must tell.

    `pause`: seconds each rests after an answer; `first`: the first one's number.
    """

    def __init__(
        self, run: Run, agent: AgentProcess, component: str, count: int, *, first: int = 10, pause: float = 0.0
    ) -> None:
        self._run, self._agent, self._component = run, agent, component
        self._numbers = range(first, first + count)
        self._answers = dict.fromkeys(self._numbers, 0)
        self._failures: list[str] = []
        self._over, self._pause = threading.Event(), pause
        self._threads = [threading.Thread(target=self._call_on, args=(number,)) for number in self._numbers]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures

    def wait_for_answers(self) -> None:
        """Returns when each client has been answered a call that it sent from now on."""
        # The call in hand now is the first of two.
        wanted = {number: count + 2 for number, count in self._answers.items()}
        wait_for(
            f"an answer to every client of {self._component}",
            lambda: bool(self._failures) or all(self._answers[number] >= wanted[number] for number in self._numbers),
        )
        assert not self._failures, self._failures

    def _call_on(self, number: int) -> None:
        stub, request = self._agent.stub(), numbered(self._component, number)
        while not self._over.wait(self._pause) and not self._failures:
            try:
                answer = detect(stub, request)
            except grpc.RpcError as error:
                self._run.saw(error.code().name)
                self._failures.append(f"{error.code().name}: {error.details()}")
                return
            if not tells(answer, number):
                self._failures.append(f"{answer.anomaly_score} is no answer to {number}/255")
            self._answers[number] += 1
            self._run.saw("OK")


# --- what came of it ---


def outcome(run: Run, call: Callable[[], object], allowed: Codes = ()) -> tuple[grpc.StatusCode, str]:
    """Code and sentence of `call`'s refusal, which must be one of `allowed`; OK and "" where it is answered."""
    try:
        call()
        code, sentence = grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        code, sentence = error.code(), error.details()
        assert code in allowed, f"{code.name}: {sentence}"
    run.saw(code.name)
    return code, sentence


def spread(seconds: Sequence[float]) -> str:
    """Median, p99 and maximum, for a row's figures."""
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    values = (statistics.median(ordered), p99, ordered[-1])
    return "p50 {:.0f}, p99 {:.0f}, max {:.0f} ms".format(*(1000 * value for value in values))


def folder_holds(agent: AgentProcess) -> set[str]:
    """What lies in the folder of an agent that has ended."""
    return {path.name for path in agent.folder.iterdir()}


def interrupt(pids: Sequence[int], number: int) -> None:
    """Sends a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
