"""Workers that die, grow, hang or are outdated, and what the keeper makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.base import BackendSettings, OnProgress, Stage
from agent.errors import (
    BadManifest,
    CallerGone,
    DeviceNotUsable,
    ImageRefused,
    ModelCrashed,
    ModelNotLoaded,
    ModelNotRunning,
    NoGpuMemoryToLoad,
    NoMemoryToLoad,
    NotEnoughGpuMemory,
    Refusal,
)
from agent.images.detection import Detection
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.keeper import DEATHS_ALLOWED
from agent.models.registry import Record
from agent.models.served_model import ServedModel
from agent.packages.package import read_package
from agent.workers.handle import ImageToInspect, WorkerDied
from agent.workers.process import WorkerProcess
from tests.support.fake_worker import (
    NORMAL,
    PATIENCE,
    Plan,
    eventually,
    happens,
    image_request,
)
from tests.support.model_bench import ARN, FAILED, RUNNING, SETTINGS, STOPPED, STOPPING, Bench, becomes, says
from tests.support.packages import add_file, changed, make_package, rewrite_manifest

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
        ModelCrashed, match='"model" could not inspect this image: its worker ended unexpectedly, and the same'
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


def test_people_are_told_why_a_worker_ended_where_it_could_say(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.next.extend([Plan(), Plan(may_open=gate)])
    model = bench.running()
    bench.workers.number(0).why_ended = "its worker ended: the GPU failed"
    bench.workers.number(0).die()
    says(model, "restarting: its worker ended: the GPU failed")


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
        said = f"ended {DEATHS_ALLOWED + 1} times within 60 s, at last: its worker ended while it was loading the model"
        assert said in fleet.describe("model").message
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


@pytest.mark.parametrize(("unload_first", "opened"), [(False, 2), (True, 3)])
def test_a_failed_update_that_is_rolled_back_loads_nothing_and_is_told_of_no_more(
    bench: Bench, unload_first: bool, opened: int
) -> None:
    model = bench.running(settings=replace(SETTINGS, unload_first=unload_first))
    bench.workers.of_package["2"] = Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd"))
    model.use(bench.record("2"))
    says(model, "version 1.0.0, fake runtime of 1 on CPU; version 2.0.0 does not take over")
    assert model.detect(image_request(), Caller()).detection is NORMAL
    model.use(bench.record("1"))
    eventually(
        "only the good version to be told of",
        lambda: model.describe().message == "version 1.0.0, fake runtime of 1 on CPU",
    )
    assert len(bench.workers.opened) == opened


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


# --- images under suspicion ---

POISON, GOOD = b"\xff", b"\x00"


def fingerprints(bench: Bench) -> Callable[[ImageToInspect], Detection]:
    """What a worker does: refuses what it is told to, tells what it has in hand, dies of POISON."""

    def answer(image: ImageToInspect) -> Detection:
        content = bytes(image.pixels[:1])  # type: ignore[index]
        if content in image.refuse:
            raise ImageRefused
        bench.looked_closely.append(bool(image.refuse or image.tell_image))
        if content == POISON:
            bench.workers.opened[-1].die()
            death = WorkerDied()
            death.image = content if image.tell_image else None
            raise death
        return NORMAL

    return answer


def test_an_image_that_has_ended_two_workers_is_refused_from_then_on_and_ends_no_other(bench: Bench) -> None:
    bench.workers.plan = Plan(answer=fingerprints(bench))
    model = bench.running()
    with pytest.raises(ModelCrashed):
        model.detect(image_request(255), Caller())
    for _ in range(3):
        with pytest.raises(ImageRefused):
            model.detect(image_request(255), Caller())
        assert model.detect(image_request(0), Caller()).detection is NORMAL
    assert len(bench.workers.opened) == 3


def test_images_are_told_apart_only_while_one_is_under_suspicion(bench: Bench) -> None:
    bench.workers.plan = Plan(answer=fingerprints(bench))
    model = bench.running()
    model.detect(image_request(0), Caller())
    assert bench.looked_closely == [False]
    with pytest.raises(ModelCrashed):
        model.detect(image_request(255), Caller())
    model.detect(image_request(0), Caller())
    assert bench.looked_closely == [False, False, True, True]


@pytest.mark.parametrize("what", ["stopped", "updated"])
def test_a_model_that_is_stopped_or_updated_suspects_no_image_any_more(bench: Bench, what: str) -> None:
    bench.workers.plan = Plan(answer=fingerprints(bench))
    model = bench.running()
    with pytest.raises(ModelCrashed):
        model.detect(image_request(255), Caller())
    model.detect(image_request(0), Caller())
    bench.looked_closely.clear()
    if what == "stopped":
        model.stop()
        model.start()
        becomes(model, RUNNING)
    else:
        model.use(bench.record("2"))
        says(model, "version 2.0.0, fake runtime of 2")
    model.detect(image_request(0), Caller())
    assert bench.looked_closely == [False]


def test_a_death_before_the_pixels_were_read_throws_suspicion_on_no_image(bench: Bench) -> None:
    bench.workers.next.extend([Plan(dies_on_call=0), Plan(dies_on_call=0)])
    bench.workers.plan = Plan(answer=fingerprints(bench))
    model = bench.running()
    with pytest.raises(ModelCrashed):
        model.detect(image_request(0), Caller())
    assert model.detect(image_request(0), Caller()).detection is NORMAL
    assert bench.looked_closely == [False]


# --- memory ---

GROWTH = 1000
WATCHFUL = replace(SETTINGS, worker_growth=GROWTH, memory_interval=0.01, recycling_rest=0.0)


def test_a_worker_that_has_grown_makes_room_for_a_new_one_between_two_calls(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.next.append(Plan(may_answer=gate))
    model = bench.running(settings=WATCHFUL)
    in_hand = bench.threads.submit(model.detect, image_request(), Caller())
    old = bench.workers.number(0)
    old.wait_for_calls(1)
    old.size = GROWTH + 1
    new = bench.workers.number(1)
    happens(new.is_open)
    assert model.detect(image_request(), Caller()).detection is NORMAL  # by the new one
    assert new.calls == 1 and not old.closed.is_set()
    gate.set()
    assert in_hand.result(PATIENCE).detection is NORMAL
    happens(old.closed)
    assert model.describe().message == "version 1.0.0, fake runtime of 1 on CPU"


def test_a_worker_that_has_not_grown_stays(bench: Bench) -> None:
    model = bench.running(settings=WATCHFUL)
    bench.workers.number(0).size = GROWTH
    eventually("some looks at its memory", lambda: bench.workers.number(0).looks > 3)
    assert len(bench.workers.opened) == 1 and model.describe().status is RUNNING


def test_a_worker_that_has_just_come_stays_however_large_it_is(bench: Bench) -> None:
    """Else one whose first image is a large one would be replaced for ever."""
    bench.running(settings=replace(WATCHFUL, recycling_rest=3600.0))
    bench.workers.number(0).size = 100 * GROWTH
    time.sleep(0.1)  # ten looks; there is nothing to wait for
    assert len(bench.workers.opened) == 1


def test_a_grown_worker_serves_on_where_no_new_one_comes_up(bench: Bench) -> None:
    model = bench.running(settings=replace(WATCHFUL, recycling_rest=0.2))
    bench.workers.next.append(Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd")))
    bench.workers.number(0).size = GROWTH + 1
    happens(bench.workers.number(1).ended)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.number(0).calls == 1 and model.describe().status is RUNNING
    happens(bench.workers.number(2).is_open)  # after another rest


def test_a_grown_worker_is_unloaded_first_where_memory_is_short(bench: Bench) -> None:
    settings = replace(WATCHFUL, available_memory=lambda: 0 if bench.is_short else 1 << 40)
    model = bench.running(settings=settings)
    bench.is_short = True
    bench.workers.number(0).size = GROWTH + 1
    happens(bench.workers.number(1).is_open)
    assert bench.workers.number(0).closed_before(bench.workers.number(1))
    assert model.detect(image_request(), Caller()).detection is NORMAL


def test_an_update_without_room_beside_the_running_version_does_not_take_over_and_says_what_to_do(
    bench: Bench,
) -> None:
    settings = replace(SETTINGS, available_memory=lambda: 0 if bench.is_short else 1 << 40)
    model = bench.running(settings=settings)
    bench.is_short = True
    model.use(bench.record("2"))
    says(model, 'version 2.0.0 does not take over: Model "model" needs about 96 MiB of memory, and 0 MiB are free')
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert len(bench.workers.opened) == 1


def test_an_update_may_unload_the_running_version_first_and_calls_wait(bench: Bench) -> None:
    model = bench.running(settings=replace(SETTINGS, unload_first=True))
    gate = bench.gate()
    bench.workers.next.append(Plan(may_open=gate))
    model.use(bench.record("2"))
    happens(bench.workers.number(1).opening)
    assert bench.workers.number(0).closed_before(bench.workers.number(1))
    assert model.describe().status is RUNNING
    waiting = bench.threads.submit(model.detect, image_request(), Caller())
    gate.set()
    assert waiting.result(PATIENCE).detection is NORMAL
    assert bench.workers.number(1).calls == 1
    says(model, "version 2.0.0")


def test_a_bad_update_that_unloaded_first_brings_the_good_version_back(bench: Bench) -> None:
    model = bench.running(settings=replace(SETTINGS, unload_first=True))
    bench.workers.of_package["2"] = Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd"))
    model.use(bench.record("2"))
    says(model, "version 1.0.0, fake runtime of 1 on CPU; version 2.0.0 does not take over: Runtime could not load")
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert bench.workers.number(2).calls == 1


def test_a_grown_worker_that_was_unloaded_first_is_replaced_though_the_first_try_fails(bench: Bench) -> None:
    settings = replace(WATCHFUL, available_memory=lambda: 0 if bench.is_short else 1 << 40)
    model = bench.running(settings=settings)
    bench.is_short = True
    bench.workers.next.append(Plan(dies_while_opening=True))
    bench.workers.number(0).size = GROWTH + 1
    happens(bench.workers.number(2).is_open)
    assert model.detect(image_request(), Caller()).detection is NORMAL
    assert model.describe().status is RUNNING


def test_a_bad_update_that_unloaded_first_is_told_of_though_the_good_version_comes_back_late(bench: Bench) -> None:
    model = bench.running(settings=replace(SETTINGS, unload_first=True))
    bench.workers.next.extend(
        [Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd")), Plan(dies_while_opening=True)]
    )
    model.use(bench.record("2"))
    happens(bench.workers.number(3).is_open)
    says(model, "version 1.0.0, fake runtime of 1 on CPU; version 2.0.0 does not take over: Runtime could not load")


def test_an_update_that_found_too_little_memory_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.retries.FIRST_RETRY", 0.1)
    settings = replace(SETTINGS, memory_interval=0.05, available_memory=lambda: 0 if bench.is_short else 1 << 40)
    model = bench.running(settings=settings)
    bench.is_short = True
    model.use(bench.record("2"))
    says(model, "does not take over")
    bench.is_short = False
    says(model, "version 2.0.0, fake runtime of 2 on CPU")


@pytest.mark.parametrize("refusal", [NoMemoryToLoad("Runtime"), NoGpuMemoryToLoad("TensorRT")])
def test_an_update_that_finds_too_little_memory_while_it_is_loaded_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr("agent.models.retries.FIRST_RETRY", 0.01)
    model = bench.running(settings=replace(SETTINGS, memory_interval=0.005))
    bench.workers.next.extend([Plan(refuses_to_open=refusal)] * 2)
    model.use(bench.record("2"))
    says(model, "version 2.0.0, fake runtime of 2 on CPU")
    assert len(bench.workers.opened) == 4


def test_an_update_that_unloads_first_interrupts_the_line_once_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.models.retries.FIRST_RETRY", 0.0)
    watched = replace(SETTINGS, memory_interval=0.001, worker_growth=GROWTH, recycling_rest=0.0)
    model = bench.running(settings=replace(watched, unload_first=True))
    bench.workers.next.append(Plan(refuses_to_open=NoMemoryToLoad("Runtime")))
    model.use(bench.record("2"))
    says(model, "version 1.0.0, fake runtime of 1 on CPU; version 2.0.0 does not take over")
    eventually("looks that would begin it again", lambda: bench.workers.number(2).looks > 3)
    assert len(bench.workers.opened) == 3


def test_weights_that_were_written_to_while_they_are_mapped_are_loaded_anew(bench: Bench, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    manifest = read_package(folder).manifest
    rewrite_manifest(folder, changed(manifest, files=[*manifest.files, add_file(folder, "w.bin", b"weights")]))
    model = ServedModel(Record("model", "1.0.0", str(folder)), bench.workers, replace(SETTINGS, memory_interval=0.01))
    gate = bench.gate()
    bench.workers.next.extend([Plan(), Plan(may_open=gate)])
    bench.models.append(model)
    model.start()
    becomes(model, RUNNING)
    (folder / "w.bin").write_bytes(b"changed in place")
    happens(bench.workers.number(0).closed)
    says(model, "restarting: its weights on disk were written to")
    gate.set()
    assert bench.workers.number(1).is_open.wait(PATIENCE)
    assert model.describe().status is RUNNING


def test_models_that_start_wait_while_as_many_as_may_are_loading(bench: Bench) -> None:
    settings = replace(SETTINGS, loading=threading.Semaphore(1))
    gate = bench.gate()
    bench.workers.next.append(Plan(may_open=gate))
    first, second, third = (bench.model(settings=settings) for _ in range(3))
    first.start()
    bench.workers.number(0)
    second.start()
    third.start()
    says(second, "waiting until other models are loaded")
    third.close()  # one that waits can be given up
    assert len(bench.workers.opened) == 1
    gate.set()
    becomes(first, RUNNING)
    becomes(second, RUNNING)
    assert len(bench.workers.opened) == 2


@pytest.mark.parametrize("stage", ["building", "waiting"])
def test_models_load_while_the_engine_of_another_is_built_or_waited_for(bench: Bench, stage: Stage) -> None:
    settings = replace(SETTINGS, loading=threading.Semaphore(1))
    gate = bench.gate()
    bench.workers.next.append(Plan(progress=("building",), stage=stage, may_open=gate))
    first, second, third = (bench.model(settings=settings) for _ in range(3))
    first.start()
    says(first, "building")
    second.start()
    becomes(second, RUNNING)
    gate.set()
    becomes(first, RUNNING)

    # Its turn was given back once, and not twice: still one at a time.
    held = bench.gate()
    bench.workers.next.append(Plan(may_open=held))
    third.start()
    bench.workers.number(2)
    assert not settings.loading.acquire(blocking=False)
    held.set()
    becomes(third, RUNNING)


def test_an_engine_that_is_built_for_a_restart_or_an_update_is_told_of(bench: Bench) -> None:
    model = bench.running()
    gate = bench.gate()
    building = Plan(progress=("building a TensorRT engine in fp16: 42 % after 80 s",), stage="building", may_open=gate)
    bench.workers.next.append(building)
    bench.workers.number(0).die()
    says(model, "restarting: building a TensorRT engine in fp16: 42 % after 80 s")
    gate.set()
    says(model, "version 1.0.0, fake runtime of 1 on CPU")

    gate = bench.gate()
    bench.workers.next.append(replace(building, may_open=gate))
    model.use(bench.record("2"))
    said = "version 1.0.0, fake runtime of 1 on CPU; loading version 2.0.0: building a TensorRT engine in fp16: 42 %"
    says(model, f"{said} after 80 s")
    assert model.detect(image_request(), Caller()).detection is NORMAL
    gate.set()
    says(model, "version 2.0.0, fake runtime of 2 on CPU")


def test_turns_to_load_outlast_a_change_of_the_settings(bench: Bench) -> None:
    settings = replace(SETTINGS, loading=threading.Semaphore(1))
    gate = bench.gate()
    bench.workers.next.append(Plan(may_open=gate))
    model = bench.model(settings=settings)
    model.start()
    bench.workers.number(0)
    changed_settings = replace(SETTINGS, loading=threading.Semaphore(1))
    model.use_settings(changed_settings)
    gate.set()
    becomes(model, RUNNING)
    assert settings.loading.acquire(blocking=False)
    assert changed_settings.loading.acquire(blocking=False)
    assert not changed_settings.loading.acquire(blocking=False)


@pytest.mark.parametrize(
    "refusal",
    [
        NotEnoughGpuMemory(600 << 20, 310 << 20),
        NoGpuMemoryToLoad("TensorRT 10.3.0"),
        NoMemoryToLoad("ONNX Runtime 1.31.1"),
        DeviceNotUsable("CUDA", "CUDA failure 802; restart the model, and the device if it comes again"),
    ],
)
def test_a_restart_that_finds_too_little_memory_or_no_gpu_says_so_and_is_tried_again(
    bench: Bench, refusal: Refusal
) -> None:
    model = bench.running()
    gate = bench.gate()
    bench.workers.next.extend([Plan(refuses_to_open=refusal), Plan(may_open=gate)])
    bench.workers.number(0).die()
    says(model, f"restarting: {str(refusal).rstrip('.')}")
    assert model.describe().status is RUNNING
    gate.set()
    assert model.detect(image_request(), Caller()).detection is NORMAL


def test_memory_that_stays_short_fails_the_model_with_the_reason(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.keeper.BACK_OFF", (0.0,))
    model = bench.running()
    bench.workers.plan = Plan(refuses_to_open=NotEnoughGpuMemory(600 << 20, 310 << 20))
    bench.workers.number(0).die()
    becomes(model, FAILED)
    said = model.describe().message
    assert "at last: The model needs about 600 MiB of GPU memory, and 310 MiB may be taken. Stop a model" in said


def test_a_dead_worker_is_replaced_whatever_else_is_loading(bench: Bench) -> None:
    settings = replace(SETTINGS, loading=threading.Semaphore(1))
    gate = bench.gate()
    model, other = bench.running(settings=settings), bench.model(settings=settings)
    bench.workers.next.append(Plan(may_open=gate))
    other.start()
    bench.workers.number(1)
    bench.workers.number(0).die()
    assert bench.workers.number(2).is_open.wait(PATIENCE)
    assert model.detect(image_request(), Caller()).detection is NORMAL


def test_a_worker_that_died_is_let_go_of(bench: Bench) -> None:
    model = bench.running()
    for number in range(3):
        bench.workers.number(number).die()
        happens(bench.workers.number(number + 1).is_open)
        assert model.detect(image_request(), Caller()).detection is NORMAL
        happens(bench.workers.number(number).closed)
    assert model._post.workers() == [bench.workers.number(3)]


def test_a_real_worker_that_grows_is_replaced_without_a_failed_call(tmp_path: Path) -> None:
    """The largest images make a worker of any size grow by a hundred MiB."""
    package = make_package(tmp_path / "p", any_size=True)
    settings = replace(WATCHFUL, worker_growth=8 << 20, recycling_rest=0.0)
    opened: list[WorkerProcess] = []

    def open_worker(record: Record, slots: int, on_progress: OnProgress, on_end: Callable[[], None]) -> WorkerProcess:
        opened.append(WorkerProcess(Path(record.path), BackendSettings(), slots, on_progress, on_end, 1 << 30))
        return opened[-1]

    model = ServedModel(Record("model", "1.0.0", str(package)), open_worker, settings)
    try:
        model.start()
        becomes(model, RUNNING)
        deadline = time.monotonic() + PATIENCE
        while len(opened) < 2 or opened[0].memory():
            assert model.detect(image_request(0, 2048, 2048), Caller()).detection.is_anomalous
            assert time.monotonic() < deadline, "it was not replaced"
    finally:
        model.close()
