"""Settings that change while models run: no model is restarted for it, and no call fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.errors import QueueFull
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.lifecycle import ModelStatus
from tests.support.fake_worker import PATIENCE, Plan, eventually, happens, image_request
from tests.support.model_bench import RUNNING, SETTINGS, STOPPED, Bench, becomes, wait_in_line

WATCHFUL = replace(SETTINGS, memory_interval=0.01, recycling_rest=0.0)
ONE_AT_A_TIME = replace(SETTINGS, slots=1, queue_length=1)


@pytest.fixture
def fleet(bench: Bench) -> Iterator[Fleet]:
    fleet = Fleet(bench.workers, SETTINGS)
    yield fleet
    fleet.close()


def status_of(fleet: Fleet, component: str) -> ModelStatus:
    return fleet.describe(component).status


def test_a_longer_queue_takes_the_next_call_and_a_shorter_one_keeps_those_that_wait(bench: Bench) -> None:
    gate = bench.gate()
    bench.workers.plan = Plan(may_answer=gate)
    model = bench.running(settings=ONE_AT_A_TIME)
    calls = [bench.threads.submit(model.detect, image_request(), Caller())]
    bench.workers.number(0).wait_for_calls(1)
    calls.append(bench.threads.submit(model.detect, image_request(), Caller()))
    wait_in_line(model, 1)
    with pytest.raises(QueueFull, match="1 calls are waiting"):
        model.detect(image_request(), Caller())
    model.use_settings(replace(ONE_AT_A_TIME, queue_length=2))
    calls.append(bench.threads.submit(model.detect, image_request(), Caller()))
    wait_in_line(model, 2)
    model.use_settings(replace(ONE_AT_A_TIME, queue_length=0))
    with pytest.raises(QueueFull, match="0 calls are waiting"):
        model.detect(image_request(), Caller())
    gate.set()
    for call in calls:
        call.result(PATIENCE)


def test_the_next_call_has_the_new_time_limit(bench: Bench) -> None:
    model = bench.running()
    model.detect(image_request(), Caller())
    model.use_settings(replace(SETTINGS, run_time_limit=0.5))
    model.detect(image_request(), Caller())
    assert bench.workers.number(0).limits == [SETTINGS.run_time_limit, 0.5]


def test_the_next_load_has_the_new_time_limit(bench: Bench) -> None:
    model = bench.running()
    model.use_settings(replace(SETTINGS, load_time_limit=7.0))
    bench.workers.number(0).die()
    happens(bench.workers.number(1).is_open)
    assert [worker.load_limit for worker in bench.workers.opened] == [SETTINGS.load_time_limit, 7.0]


def test_a_worker_that_grew_while_it_might_is_replaced_once_it_may_not(bench: Bench) -> None:
    model = bench.running(settings=WATCHFUL)
    worker = bench.workers.number(0)
    worker.size = 1 << 30
    looks = worker.looks
    model.use_settings(replace(WATCHFUL, worker_growth=1 << 20))
    happens(bench.workers.number(1).is_open)
    happens(worker.closed)
    assert worker.looks > looks


def test_an_update_unloads_the_old_version_first_from_when_that_is_asked_for(bench: Bench) -> None:
    model = bench.running()
    model.use_settings(replace(SETTINGS, unload_first=True))
    model.use(bench.record("2"))
    happens(bench.workers.number(1).is_open)
    assert bench.workers.number(0).closed_before(bench.workers.number(1))


def test_a_model_that_is_registered_later_has_the_changed_settings(bench: Bench, fleet: Fleet) -> None:
    fleet.use_settings(replace(SETTINGS, run_time_limit=0.5), auto_start=False)
    fleet.apply({"model": bench.record()})
    fleet.start("model")
    eventually("it to run", lambda: status_of(fleet, "model") is RUNNING)
    fleet.detect("model", image_request(), Caller())
    assert bench.workers.number(0).limits == [0.5]


def test_turning_auto_start_on_starts_what_does_not_run_and_what_comes(bench: Bench, fleet: Fleet) -> None:
    records = {"first": bench.record(component="first")}
    fleet.apply(records)
    assert status_of(fleet, "first") is STOPPED
    fleet.use_settings(SETTINGS, auto_start=True)
    eventually("the first to run", lambda: status_of(fleet, "first") is RUNNING)
    fleet.apply(records | {"second": bench.record(component="second")})
    eventually("the second to run", lambda: status_of(fleet, "second") is RUNNING)
    # Another change is no reason to start what somebody has stopped since.
    fleet.stop("first")
    fleet.use_settings(replace(SETTINGS, queue_length=1), auto_start=True)
    assert status_of(fleet, "first") is STOPPED


def test_turning_auto_start_off_stops_nothing_and_starts_no_more(bench: Bench) -> None:
    fleet = Fleet(bench.workers, SETTINGS, auto_start=True)
    records = {"first": bench.record(component="first")}
    fleet.apply(records)
    eventually("the first to run", lambda: status_of(fleet, "first") is RUNNING)
    fleet.use_settings(SETTINGS, auto_start=False)
    fleet.apply(records | {"second": bench.record(component="second")})
    assert (status_of(fleet, "first"), status_of(fleet, "second")) == (RUNNING, STOPPED)
    fleet.close()


def test_a_model_that_starts_again_goes_by_the_changed_settings(bench: Bench) -> None:
    model = bench.running()
    model.stop()
    model.use_settings(replace(SETTINGS, load_time_limit=7.0))
    model.start()
    becomes(model, RUNNING)
    assert bench.workers.number(1).load_limit == 7.0


def test_models_load_one_after_another_as_before_whatever_is_changed_meanwhile(bench: Bench) -> None:
    settings = replace(SETTINGS, loading=threading.Semaphore(1))
    fleet = Fleet(bench.workers, settings)
    gate = bench.gate()
    bench.workers.next.append(Plan(may_open=gate))
    try:
        fleet.apply({name: bench.record(component=name) for name in ("first", "second")})
        fleet.start("first")
        bench.workers.number(0)
        fleet.use_settings(replace(SETTINGS, queue_length=1), auto_start=False)
        fleet.start("second")
        eventually("it to wait", lambda: fleet.describe("second").message == "waiting until other models are loaded")
        gate.set()
        eventually("both", lambda: all(model.status is RUNNING for model in fleet.list()))
    finally:
        fleet.close()
