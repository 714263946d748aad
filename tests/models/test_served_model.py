"""One model's life: its states, its calls, its leaving."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import (
    CallerGone,
    LoadTimedOut,
    MaskOverlapsImage,
    MaskRangeTooSmall,
    ModelAlreadyStarted,
    ModelNotFound,
    ModelNotLoaded,
    ModelNotRunning,
    QueueFull,
    SegmentNotUsable,
    SegmentTruncated,
    WrongImageSize,
)
from agent.images.bitmap import BitmapLayout
from agent.images.shared_memory import SegmentRange
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.keeper import ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.request import DetectRequest
from agent.models.served_model import ServedModel
from agent.workers.handle import OpenSegment
from tests.support.agent_process import segment
from tests.support.fake_worker import (
    NORMAL,
    PATIENCE,
    Plan,
    eventually,
    happens,
    image_request,
)
from tests.support.model_bench import (
    ARN,
    FAILED,
    RUNNING,
    SETTINGS,
    STARTING,
    STOPPED,
    STOPPING,
    Bench,
    becomes,
    model_in,
    says,
    threads_of_models,
    wait_in_line,
)
from tests.support.packages import HEIGHT, WIDTH

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
    """The one that is opened may take half an hour: it is waited for no longer than one image may take."""
    bench.workers.next.extend([Plan(), Plan(may_open=bench.gate())])
    model = bench.running(settings=replace(SETTINGS, run_time_limit=0.2))
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


def test_what_fails_with_one_model_keeps_no_other_from_its_due_and_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a device that has no descriptor left for a moment."""
    fleet = Fleet(bench.workers, SETTINGS, auto_start=True)
    fleet.apply({"old": bench.record("1", "old")})
    eventually("it to run", lambda: fleet.describe("old").status is RUNNING)
    wanted = {name: bench.record("1", name) for name in ("a", "b")}
    troubles = iter([OSError(24, "Too many open files")])

    def start(model: ServedModel) -> None:
        for trouble in troubles:
            raise trouble
        really_start(model)

    really_start = ServedModel.start
    monkeypatch.setattr(ServedModel, "start", start)
    with pytest.raises(OSError, match="Too many open files"):
        fleet.apply(wanted)
    fleet.apply(wanted)
    for name in wanted:
        eventually(f"{name} to run", lambda name=name: fleet.describe(name).status is RUNNING)
    happens(bench.workers.number(0).closed)
    fleet.close()
