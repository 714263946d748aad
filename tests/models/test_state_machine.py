"""Row C2 in short: any order of calls and faults, against a reference model that fits on a page."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent.errors import (
    CallerGone,
    ModelAlreadyStarted,
    ModelNotFound,
    ModelNotLoaded,
    ModelNotRunning,
    QueueFull,
    Refusal,
)
from agent.images.detection import Detection
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.keeper import ModelSettings
from agent.models.registry import Record
from tests.support.fake_worker import (
    NORMAL,
    PATIENCE,
    FakeWorker,
    FakeWorkers,
    Plan,
    eventually,
    happens,
    image_request,
)
from tests.support.packages import make_package

NAMES = st.sampled_from(["a", "b"])
SLOTS, QUEUE = 2, 2
STEPS = 40
"""Of a program."""
SETTINGS = ModelSettings(slots=SLOTS, queue_length=QUEUE, load_time_limit=PATIENCE, run_time_limit=PATIENCE)
ODD = ModelNotLoaded("Runtime", "it is odd")
DEATHS = 2
"""Of one model in a row; a third would cost a longer back-off, and too many have a test of their own."""


@dataclass
class Reference:
    """What clients are to see of one model of the registry, and what the test holds of it."""

    status: str = "STOPPED"
    worker: FakeWorker | None = None
    version: str = ""
    """Served by `worker`."""
    loads: bool = True
    may_open: threading.Event | None = None
    may_answer: threading.Event | None = None
    held: list[tuple[Caller, Future[Detection]]] = field(default_factory=list)
    deaths: int = 0


class FleetMachine(RuleBasedStateMachine):
    def __init__(self, package: Path) -> None:
        super().__init__()
        self.package = package
        self.workers = FakeWorkers()
        self.fleet = Fleet(self.workers, SETTINGS)
        self.models: dict[str, Reference] = {}
        self.records: dict[str, Record] = {}
        self.wanted: set[str] = set()
        self.numbers = itertools.count(1)
        self.threads = ThreadPoolExecutor(16)

    def teardown(self) -> None:
        for model in self.models.values():
            for gate in (model.may_open, model.may_answer):
                if gate is not None:
                    gate.set()
        self.fleet.close()
        self.threads.shutdown()
        eventually("all workers to end", lambda: all(worker.ended.is_set() for worker in self.workers.opened))
        assert self.workers.faults == []

    @initialize()
    def one_model_runs_and_one_is_there(self) -> None:
        # Else most programs would be over before anything runs.
        for name in ("a", "b"):
            self.a_record_appears(name)
        self.start("a", loads=True, hangs=False)

    # --- the registry ---

    @rule(name=NAMES)
    def a_record_appears(self, name: str) -> None:
        if name in self.models:
            return
        self.models[name] = Reference()
        index = len(self.workers.opened)
        if name in self.wanted:  # it ran when it left, so it runs again
            self.workers.next.append(Plan())
        self.write_record(name)
        if name in self.wanted:
            self.models[name].status = "RUNNING"
            self.models[name].worker = self.workers.number(index)
            self.models[name].version = self.records[name].version
            eventually("it to run", lambda: self.fleet.describe(name).status.value == "RUNNING")

    @rule(name=NAMES, loads=st.booleans())
    def a_new_version_appears(self, name: str, loads: bool) -> None:
        model = self.models.get(name)
        # While it loads, or has a call in hand, tests of their own.
        if model is None or model.status == "STARTING" or model.held:
            return
        if model.status == "STOPPED":
            self.write_record(name)
            return
        old, index = model.worker, len(self.workers.opened)
        self.workers.next.append(Plan(refuses_to_open=None if loads else ODD))
        self.write_record(name)
        if model.status == "FAILED":  # a client wants it to run, so it starts by itself
            model.status, model.deaths = "RUNNING" if loads else "FAILED", 0
            model.worker, model.version = self.workers.number(index), self.records[name].version
            eventually("the load to end", lambda: self.fleet.describe(name).status.value == model.status)
            return
        new = self.workers.number(index)
        assert old is not None
        if loads:
            happens(old.closed)
            model.worker, model.version = new, self.records[name].version
        else:
            happens(new.closed)
            text = f"version {self.records[name].version} does not take over"
            eventually("the reason", lambda: text in self.fleet.describe(name).message)

    @rule(name=NAMES)
    def a_record_goes(self, name: str) -> None:
        model = self.models.pop(name, None)
        if model is None:
            return
        del self.records[name]
        self.fleet.apply(self.records)
        self.calls_are_answered(model)  # those in hand are
        if model.worker is not None and model.status in ("STARTING", "RUNNING"):
            happens(model.worker.closed)

    # --- calls of clients ---

    @rule(name=NAMES, loads=st.booleans(), hangs=st.booleans())
    def start(self, name: str, loads: bool, hangs: bool) -> None:
        model = self.models.get(name)
        if model is None or model.status not in ("STOPPED", "FAILED"):
            self.refused(ModelNotFound if model is None else ModelAlreadyStarted, lambda: self.fleet.start(name))
            return
        index, gate = len(self.workers.opened), threading.Event()
        self.workers.next.append(Plan(may_open=gate, refuses_to_open=None if loads else ODD))
        self.fleet.start(name)
        self.wanted.add(name)
        assert self.fleet.describe(name).status.value == "STARTING"
        model.status, model.loads, model.may_open, model.deaths = "STARTING", loads, gate, 0
        model.worker, model.version = self.workers.number(index), self.records[name].version
        if not hangs:
            self.loading_ends(name)

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.status != "RUNNING":
            self.refused(ModelNotFound if model is None else ModelNotRunning, lambda: self.fleet.stop(name))
            return
        stopping = self.threads.submit(self.fleet.stop, name)
        if model.held:
            eventually("it to be STOPPING", lambda: self.fleet.describe(name).status.value == "STOPPING")
            self.refused(ModelNotRunning, lambda: self.fleet.detect(name, image_request(), Caller()))
            assert not stopping.done()
            self.calls_are_answered(model)
        stopping.result(PATIENCE)
        self.wanted.discard(name)
        assert model.worker is not None and model.worker.closed.is_set()
        model.status, model.worker = "STOPPED", None

    @rule(name=NAMES)
    def detect(self, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.status != "RUNNING":
            expected = ModelNotFound if model is None else ModelNotRunning
            self.refused(expected, lambda: self.fleet.detect(name, image_request(), Caller()))
        elif not model.held:
            assert model.worker is not None
            before = model.worker.calls
            assert self.fleet.detect(name, image_request(), Caller()).detection is NORMAL
            assert model.worker.calls == before + 1

    @rule(name=NAMES)
    def a_call_takes_long(self, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.status != "RUNNING":
            return
        if len(model.held) == SLOTS + QUEUE:
            self.refused(QueueFull, lambda: self.fleet.detect(name, image_request(), Caller()))
            return
        worker = model.worker
        assert worker is not None
        if not model.held:
            model.may_answer = threading.Event()
            worker.plan = replace(worker.plan, may_answer=model.may_answer)
        before, caller = worker.calls, Caller()
        model.held.append((caller, self.threads.submit(self.fleet.detect, name, image_request(), caller)))
        if len(model.held) <= SLOTS:
            worker.wait_for_calls(before + 1)
        else:
            eventually("the call to wait", lambda: self.in_line(name) == len(model.held) - SLOTS)
            assert worker.calls == before

    @rule(name=NAMES)
    def a_call_in_line_is_given_up(self, name: str) -> None:
        model = self.models.get(name)
        if model is not None and len(model.held) > SLOTS:
            caller, call = model.held.pop()
            caller.leave()
            with pytest.raises(CallerGone):
                call.result(PATIENCE)

    @rule(name=NAMES)
    def long_calls_end(self, name: str) -> None:
        if name in self.models:
            self.calls_are_answered(self.models[name])

    # --- what happens to workers ---

    @rule(name=NAMES)
    def loading_ends(self, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.status != "STARTING":
            return
        assert model.may_open is not None
        model.status = "RUNNING" if model.loads else "FAILED"
        model.may_open.set()
        eventually("the load to end", lambda: self.fleet.describe(name).status.value == model.status)

    @rule(name=NAMES)
    def a_worker_dies(self, name: str) -> None:
        model = self.models.get(name)
        if model is None or model.worker is None or model.deaths == DEATHS:
            return
        if model.status == "STARTING":
            model.worker.die()
            model.status = "FAILED"
            eventually("it to be FAILED", lambda: self.fleet.describe(name).status.value == "FAILED")
        elif model.status == "RUNNING":
            model.deaths += 1
            index, old = len(self.workers.opened), model.worker
            before = old.calls
            old.die()
            model.worker = self.workers.number(index)
            # No move, and calls in hand and in line are answered by the next one; the version is the one that served.
            assert self.fleet.describe(name).status.value == "RUNNING"
            self.calls_are_answered(model)
            assert old.calls == before
            happens(model.worker.is_open)
            eventually("it to serve", lambda: f"version {model.version}," in self.fleet.describe(name).message)

    # --- what always holds ---

    @invariant()
    def clients_see_what_the_reference_says(self) -> None:
        seen = [(model.component, model.status.value) for model in self.fleet.list()]
        assert seen == sorted((name, model.status) for name, model in self.models.items())
        for name, model in self.models.items():
            message = self.fleet.describe(name).message
            if model.status == "RUNNING":
                assert message.startswith(f"version {model.version}, fake runtime")
            elif model.status == "FAILED":
                assert message in (str(ODD), "its worker ended while it was loading the model")
        self.refused(ModelNotFound, lambda: self.fleet.describe("nobody"))

    @invariant()
    def there_is_one_worker_for_each_model_that_needs_one(self) -> None:
        needed = {id(model.worker) for model in self.models.values() if model.status in ("STARTING", "RUNNING")}
        # One that is let go of is closed a moment later.
        eventually("the others to end", lambda: {id(w) for w in self.workers.opened if not w.ended.is_set()} == needed)
        assert self.workers.faults == []

    # --- help ---

    def write_record(self, name: str) -> None:
        self.records[name] = Record(name, f"{next(self.numbers)}.0.0", str(self.package))
        self.fleet.apply(self.records)

    def calls_are_answered(self, model: Reference) -> None:
        if model.may_answer is not None:
            model.may_answer.set()
            assert [call.result(PATIENCE).detection for _, call in model.held] == [NORMAL] * len(model.held)
            model.held.clear()

    def in_line(self, name: str) -> int:
        return len(self.fleet._models[name]._admission._queue)

    @staticmethod
    def refused(kind: type[Refusal], call: object) -> None:
        with pytest.raises(kind):
            call()  # type: ignore[operator]


def run_programs(package: Path, count: int, seed: int | None = None) -> None:
    """Random programs of calls and faults; the same ones for the same seed."""

    def machine() -> FleetMachine:
        return FleetMachine(package)

    run_state_machine_as_test(
        machine if seed is None else with_seed(seed)(machine),
        settings=settings(
            max_examples=count,
            stateful_step_count=STEPS,
            deadline=None,
            phases=[Phase.generate],  # no shrinking: each try at a failure may wait as long as its patience
            suppress_health_check=[HealthCheck.too_slow],
            print_blob=True,
        ),
    )


def test_any_order_of_calls_and_faults_gives_what_the_reference_says(tmp_path: Path) -> None:
    run_programs(make_package(tmp_path / "package"), 80)
