"""Rows C: many at once, in every order. Here: models that come and go while everybody calls."""

from __future__ import annotations

import itertools
import logging
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc

from agent.packages.manifest import Manifest
from agent.packages.package import read_package
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.clients import (
    PATIENCE,
    code_of,
    has_loaded,
    in_threads,
    milliseconds,
    percentile,
    registered,
    running,
    start,
    stop,
)
from tests.faults.row import Run, row
from tests.models.test_state_machine import run_programs
from tests.support.agent_process import AgentProcess, describe, detect, inline_request, refusal, status, wait_for
from tests.support.packages import changed, grey, make_package, rewrite_manifest, slow_model
from tests.support.slow_worker import slow_workers

OK, PRECONDITION = grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND, EXHAUSTED = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED

STORM = {"detect": 50, "describe": 30, "list": 9, "start": 8, "stop": 3}
"""Calls of a storm, by how often they come: few enough stops for a model to be seen running."""
LISTED = {
    "detect": {OK, PRECONDITION, EXHAUSTED},
    "describe": {OK},
    "list": {OK},
    "start": {OK, PRECONDITION},
    "stop": {OK, PRECONDITION},
}
"""Of these codes, all must occur, except that a queue may never be full."""


@row(
    "C1",
    "32 threads start, stop, describe, list and detect: listed codes, no deadlock, the state that the answers imply",
    unit="calls",
    full=65_536,
    short=400,
)
def storm(run: Run) -> None:
    package = make_package(run.folder / "package")
    components = ["storm-1", "storm-2"]
    seen = Counter[tuple[str, str, grpc.StatusCode]]()
    counting = threading.Lock()

    def client(number: int) -> None:
        stub, chance = run.agent.stub(), random.Random(run.seed + number)
        calls = _calls(stub)
        for _ in run.steps():
            (call,) = chance.choices(list(STORM), list(STORM.values()))
            component = chance.choice(components)
            code = code_of(lambda call=call, component=component: calls[call](component))
            run.saw(code.name)
            with counting:
                seen[component, call, code] += 1

    with running(run.agent, dict.fromkeys(components, package)) as stub:
        in_threads([lambda number=number: client(number) for number in range(32)])
        occurred: dict[str, set[grpc.StatusCode]] = {call: set() for call in STORM}
        for _, call, code in seen:
            occurred[call].add(code)
        for call, codes in LISTED.items():
            assert codes - {EXHAUSTED} <= occurred[call] <= codes, f"{call}: {occurred[call]}"
        for component in components:
            # It ran before; starts and stops that were accepted take turns, whatever came between.
            balance = 1 + seen[component, "start", OK] - seen[component, "stop", OK]
            assert balance in (0, 1), f"{component}: {balance}"
            assert has_loaded(stub, component) == (wire.RUNNING if balance else wire.STOPPED)


def _calls(stub: EdgeAgentStub) -> dict[str, Callable[[str], object]]:
    image = inline_request("", grey(0))

    def detect_in(component: str) -> None:
        image.model_component = component
        assert stub.DetectAnomalies(image, timeout=PATIENCE).detect_anomaly_result.is_anomalous

    return {
        "detect": detect_in,
        "describe": lambda name: stub.DescribeModel(wire.DescribeModelRequest(model_component=name), timeout=PATIENCE),
        "list": lambda _: stub.ListModels(wire.ListModelsRequest(), timeout=PATIENCE),
        "start": lambda name: start(stub, name),
        "stop": lambda name: stop(stub, name),
    }


PROGRAMS = 10
"""Of one turn of the state machine."""


@row(
    "C2",
    "any order of calls, deaths, and records that come and go: what a reference model of a page says",
    unit="programs",
    full=10_000,
    short=PROGRAMS,
    uses_shared_agent=False,
)
def programs(run: Run) -> None:
    package = make_package(run.folder / "package")
    log, nowhere = logging.getLogger("agent"), logging.NullHandler()
    log.addHandler(nowhere)  # else each death is told on the screen
    for number in run.steps(each=PROGRAMS):
        run_programs(package, PROGRAMS, seed=run.seed + number)
    log.removeHandler(nowhere)


@row(
    "C3",
    "start twice, stop twice, detect when not running: FAILED_PRECONDITION; an unknown model: NOT_FOUND",
    unit="refusals",
    full=10_000,
    short=10,
)
def wrong_moment(run: Run) -> None:
    image = inline_request("odd", grey(0))
    nobody = inline_request("nobody", grey(0))

    def expect(code: grpc.StatusCode, state: str, *calls: Callable[[], object]) -> None:
        for call in calls:
            given, sentence = refusal(call)
            assert given is code and state in sentence, f"{given.name}: {sentence}"
            run.saw(given.name)

    with registered(run.agent, {"odd": make_package(run.folder / "package")}) as stub:
        for _ in run.steps(each=10):
            unknown = (lambda: start(stub, "nobody"), lambda: stop(stub, "nobody"), lambda: detect(stub, nobody))
            expect(NOT_FOUND, "nobody", *unknown, lambda: describe(stub, "nobody"))
            expect(PRECONDITION, "STOPPED", lambda: stop(stub, "odd"), lambda: detect(stub, image))
            start(stub, "odd")
            expect(PRECONDITION, "", lambda: start(stub, "odd"))  # STARTING, or on a slow machine RUNNING
            assert has_loaded(stub, "odd") == wire.RUNNING
            expect(PRECONDITION, "RUNNING", lambda: start(stub, "odd"))
            assert stop(stub, "odd").status == wire.STOPPED
            expect(PRECONDITION, "STOPPED", lambda: stop(stub, "odd"), lambda: detect(stub, image))


CALLERS = 16
"""They have room in the queue: whoever is refused is refused for the stop."""


@row(
    "C4",
    "stop while 16 clients call: each gets its answer or FAILED_PRECONDITION, none hangs, the worker is gone",
    unit="calls",
    full=10_000,
    short=CALLERS,
)
def stop_under_load(run: Run) -> None:
    calls, stops = list[float](), list[float]()
    before = set(run.agent.worker_pids())
    package = make_package(run.folder / "package", task="classification", model=slow_model())
    with registered(run.agent, {"busy": package}) as stub:
        for _ in run.steps(each=CALLERS):
            start(stub, "busy")
            assert has_loaded(stub, "busy") == wire.RUNNING
            clients = [_Client(run) for _ in range(CALLERS)]
            threads = [threading.Thread(target=client.call_until_refused) for client in clients]
            for thread in threads:
                thread.start()
            for client in clients:
                assert client.is_served.wait(PATIENCE)
            (worker,) = set(run.agent.worker_pids()) - before
            begin = time.monotonic()
            assert stop(stub, "busy").status == wire.STOPPED
            stopped = time.monotonic()
            assert not Path(f"/proc/{worker}").exists()
            for thread in threads:
                thread.join(PATIENCE)
            assert all(client.last is PRECONDITION for client in clients), [client.last for client in clients]
            assert all(client.last_served < stopped for client in clients)
            stops.append(stopped - begin)
            calls += [client.longest for client in clients]
    run.figures["longest call"] = milliseconds(max(calls))
    run.figures["longest stop"] = milliseconds(max(stops))


class _Client:
    """Calls again and again until it is refused."""

    def __init__(self, run: Run) -> None:
        self._run, self._stub = run, run.agent.stub()
        self.is_served = threading.Event()
        self.last = OK
        self.last_served = self.longest = 0.0
        """When its last answered call began, and how long its longest call took; seconds."""

    def call_until_refused(self) -> None:
        image = inline_request("busy", grey(3))
        while self.last is OK:
            begin = time.monotonic()
            self.last = code_of(lambda: detect(self._stub, image))
            self._run.saw(self.last.name)
            self.longest = max(self.longest, time.monotonic() - begin)
            if self.last is OK:
                self.last_served = begin
            self.is_served.set()


LOAD_LIMIT = 2
"""Seconds; a model that does not hang has loaded by then, unless the machine is very busy."""


@row(
    "C5",
    "a load that hangs: other models answer as before, Stop is refused, the load time limit makes it FAILED",
    unit="hanging loads",
    full=200,
    short=1,
    uses_shared_agent=False,
)
def hanging_load(run: Run) -> None:
    alone, beside = list[float](), list[float]()
    image = inline_request("other", grey(0))
    packages = {name: make_package(run.folder / name) for name in ("other", "hangs")}
    with (
        AgentProcess("--load-time-limit", f"{LOAD_LIMIT}", environment=slow_workers(never_loads="hangs")) as agent,
        registered(agent, packages) as stub,
    ):
        wait_for("the other one to load", lambda: _loads(stub, "other"), PATIENCE)
        workers = agent.worker_pids()
        for _ in run.steps():
            begin = time.monotonic()
            while time.monotonic() < begin + 0.2:
                alone.append(_seconds(lambda: detect(stub, image)))
            start(stub, "hangs")
            for call in (stop, start):
                code, sentence = refusal(lambda call=call: call(stub, "hangs"))
                assert code is PRECONDITION and "STARTING" in sentence, sentence
                run.saw(code.name)
            limit = time.monotonic() + PATIENCE
            while status(stub, "hangs") == wire.STARTING:
                beside.append(_seconds(lambda: detect(stub, image)))
                assert time.monotonic() < limit, "its load goes on and on"
            described = describe(stub, "hangs")
            assert described.status == wire.FAILED and f"{LOAD_LIMIT} s" in described.status_message, (
                described.status_message
            )
            wait_for("its worker to be gone", lambda: agent.worker_pids() == workers)
    for name, values in (("alone", alone), ("beside a load that hangs", beside)):
        run.figures[f"p50 {name}"] = milliseconds(percentile(values, 0.5))
        run.figures[f"p99 {name}"] = milliseconds(percentile(values, 0.99))
    assert percentile(beside, 0.5) < 10 * percentile(alone, 0.99)


def _loads(stub: EdgeAgentStub, component: str) -> bool:
    start(stub, component)
    return has_loaded(stub, component) == wire.RUNNING


def _seconds(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def _truncate(folder: Path) -> None:
    model = folder / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])


def _flip_a_bit(folder: Path) -> None:
    model = folder / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def _remove_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def _cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format_version": 1')


def _expect_another_score(folder: Path) -> None:
    _change(folder, lambda manifest: changed(manifest, self_test=[changed(manifest.self_test[0], score=0.7)]))


def _name_an_output_the_graph_has_not(folder: Path) -> None:
    _change(folder, lambda manifest: changed(manifest, outputs=changed(manifest.outputs, score="nowhere")))


def _change(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    rewrite_manifest(folder, change(read_package(folder).manifest))


DAMAGES: dict[Callable[[Path], None], str] = {
    _truncate: "model.onnx",
    _expect_another_score: "self-test/good.rgb",
    _flip_a_bit: "model.onnx",
    _remove_model: "model.onnx",
    _cut_manifest: "manifest.json",
    _name_an_output_the_graph_has_not: "nowhere",
}
"""What may be wrong with a package, and what the reason must name."""


@row(
    "C6",
    "a package that does not load: the old version serves on; else FAILED with the reason, and mended it starts",
    unit="bad loads",
    full=1000,
    short=3,
)
def bad_load(run: Run) -> None:
    image = inline_request("mended", grey(0))
    good = make_package(run.folder / "good")
    damages = itertools.cycle(DAMAGES.items())
    with running(run.agent, {"mended": good}) as stub:
        for number in run.steps(each=3):
            damage, named = next(damages)
            package = shutil.copytree(good, run.folder / f"version-{number}")
            damage(package)
            run.agent.register("mended", package, f"{number}")
            wait_for("the reason", lambda: "does not take over" in describe(stub, "mended").status_message)
            described = describe(stub, "mended")
            assert described.status == wire.RUNNING and named in described.status_message, described.status_message
            assert detect(stub, image).is_anomalous
            stop(stub, "mended")
            for _ in range(2):
                start(stub, "mended")
                assert has_loaded(stub, "mended") == wire.FAILED
                message = describe(stub, "mended").status_message
                assert named in message and str(run.folder) not in message, message
                assert code_of(lambda: detect(stub, image)) is PRECONDITION
            shutil.copytree(good, package, dirs_exist_ok=True)
            start(stub, "mended")
            assert has_loaded(stub, "mended") == wire.RUNNING, describe(stub, "mended").status_message
            assert detect(stub, image).is_anomalous
            run.saw(damage.__name__.strip("_").replace("_", " "))
