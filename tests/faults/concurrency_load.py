"""Rows C7 to C9: deadlines, calls given up, and more calls than a model can answer."""

from __future__ import annotations

import time

import grpc
import numpy as np

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.clients import PATIENCE, in_threads, milliseconds, percentile, running
from tests.faults.load_generator import LoadGenerator
from tests.faults.row import Run, row
from tests.support.agent_process import AgentProcess, describe, detect, inline_request, names
from tests.support.packages import grey, make_package, slow_model
from tests.support.slow_worker import noted_refusals, noted_runs, slow_workers

RUN_TIME = 0.05
"""Seconds of one run of the slow model; two run at once."""
QUEUE = 48
"""With the longest queue there is, a call may wait 24 runs."""
MARGIN = 0.5
"""Seconds between the caller's giving up and the agent's knowing of it, on a machine with other things to do."""


@row(
    "C7",
    "deadlines of 1 ms to 10 s and cancelled calls: ended in time, and what nobody waits for never reaches the model",
    unit="calls",
    full=100_000,
    short=80,
    uses_shared_agent=False,
)
def deadlines(run: Run) -> None:
    runs = run.folder / "runs"
    environment = slow_workers(run=RUN_TIME, runs=runs)
    with (
        AgentProcess("--queue-length", str(QUEUE), environment=environment) as agent,
        running(agent, {"slow": make_package(run.folder / "slow", task="classification")}),
    ):
        callers = [_ImpatientCaller(agent, run) for _ in range(QUEUE)]
        in_threads([caller.call for caller in callers])
    given_up = {number: end for caller in callers for number, end in caller.given_up.items()}
    begun = dict(noted_runs(runs))
    late = [number for number, end in given_up.items() if begun.get(number, 0) > end + MARGIN]
    assert not late, f"{len(late)} calls reached the model after they had been given up"
    assert (
        {"OK", "DEADLINE_EXCEEDED", "CANCELLED"}
        <= set(run.outcomes)
        <= {
            "OK",
            "DEADLINE_EXCEEDED",
            "CANCELLED",
            "RESOURCE_EXHAUSTED",
        }
    ), run.outcomes
    overruns = [seconds for caller in callers for seconds in caller.overruns]
    run.figures["over the deadline, p50"] = milliseconds(percentile(overruns, 0.5))
    run.figures["over the deadline, p99"] = milliseconds(percentile(overruns, 0.99))
    run.figures["given up, never run"] = str(len(given_up.keys() - begun.keys()))
    run.figures["runs after giving up"] = str(len(late))
    assert percentile(overruns, 0.5) < 0.2
    assert max(overruns) < PATIENCE


class _ImpatientCaller:
    """Calls with a number in the image's first pixel, and waits for as long as chance says."""

    def __init__(self, agent: AgentProcess, run: Run) -> None:
        self._run, self._stub = run, agent.stub()
        self.given_up = dict[int, float]()
        """Number of the image, and when nobody waited for it any more (`time.monotonic()`)."""
        self.overruns = list[float]()
        """Seconds from the deadline to the end of the call."""

    def call(self) -> None:
        pixels = grey(0)
        for step in self._run.steps():
            number = step + 1  # the self-test's image carries a 0
            pixels[0, 0] = np.array([number >> 16, number >> 8 & 255, number & 255])
            image = inline_request("slow", pixels)
            patience = 10 ** self._run.random.uniform(-3, 1)
            if self._run.random.random() < 0.5:
                code = self._with_deadline(number, image, patience)
            else:
                code = self._with_cancelling(number, image, patience)
            self._run.saw(code.name)

    def _with_deadline(self, number: int, image: wire.DetectAnomaliesRequest, patience: float) -> grpc.StatusCode:
        begin = time.monotonic()
        try:
            self._stub.DetectAnomalies(image, timeout=patience)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self.given_up[number] = time.monotonic()
                self.overruns.append(self.given_up[number] - begin - patience)
            return error.code()
        return grpc.StatusCode.OK

    def _with_cancelling(self, number: int, image: wire.DetectAnomaliesRequest, patience: float) -> grpc.StatusCode:
        call = self._stub.DetectAnomalies.future(image)
        try:
            call.result(patience)
        except grpc.FutureTimeoutError:
            if call.cancel():
                self.given_up[number] = time.monotonic()
        except grpc.RpcError:
            pass
        return call.code()


OVERLOAD = 10
"""Times the calls that the model can answer."""


@row(
    "C8",
    "ten times the calls a model can answer: refused at once, as many answered as without, control calls at once",
    unit="seconds of overload",
    full=600,
    short=1,
    uses_shared_agent=False,
)
def overload(run: Run) -> None:
    refusals_file = run.folder / "refusals"
    refused, control = list[float](), list[float]()
    answered = answerable = 0.0
    # The model sleeps: what is not answered is lost to the refusals, and not to the generator's use of the processors.
    environment = slow_workers(run=RUN_TIME, refusals=refusals_file)
    package = make_package(run.folder / "package", task="classification")
    with AgentProcess(environment=environment) as agent, running(agent, {"slow": package}) as stub:
        for _ in run.steps():
            capacity = _answered_per_second(stub)
            answerable += capacity
            rate = OVERLOAD * capacity
            with LoadGenerator(agent.socket, "slow", 0, clients=64, rate=rate) as generator:
                end = time.monotonic() + 1
                while (begin := time.monotonic()) < end:
                    describe(stub, "slow")
                    names(stub)
                    control.append((time.monotonic() - begin) / 2)
                calls = generator.end()
            answered += len(calls.get("OK", []))
            refused += calls.get("RESOURCE_EXHAUSTED", [])
            run.outcomes.update({code: len(seconds) for code, seconds in calls.items()})
    assert set(run.outcomes) == {"OK", "RESOURCE_EXHAUSTED"}, run.outcomes
    in_agent = noted_refusals(refusals_file)
    run.figures["answered, of what is without overload"] = f"{answered / answerable:.0%}"
    run.figures["refusal in the agent, p99"] = milliseconds(percentile(in_agent, 0.99))
    run.figures["refusal at the client, p50"] = milliseconds(percentile(refused, 0.5))
    run.figures["refusal at the client, p99"] = milliseconds(percentile(refused, 0.99))
    run.figures["control call, p99"] = milliseconds(percentile(control, 0.99))
    assert answered > answerable / 2
    assert percentile(in_agent, 0.5) < 0.05
    assert percentile(control, 0.5) < 0.5


def _answered_per_second(stub: EdgeAgentStub) -> float:
    """With as many clients as keep the model busy, and none that waits for long."""
    image, each = inline_request("slow", grey(0)), 4

    def client() -> None:
        for _ in range(each):
            detect(stub, image)

    begin = time.monotonic()
    in_threads([client] * 4)
    return 4 * each / (time.monotonic() - begin)


FLOOD = 16
"""Calls in flight: with one more the queue is full, and nobody is refused."""
FRAME_TIME = 0.1
"""Seconds from one frame to the next."""


@row(
    "C9",
    "a client that keeps 16 calls in flight beside a camera of 10 frames a second: each frame answered in its turn",
    unit="frames",
    full=6000,
    short=6,
)
def fairness(run: Run) -> None:
    package = make_package(run.folder / "package", task="classification", model=slow_model())
    image, latencies = inline_request("shared", grey(2)), list[float]()
    with running(run.agent, {"shared": package}) as stub:
        begin = time.monotonic()
        for _ in range(10):
            detect(stub, image)
        alone = (time.monotonic() - begin) / 10
        with LoadGenerator(run.agent.socket, "shared", 2, clients=FLOOD) as generator:
            due = time.monotonic()
            for _ in run.steps():
                begin = time.monotonic()
                detect(stub, image)
                latencies.append(time.monotonic() - begin)
                due = max(due + FRAME_TIME, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
            flood = generator.end()
    assert set(flood) == {"OK"}, {code: len(calls) for code, calls in flood.items()}
    run.figures["alone"] = milliseconds(alone)
    for name, values in (("camera", latencies), ("flood", flood["OK"])):
        for share in (0.5, 0.99):
            run.figures[f"{name}, p{share * 100:.0f}"] = milliseconds(percentile(values, share))
        # Its turn comes after those before it, which share two slots.
        assert percentile(values, 0.99) < 10 * FLOOD * alone, name
