"""One model's life, with workers that do what the test says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.errors import (
    BadManifest,
    CallerGone,
    LoadTimedOut,
    MaskOverlapsImage,
    MaskRangeTooSmall,
    ModelAlreadyStarted,
    ModelCrashed,
    ModelNotFound,
    ModelNotLoaded,
    ModelNotRunning,
    QueueFull,
    SegmentNotUsable,
    SegmentTruncated,
    WrongImageSize,
)
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection
from agent.images.shared_memory import SegmentRange
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.keeper import DEATHS_ALLOWED, ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record
from agent.models.request import DetectRequest
from agent.models.served_model import ServedModel
from agent.workers.process import ImageToInspect, OpenSegment, WorkerDied
from tests.support.agent_process import segment
from tests.support.fake_worker import (
    NORMAL,
    PATIENCE,
    FakeWorkers,
    Plan,
    eventually,
    happens,
    image_request,
)
from tests.support.packages import HEIGHT, WIDTH, make_package

STOPPED, STARTING, RUNNING, FAILED, STOPPING = (
    ModelStatus.STOPPED,
    ModelStatus.STARTING,
    ModelStatus.RUNNING,
    ModelStatus.FAILED,
    ModelStatus.STOPPING,
)
SETTINGS = ModelSettings(slots=2, queue_length=4, load_time_limit=PATIENCE, run_time_limit=PATIENCE)
ARN = "arn:aws:lookoutvision:eu-central-1:123456789012:model/tiny/{}"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages `1`, `2`, `3` (segmentation), `classifier`, `any-size` and `bad`; an ARN tells 1, 2, 3 apart."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("1", "2", "3"):
        make_package(folder / name, version=f"{name}.0.0", arn=ARN.format(name))
    make_package(folder / "classifier", task="classification")
    make_package(folder / "any-size", any_size=True)
    make_package(folder / "bad")
    (folder / "bad" / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def workers() -> Iterator[FakeWorkers]:
    workers = FakeWorkers()
    yield workers
    assert workers.faults == []


class Bench:
    """Models of one test; all are closed at its end, and no worker and no thread of theirs is left."""

    def __init__(self, workers: FakeWorkers, packages: Path) -> None:
        self.workers, self.packages = workers, packages
        self.models: list[ServedModel] = []
        self.gates: list[threading.Event] = []
        self.threads = ThreadPoolExecutor(16)

    def record(self, package: str = "1", component: str = "model") -> Record:
        return Record(component, f"{package}.0.0", str(self.packages / package))

    def model(self, package: str = "1", settings: ModelSettings = SETTINGS) -> ServedModel:
        model = ServedModel(self.record(package), self.workers, settings)
        self.models.append(model)
        return model

    def running(self, package: str = "1", settings: ModelSettings = SETTINGS) -> ServedModel:
        model = self.model(package, settings)
        model.start()
        becomes(model, RUNNING)
        return model

    def gate(self) -> threading.Event:
        """A closed gate; it is opened at the end of the test at the latest."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def close(self) -> None:
        for gate in self.gates:
            gate.set()
        for model in self.models:
            model.close()
        self.threads.shutdown()
        for worker in self.workers.opened:
            assert worker.ended.is_set(), "a worker was left behind"
        eventually("the threads of the models to end", lambda: not keepers())


def threads_of_models(*beginnings: str) -> list[str]:
    """Names of threads that are still there."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(beginnings)]


def keepers() -> list[str]:
    return threads_of_models("keeper-", "close-", "retire-")


@pytest.fixture
def bench(workers: FakeWorkers, packages: Path) -> Iterator[Bench]:
    bench = Bench(workers, packages)
    yield bench
    bench.close()


def becomes(model: ServedModel, status: ModelStatus) -> None:
    eventually(f"it to be {status.value}", lambda: model.describe().status is status)


def says(model: ServedModel, text: str) -> None:
    eventually(f"it to say '{text}'", lambda: text in model.describe().message)


def wait_in_line(model: ServedModel, count: int) -> None:
    eventually(f"{count} calls to wait", lambda: len(model._admission._queue) == count)


@contextmanager
def model_in(status: ModelStatus, bench: Bench) -> Iterator[ServedModel]:
    """A model that stays in `status` meanwhile."""
    with ExitStack() as after:
        gate = bench.gate()
        after.callback(gate.set)
        if status is STARTING:
            bench.workers.plan = Plan(may_open=gate)
        elif status is FAILED:
            bench.workers.plan = Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd"))
        elif status is STOPPING:
            bench.workers.plan = Plan(may_answer=gate)
        model = bench.model()
        if status is not STOPPED:
            model.start()
            becomes(model, RUNNING if status is STOPPING else status)
            happens(bench.workers.number(0).opening)
        if status is STOPPING:
            bench.threads.submit(model.detect, image_request(), Caller())
            bench.workers.number(0).wait_for_calls(1)
            bench.threads.submit(model.stop)
            becomes(model, STOPPING)
        yield model


# --- starting and stopping ---


def test_a_model_is_starting_when_start_returns_and_running_once_its_worker_is_open(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_open=gate)
    model = bench.model()
    assert model.describe().status is STOPPED
    model.start()
    assert model.describe().status is STARTING
    happens(bench.workers.number(0).opening)
    assert model.describe().status is STARTING
    gate.set()
    becomes(model, RUNNING)
    assert model.describe().message == "version 1.0.0, fake runtime of 1 on CPU"
    assert model.describe().arn == ARN.format(1)


def test_describe_tells_what_a_starting_model_is_doing_while_its_worker_hangs(bench: Bench) -> None:
    bench.workers.plan = Plan(may_open=bench.gate(), progress=("building TensorRT engine, 40 %",))
    model = bench.model()
    model.start()
    says(model, "building TensorRT engine, 40 %")
    assert model.describe().status is STARTING


@pytest.mark.parametrize("status", [STOPPED, STARTING, FAILED, STOPPING])
def test_detect_is_refused_unless_running(bench: Bench, status: ModelStatus) -> None:
    with model_in(status, bench) as model:
        calls = bench.workers.calls
        with pytest.raises(ModelNotRunning, match=f'"model" is {status.value}, not RUNNING'):
            model.detect(image_request(), Caller())
        assert bench.workers.calls == calls


@pytest.mark.parametrize("status", [STOPPED, STARTING, FAILED, STOPPING])
def test_stop_is_refused_unless_running(bench: Bench, status: ModelStatus) -> None:
    with model_in(status, bench) as model:
        with pytest.raises(ModelNotRunning, match=f'"model" is {status.value}, not RUNNING'):
            model.stop()
        assert model.describe().status is status


@pytest.mark.parametrize("status", [STARTING, RUNNING, STOPPING])
def test_start_is_refused_unless_stopped_or_failed(bench: Bench, status: ModelStatus) -> None:
    with model_in(status, bench) as model:
        with pytest.raises(ModelAlreadyStarted, match=f'"model" is {status.value}; only a STOPPED or FAILED'):
            model.start()
        assert model.describe().status is status
        assert len(bench.workers.opened) == 1


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(refuses_to_open=ModelNotLoaded("Runtime", "opset 99")), "Runtime could not load the model: opset 99"),
        (Plan(dies_while_opening=True), "its worker ended while it was loading the model"),
        (RuntimeError("a secret path /opt/agent"), "the agent failed unexpectedly; its log says more"),
    ],
)
def test_a_model_that_does_not_open_is_failed_with_the_reason_and_can_be_started_again(
    bench: Bench, plan: Plan | Exception, reason: str
) -> None:
    bench.workers.next.append(plan)
    model = bench.model()
    model.start()
    becomes(model, FAILED)
    assert model.describe().message == reason
    model.start()
    becomes(model, RUNNING)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert all(worker.closed.is_set() for worker in bench.workers.opened[:-1])


def test_a_failed_model_has_let_go_of_its_worker_so_that_a_restart_keeps_its_own(bench: Bench) -> None:
    """Started at the moment it is FAILED; an earlier keeper that tidied up afterwards took the new worker away."""
    model = bench.model()
    for _ in range(30):
        before = len(bench.workers.opened)
        bench.workers.next.append(Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd")))
        model.start()
        while True:
            try:
                model.start()
                break
            except ModelAlreadyStarted:
                continue
        becomes(model, RUNNING)
        assert len(bench.workers.opened) == before + 2
        assert not bench.workers.opened[-1].closed.is_set()
        model.stop()


def test_a_load_beyond_the_limit_is_ended_and_failed_with_the_limit(bench: Bench) -> None:
    bench.workers.plan = Plan(may_open=bench.gate())
    model = bench.model(settings=ModelSettings(1, 1, load_time_limit=0.05, run_time_limit=PATIENCE))
    model.start()
    becomes(model, FAILED)
    assert model.describe().message == str(LoadTimedOut(0.05))
    assert bench.workers.number(0).closed.is_set()


def test_stop_answers_the_calls_in_hand_and_those_in_line_before_the_worker_is_closed(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running()
    worker = bench.workers.number(0)
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(4)]  # 2 slots, 2 wait
    worker.wait_for_calls(2)
    wait_in_line(model, 2)
    stopping = bench.threads.submit(model.stop)
    becomes(model, STOPPING)
    assert not stopping.done() and not worker.closed.is_set()
    gate.set()
    stopping.result(PATIENCE)
    assert [call.result(PATIENCE).detection for call in calls] == [NORMAL] * 4
    assert worker.closed.is_set() and worker.calls_when_closed == 0
    assert model.describe().status is STOPPED and model.describe().message == ""


def test_a_stopped_model_can_be_started_again(bench: Bench) -> None:
    model = bench.running()
    model.stop()
    model.start()
    becomes(model, RUNNING)
    assert model.detect(image_request(), Caller()).detection is NORMAL


def test_a_model_can_be_stopped_while_its_worker_is_being_restarted(bench: Bench) -> None:
    bench.workers.next.extend([Plan(), Plan(may_open=bench.gate())])
    model = bench.running()
    bench.workers.number(0).die()
    happens(bench.workers.number(1).opening)
    call = bench.threads.submit(model.detect, image_request(), Caller())
    eventually("the call to have a slot", lambda: len(model._admission._free) == 1)
    model.stop()
    assert model.describe().status is STOPPED
    assert bench.workers.number(1).closed.is_set()
    with pytest.raises(ModelNotRunning):
        call.result(PATIENCE)


# --- calls ---


def test_calls_go_in_as_many_slots_as_there_are_and_the_rest_waits_or_is_refused(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running()
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(6)]
    wait_in_line(model, 4)
    with pytest.raises(QueueFull):
        model.detect(image_request(), Caller())
    gate.set()
    assert [call.result(PATIENCE).detection for call in calls] == [NORMAL] * 6
    assert bench.workers.number(0).most_at_once == SETTINGS.slots
    assert bench.workers.calls == 6


def test_a_refusal_of_the_worker_reaches_the_caller_and_frees_the_slot(bench: Bench) -> None:
    bench.workers.plan = Plan(refuses_calls=SegmentTruncated())
    model = bench.running()
    for _ in range(10):
        with pytest.raises(SegmentTruncated):
            model.detect(image_request(), Caller())
    assert model.describe().status is RUNNING and len(bench.workers.opened) == 1


@pytest.mark.parametrize("why", ["left", "deadline"])
def test_a_call_that_is_given_up_while_it_waits_never_reaches_the_worker(bench: Bench, why: str) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running()
    in_hand = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(2)]
    bench.workers.number(0).wait_for_calls(2)
    callers = [Caller(None if why == "left" else time.monotonic() + 0.05) for _ in range(4)]
    given_up = [bench.threads.submit(model.detect, image_request(), caller) for caller in callers]
    if why == "left":
        wait_in_line(model, 4)
        for caller in callers:
            caller.leave()
    for call in given_up:
        with pytest.raises(CallerGone):
            call.result(PATIENCE)
    gate.set()
    assert [call.result(PATIENCE).detection for call in in_hand] == [NORMAL] * 2
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.calls == 3


def test_another_size_than_the_packages_is_refused_before_a_slot_is_taken(bench: Bench) -> None:
    model = bench.running()
    with pytest.raises(WrongImageSize, match=r"128 x 64.*96 x 64"):
        model.detect(image_request(0, 128, 64), Caller())
    assert bench.workers.calls == 0
    assert bench.running("any-size").detect(image_request(0, 128, 64), Caller()).detection is NORMAL


def test_segments_are_opened_for_the_call_only_and_the_mask_goes_to_its_range(bench: Bench) -> None:
    size = WIDTH * HEIGHT * 3
    seen: list[tuple[OpenSegment, OpenSegment]] = []
    bench.workers.plan = Plan(answer=lambda image: seen.append((image.pixels, image.mask)) or NORMAL)
    model = bench.running()
    with segment(bytes(3 * size)) as name:
        layout, pixels = BitmapLayout.of(WIDTH, HEIGHT, size), SegmentRange(name, size, 7)
        before = len(list(Path("/proc/self/fd").iterdir()))
        model.detect(DetectRequest(layout, pixels, SegmentRange(name, size, size + 7)), Caller())
        ((image, mask),) = seen
        assert (image.offset, mask.offset) == (7, size + 7)
        with pytest.raises(MaskRangeTooSmall):
            model.detect(DetectRequest(layout, pixels, SegmentRange(name, size - 1, size + 7)), Caller())
        with pytest.raises(MaskOverlapsImage):
            model.detect(DetectRequest(layout, pixels, SegmentRange(name, size, 8)), Caller())
        with pytest.raises(SegmentNotUsable):
            model.detect(DetectRequest(layout, pixels, SegmentRange(name + "x", size, 0)), Caller())
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert bench.workers.calls == 1


def test_a_classification_model_ignores_the_mask_parameters(bench: Bench) -> None:
    masks: list[object] = []
    bench.workers.plan = Plan(answer=lambda image: masks.append(image.mask) or NORMAL)
    model = bench.running("classifier")
    request = image_request()
    model.detect(DetectRequest(request.layout, request.pixels, SegmentRange("/no such segment", 1, 0)), Caller())
    assert masks == [None]


# --- workers that die ---


def test_a_worker_that_dies_between_calls_is_replaced_and_the_model_stays_running(bench: Bench) -> None:
    model = bench.running()
    bench.workers.number(0).die()
    assert bench.workers.number(1).is_open.wait(PATIENCE)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert model.describe().status is RUNNING
    assert model.describe().message == "version 1.0.0, fake runtime of 1 on CPU"


def test_a_restarting_model_says_so_and_stays_running(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.next.extend([Plan(), Plan(may_open=gate)])
    model = bench.running()
    bench.workers.number(0).die()
    says(model, "restarting")
    assert model.describe().status is RUNNING
    gate.set()
    says(model, "version 1.0.0, fake runtime")


def test_the_call_in_hand_at_a_death_is_answered_by_the_next_worker(bench: Bench) -> None:
    bench.workers.next.append(Plan(dies_on_call=0))
    model = bench.running()
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert [worker.calls for worker in bench.workers.opened] == [1, 1]


def test_both_calls_in_hand_at_a_death_are_answered_by_the_next_worker(bench: Bench) -> None:
    bench.workers.next.append(Plan(may_answer=bench.gate()))
    model = bench.running()
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(2)]
    bench.workers.number(0).wait_for_calls(2)
    bench.workers.number(0).die()
    assert [call.result(PATIENCE).detection for call in calls] == [NORMAL] * 2
    assert bench.workers.number(1).calls == 2


def test_a_call_that_was_in_hand_at_two_deaths_is_given_up_and_the_model_serves_on(bench: Bench) -> None:
    bench.workers.next.extend([Plan(dies_on_call=0), Plan(dies_on_call=0)])
    model = bench.running()
    with pytest.raises(
        ModelCrashed, match='"model" could not inspect this image: its worker ended unexpectedly, and so did the next'
    ):
        model.detect(image_request(), Caller())
    assert [worker.calls for worker in bench.workers.opened[:2]] == [1, 1]
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert model.describe().status is RUNNING


def test_new_calls_wait_while_a_worker_is_restarted_and_no_longer_than_their_deadline(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.next.extend([Plan(), Plan(may_open=gate)])
    model = bench.running()
    bench.workers.number(0).die()
    happens(bench.workers.number(1).opening)
    patient = bench.threads.submit(model.detect, image_request(), Caller())
    begin = time.monotonic()
    with pytest.raises(CallerGone):
        model.detect(image_request(), Caller(begin + 0.1))
    assert 0.1 <= time.monotonic() - begin < 2
    assert not patient.done()
    gate.set()
    assert patient.result(PATIENCE).detection is NORMAL
    assert bench.workers.calls == 1


def test_a_call_given_up_while_a_worker_is_restarted_never_reaches_it(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.next.extend([Plan(), Plan(may_open=gate)])
    model = bench.running()
    bench.workers.number(0).die()
    happens(bench.workers.number(1).opening)
    caller = Caller()
    call = bench.threads.submit(model.detect, image_request(), caller)
    eventually("the call to have a slot", lambda: len(model._admission._free) == 1)
    caller.leave()
    gate.set()
    with pytest.raises(CallerGone):
        call.result(PATIENCE)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.calls == 1


def test_a_caller_that_left_at_a_death_is_not_tried_again(bench: Bench) -> None:
    caller = Caller()

    def leave_and_die(_: object) -> None:
        caller.leave()
        raise WorkerDied

    bench.workers.plan = Plan(answer=leave_and_die)  # type: ignore[arg-type]
    model = bench.running()
    with pytest.raises(CallerGone):
        model.detect(image_request(), caller)
    assert bench.workers.calls == 1


def test_a_model_whose_workers_keep_dying_is_failed_and_no_other_model_notices(bench: Bench) -> None:
    """Row D5 in short. The back-off between the deaths makes it last a few seconds."""
    fleet = Fleet(bench.workers, SETTINGS)
    fleet.apply({"model": bench.record(), "other": bench.record("2", "other")})
    for component in ("model", "other"):
        fleet.start(component)
        eventually("it to run", lambda component=component: fleet.describe(component).status is RUNNING)
    (other,) = [worker for worker in bench.workers.opened if worker.folder.name == "2"]
    # The first death comes while serving, the others while loading again.
    bench.workers.of_package["1"] = Plan(dies_while_opening=True)
    try:
        assert fleet.detect("model", image_request(), Caller()).detection is NORMAL
        (first,) = [worker for worker in bench.workers.opened if worker.folder.name == "1"]
        begin, used = time.monotonic(), time.process_time()
        first.die()
        waiting = bench.threads.submit(fleet.detect, "model", image_request(), Caller())
        while fleet.describe("model").status is RUNNING:
            assert fleet.detect("other", image_request(), Caller()).detection is NORMAL
            assert fleet.describe("other").status is RUNNING
            assert time.monotonic() - begin < PATIENCE
            wait([waiting], 0.01)  # no busy loop: what the agent uses is measured below
        assert fleet.describe("model").status is FAILED
        assert f"ended {DEATHS_ALLOWED + 1} times within 60 s" in fleet.describe("model").message
        assert time.monotonic() - begin > 3  # restarts back off
        assert time.process_time() - used < 3
        with pytest.raises(ModelNotRunning):
            waiting.result(PATIENCE)
        assert len([worker for worker in bench.workers.opened if worker.folder.name == "1"]) == DEATHS_ALLOWED + 1
        assert not other.ended.is_set()
        # StartModel tries again, and begins to count anew.
        del bench.workers.of_package["1"]
        fleet.start("model")
        eventually("it to run again", lambda: fleet.describe("model").status is RUNNING)
        bench.workers.opened[-1].die()
        assert fleet.detect("model", image_request(), Caller()).detection is NORMAL
    finally:
        fleet.close()


def test_a_restart_that_gets_no_process_is_tried_again(bench: Bench) -> None:
    """Row D14 in short: the system has no process to give for a moment."""
    bench.workers.next.extend([Plan(), BlockingIOError(11, "Resource temporarily unavailable")])
    model = bench.running()
    bench.workers.number(0).die()
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert model.describe().status is RUNNING


def test_a_package_that_has_gone_bad_fails_the_model_at_the_next_restart(bench: Bench) -> None:
    bench.workers.next.extend([Plan(), Plan(refuses_to_open=ModelNotLoaded("Runtime", "the file changed"))])
    model = bench.running()
    bench.workers.number(0).die()
    becomes(model, FAILED)
    assert "the file changed" in model.describe().message


# --- new versions ---


def test_a_new_version_takes_over_between_two_calls_and_the_old_worker_goes_after_its_calls(bench: Bench) -> None:
    gate, may_open = bench.gate(), bench.gate()
    bench.workers.of_package.update({"1": Plan(may_answer=gate), "2": Plan(may_open=may_open)})
    model = bench.running()
    old = bench.workers.number(0)
    in_hand = bench.threads.submit(model.detect, image_request(), Caller())
    old.wait_for_calls(1)
    model.use(bench.record("2"))
    new = bench.workers.number(1)
    happens(new.opening)
    says(model, "version 1.0.0, fake runtime of 1 on CPU; loading version 2.0.0")
    assert model.describe().status is RUNNING
    may_open.set()
    says(model, "version 2.0.0, fake runtime of 2 on CPU")
    assert model.describe().arn == ARN.format(2)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert (old.calls, new.calls) == (1, 1)
    assert not old.closed.is_set() and not in_hand.done()
    gate.set()
    assert in_hand.result(PATIENCE).detection is NORMAL
    happens(old.closed)
    assert old.calls_when_closed == 0 and not new.closed.is_set()


def test_no_call_fails_while_versions_change(bench: Bench) -> None:
    model = bench.running()
    stop = threading.Event()

    def keep_calling() -> int:
        count = 0
        while not stop.is_set():
            assert model.detect(image_request(), Caller()).detection is NORMAL
            count += 1
        return count

    clients = [bench.threads.submit(keep_calling) for _ in range(3)]
    try:
        for turn in range(30):
            version = "123"[(turn + 1) % 3]
            model.use(bench.record(version))
            says(model, f"version {version}.0.0, fake runtime of {version} on CPU")
    finally:
        stop.set()
    assert sum(client.result(PATIENCE) for client in clients) > 0
    eventually("the old workers to leave", lambda: sum(not w.closed.is_set() for w in bench.workers.opened) == 1)
    assert {worker.calls_when_closed for worker in bench.workers.opened[:-1]} == {0}


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(refuses_to_open=BadManifest("task", "x", "it is odd")), "it is odd"),
        (Plan(dies_while_opening=True), "its worker ended while it was loading"),
        (BlockingIOError(11, "no process /opt/agent"), "the agent failed unexpectedly; its log says more"),
    ],
)
def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one_serving_and_says_so(
    bench: Bench, plan: Plan | Exception, reason: str
) -> None:
    model = bench.running()
    for turn in ("2", "3"):
        bench.workers.next.append(plan)
        model.use(bench.record(turn))
        says(model, f"version {turn}.0.0 does not take over")
        # The words of an earlier failure are not carried along.
        message = model.describe().message
        assert message.startswith(f"version 1.0.0, fake runtime of 1 on CPU; version {turn}.0.0 does not take over: ")
        assert reason in message
        assert model.describe().status is RUNNING
        assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.number(0).calls == 2
    # A crash brings back the good version, not the bad one.
    bench.workers.number(0).die()
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.opened[-1].folder.name == "1"
    assert model.describe().arn == ARN.format(1)


def test_a_new_version_whose_manifest_is_bad_leaves_the_old_one_serving(bench: Bench) -> None:
    model = bench.running()
    model.use(bench.record("bad"))
    says(model, "version bad.0.0 does not take over")
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert len(bench.workers.opened) == 1


def test_a_stop_ends_the_loading_of_a_new_version(bench: Bench) -> None:
    bench.workers.of_package["2"] = Plan(may_open=bench.gate())
    model = bench.running()
    model.use(bench.record("2"))
    happens(bench.workers.number(1).opening)
    model.stop()
    assert all(worker.closed.is_set() for worker in bench.workers.opened)
    # The next start serves the new version.
    del bench.workers.of_package["2"]
    model.start()
    becomes(model, RUNNING)
    assert "version 2.0.0" in model.describe().message


def test_a_new_version_that_comes_while_the_first_is_loading_is_served_next(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.of_package["1"] = Plan(may_open=gate)
    model = bench.model()
    model.start()
    happens(bench.workers.number(0).opening)
    model.use(bench.record("2"))
    gate.set()
    says(model, "version 2.0.0, fake runtime of 2 on CPU")


def test_a_new_version_of_a_model_that_is_not_loaded_waits_for_the_start(bench: Bench) -> None:
    model = bench.model()
    model.use(bench.record("2"))
    assert model.describe().arn == ARN.format(2)
    assert bench.workers.opened == []
    model.start()
    becomes(model, RUNNING)
    assert "version 2.0.0" in model.describe().message


def test_a_stopped_model_with_a_bad_package_says_why_until_a_good_one_comes(bench: Bench) -> None:
    model = bench.model("bad")
    assert model.describe().status is STOPPED
    assert model.describe().message.startswith("it cannot be started: manifest.json")
    model.start()
    becomes(model, FAILED)
    assert "manifest.json" in model.describe().message
    assert bench.workers.opened == []
    stopped = bench.model("bad")
    stopped.use(bench.record("1"))
    assert (stopped.describe().message, stopped.describe().arn) == ("", ARN.format(1))
    stopped.use(bench.record("bad"))
    assert stopped.describe().message.startswith("it cannot be started")


# --- leaving ---


@pytest.mark.parametrize("status", list(ModelStatus))
def test_a_model_that_leaves_the_registry_ends_whatever_it_is_doing(bench: Bench, status: ModelStatus) -> None:
    with model_in(status, bench) as model:
        closing = bench.threads.submit(model.retire)
        if status is STOPPING:  # its call in hand is answered first
            worker = bench.workers.number(0)
            assert not worker.closed.is_set() and not closing.done()
            bench.gates[-1].set()
        closing.result(PATIENCE)
        assert all(worker.ended.is_set() for worker in bench.workers.opened)
        # Nobody may start it any more: nothing would end that worker.
        with pytest.raises((ModelNotFound, ModelAlreadyStarted)):
            model.start()
        assert all(worker.ended.is_set() for worker in bench.workers.opened)


def test_a_running_model_that_leaves_answers_its_calls_in_hand(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running()
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(3)]
    bench.workers.number(0).wait_for_calls(2)
    wait_in_line(model, 1)
    closing = bench.threads.submit(model.retire)
    becomes(model, STOPPING)
    gate.set()
    closing.result(PATIENCE)
    assert [call.result(PATIENCE).detection for call in calls] == [NORMAL] * 3


def test_a_model_that_leaves_and_drains_says_nothing_of_the_one_that_comes_back_under_its_name(bench: Bench) -> None:
    gate, told = bench.gate(), []
    bench.workers.next.append(Plan(may_answer=gate))
    fleet = Fleet(bench.workers, SETTINGS, on_change=lambda component, can_answer: told.append(can_answer))
    fleet.apply({"a": bench.record("1", "a")})
    fleet.start("a")
    eventually("it to run", lambda: fleet.describe("a").status is RUNNING)
    call = bench.threads.submit(fleet.detect, "a", image_request(), Caller())
    bench.workers.number(0).wait_for_calls(1)
    assert told[-1] is True
    fleet.apply({})
    eventually("its leaving to be told", lambda: told[-1] is False)
    fleet.apply({"a": bench.record("2", "a")})  # it was started, so it runs again
    eventually("the new one to run", lambda: told[-1] is True)
    gate.set()
    assert call.result(PATIENCE).detection is NORMAL
    happens(bench.workers.number(0).closed)
    eventually("the old one to be gone", lambda: not threads_of_models("retire-"))
    assert told[-1] is True
    fleet.close()


def test_an_agent_that_ends_does_not_wait_for_calls_in_hand(bench: Bench) -> None:
    bench.workers.plan = Plan(may_answer=bench.gate())
    model = bench.running()
    calls = [bench.threads.submit(model.detect, image_request(), Caller()) for _ in range(3)]
    bench.workers.number(0).wait_for_calls(2)
    wait_in_line(model, 1)
    model.close()
    for call in calls:
        with pytest.raises(ModelNotFound):
            call.result(PATIENCE)
    assert len(bench.workers.opened) == 1 and bench.workers.number(0).ended.is_set()


def test_the_fleet_follows_the_registry(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS)
    try:
        fleet.apply({"b": bench.record("1", "b"), "a": bench.record("2", "a")})
        assert [model.component for model in fleet.list()] == ["a", "b"]
        fleet.start("a")
        eventually("it to run", lambda: fleet.describe("a").status is RUNNING)
        fleet.apply({"b": bench.record("3", "b")})
        assert [model.component for model in fleet.list()] == ["b"]
        assert fleet.describe("b").arn == ARN.format(3)
        happens(bench.workers.number(0).closed)
        for call in (fleet.describe, fleet.start, fleet.stop):
            with pytest.raises(ModelNotFound, match='"a"'):
                call("a")
        with pytest.raises(ModelNotFound, match='"a"'):
            fleet.detect("a", image_request(), Caller())
    finally:
        fleet.close()
    assert fleet.list() == []


def test_every_other_model_answers_while_one_hangs_in_loading(bench: Bench) -> None:
    """Row C5 in short."""
    bench.workers.of_package["1"] = Plan(may_open=bench.gate())
    fleet = Fleet(bench.workers, SETTINGS)
    fleet.apply({"hangs": bench.record("1", "hangs"), "good": bench.record("2", "good")})
    fleet.start("hangs")
    happens(bench.workers.number(0).opening)
    fleet.start("good")
    eventually("the good one to run", lambda: fleet.describe("good").status is RUNNING)
    assert fleet.detect("good", image_request(), Caller()).detection is NORMAL
    assert [model.status for model in fleet.list()] == [RUNNING, STARTING]
    with pytest.raises(ModelNotRunning):
        fleet.stop("hangs")
    fleet.close()  # ends the load too
    assert all(worker.closed.is_set() for worker in bench.workers.opened)


def test_every_move_is_one_line_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent")
    model = bench.running()
    model.stop()
    moves = [record.getMessage() for record in caplog.records if "->" in record.getMessage()]
    assert moves == [
        "model model: STOPPED -> STARTING: starting a worker",
        "model model: STARTING -> RUNNING: version 1.0.0, fake runtime of 1 on CPU",
        "model model: RUNNING -> STOPPING: answering the calls in hand",
        "model model: STOPPING -> STOPPED",
    ]


def test_control_and_detect_calls_from_many_threads_end_in_listed_refusals_only(bench: Bench) -> None:
    """Row C1 in short."""
    model = bench.model()
    expected = (ModelNotRunning, ModelAlreadyStarted, QueueFull)
    stop = threading.Event()
    odd: list[BaseException] = []

    def keep(call: Callable[[], object]) -> None:
        while not stop.is_set():
            try:
                call()
            except expected:
                continue
            except BaseException as error:
                odd.append(error)
                return

    calls = [model.start, model.stop, model.describe] + [lambda: model.detect(image_request(), Caller())] * 5
    futures = [bench.threads.submit(keep, call) for call in calls]
    eventually("a good number of calls", lambda: bench.workers.calls > 300 and len(bench.workers.opened) > 20)
    stop.set()
    for future in futures:
        future.result(PATIENCE)
    assert odd == []
    eventually("an end", lambda: model.describe().status in (STOPPED, RUNNING))


# --- one trouble touches no one else ---


def test_an_image_that_kills_its_worker_takes_no_other_call_down(bench: Bench) -> None:
    """Both are in hand at the first death; tried again alone, only the guilty one is given up."""

    def answer(image: ImageToInspect) -> Detection:
        if image.pixels[:1] == b"\xff":  # type: ignore[index]
            bench.workers.opened[-1].die()
            raise WorkerDied
        return NORMAL

    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate, answer=answer)
    model = bench.running()
    poison = bench.threads.submit(model.detect, image_request(255), Caller())
    innocent = [bench.threads.submit(model.detect, image_request(0), Caller()) for _ in range(3)]
    bench.workers.number(0).wait_for_calls(2)
    gate.set()
    with pytest.raises(ModelCrashed):
        poison.result(PATIENCE)
    assert [call.result(PATIENCE).detection for call in innocent] == [NORMAL] * 3
    assert model.detect(image_request(), Caller()).detection is NORMAL


def test_a_call_in_hand_is_answered_though_its_worker_dies_while_the_model_is_stopping(bench: Bench) -> None:
    bench.workers.next.append(Plan(may_answer=bench.gate()))
    model = bench.running()
    call = bench.threads.submit(model.detect, image_request(), Caller())
    bench.workers.number(0).wait_for_calls(1)
    stopping = bench.threads.submit(model.stop)
    becomes(model, STOPPING)
    bench.workers.number(0).die()
    assert call.result(PATIENCE).detection is NORMAL
    stopping.result(PATIENCE)
    assert model.describe().status is STOPPED


def test_a_caller_that_leaves_while_a_worker_is_restarted_gives_its_slot_back(bench: Bench) -> None:
    bench.workers.next.extend([Plan(), Plan(may_open=bench.gate())])
    model = bench.running()
    bench.workers.number(0).die()
    happens(bench.workers.number(1).opening)
    caller = Caller()
    call = bench.threads.submit(model.detect, image_request(), caller)
    caller.leave()
    with pytest.raises(CallerGone):
        call.result(PATIENCE)


def test_a_device_without_a_thread_to_spare_fails_the_start_and_not_the_model_for_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.model()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
        model.start()
    assert model.describe().status is FAILED
    assert "no thread" in model.describe().message
    model.start()
    becomes(model, RUNNING)


def test_a_record_that_says_the_same_again_changes_nothing(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS)
    fleet.apply({"a": bench.record("1", "a")})
    fleet.start("a")
    eventually("it to run", lambda: fleet.describe("a").status is RUNNING)
    fleet.apply({"a": bench.record("1", "a"), "b": bench.record("2", "b")})
    assert fleet.detect("a", image_request(), Caller()).detection is NORMAL
    assert len(bench.workers.opened) == 1
    fleet.close()
