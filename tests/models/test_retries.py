"""A device where nobody logs in: what found no memory, or no GPU, is started again by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.errors import (
    DeviceNotUsable,
    ModelNotLoaded,
    ModelNotRunning,
    NoGpuMemoryToLoad,
    NoMemoryToLoad,
    NotEnoughGpuMemory,
    Refusal,
)
from agent.models.fleet import Fleet
from agent.models.keeper import BACK_OFF
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record, Registry, RegistryWatch, write_record
from agent.models.retries import FIRST_RETRY, LONGEST_RETRY, Retries
from agent.models.wanted import WantedModels
from tests.support.fake_worker import Plan, eventually
from tests.support.model_bench import FAILED, RUNNING, SETTINGS, STOPPED, Bench

PASSING = (
    NoMemoryToLoad("Runtime"),
    NotEnoughGpuMemory(2 << 20, 1 << 20),
    NoGpuMemoryToLoad("TensorRT"),
    DeviceNotUsable("CUDA", "there is no NVIDIA driver"),
)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- when


def test_each_try_in_a_row_waits_twice_as_long_and_no_longer_than_ten_minutes() -> None:
    clock = Clock()
    retries, delays = Retries(clock), []
    for _ in range(7):
        delays.append(retries.failed("model"))
        assert retries.due() == []
        clock.now += delays[-1]
        assert retries.due() == ["model"]
        assert retries.due() == [], "each is told once"
    assert delays == [30, 60, 120, 240, 480, 600, 600]


def test_a_model_that_ran_meanwhile_begins_anew() -> None:
    retries = Retries(Clock())
    assert not retries.forget("model")
    retries.failed("model")
    assert retries.forget("model")
    assert retries.failed("model") == FIRST_RETRY


def test_memory_that_is_given_back_ends_the_wait_of_all() -> None:
    retries = Retries(Clock())
    for component in ("a", "b"):
        retries.failed(component)
    retries.hasten()
    assert retries.due() == ["a", "b"]
    assert retries.failed("a") == 2 * FIRST_RETRY


# --- in the fleet


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet_of(bench: Bench, clock: Clock) -> Iterator[Callable[..., Fleet]]:
    fleets = []

    def made(*components: str, **options: object) -> Fleet:
        fleets.append(Fleet(bench.workers, SETTINGS, WantedModels(), Retries(clock), **options))  # type: ignore[arg-type]
        fleets[-1].apply({component: bench.record(component=component) for component in components})
        return fleets[-1]

    yield made
    for fleet in fleets:
        fleet.close()


def becomes(fleet: Fleet, status: ModelStatus, says: str = "", component: str = "model") -> None:
    def holds() -> bool:
        described = fleet.describe(component)
        return described.status is status and says in described.message

    eventually(f"{component} to be {status.value} and say '{says}'", holds)


@pytest.mark.parametrize("refusal", PASSING, ids=lambda refusal: type(refusal).__name__)
def test_what_did_not_find_what_may_come_is_started_again(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet], refusal: Refusal
) -> None:
    bench.workers.next.extend([Plan(refuses_to_open=refusal)] * 2)
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, FAILED, f"{str(refusal).rstrip('.')}; it is tried again in 30 s")
    fleet.start_due()
    assert fleet.describe("model").status is FAILED, "its time has not come"
    clock.now += 30
    fleet.start_due()
    becomes(fleet, FAILED, "it is tried again in 60 s")
    clock.now += 60
    fleet.start_due()
    becomes(fleet, RUNNING, "version 1.0.0, fake runtime of 1 on CPU")
    assert "again" not in fleet.describe("model").message


def test_a_model_that_a_client_started_is_started_again_too(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet]
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet = fleet_of("model")
    fleet.start("model")
    becomes(fleet, FAILED, "it is tried again")
    clock.now += LONGEST_RETRY
    fleet.start_due()
    becomes(fleet, RUNNING)


def test_what_will_not_be_otherwise_is_not_started_again(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet]
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=ModelNotLoaded("Runtime", "it is odd")))
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, FAILED, "it is odd")
    clock.now += LONGEST_RETRY
    fleet.start_due()
    assert (fleet.describe("model").status, len(bench.workers.opened)) == (FAILED, 1)
    assert "again" not in fleet.describe("model").message


def test_a_model_that_was_refused_at_boot_says_why_and_is_started_again(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.models.served_model.needed_memory", lambda manifest: 1 << 60)
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, STOPPED, 'Model "model" needs about 1099511627776 MiB of memory')
    becomes(fleet, STOPPED, "it is tried again in 30 s")
    monkeypatch.undo()
    clock.now += 30
    fleet.start_due()
    becomes(fleet, RUNNING)


def test_a_model_that_was_refused_at_boot_is_started_with_its_next_version(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.models.served_model.needed_memory", lambda manifest: 1 << 60)
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, STOPPED, "it is tried again in 30 s")
    fleet.apply({"model": bench.record("2")})
    becomes(fleet, STOPPED, 'Model "model" needs about 1099511627776 MiB of memory')
    becomes(fleet, STOPPED, "it is tried again in 30 s")
    monkeypatch.undo()
    fleet.apply({"model": bench.record("1")})
    becomes(fleet, RUNNING, "version 1.0.0")
    clock.now += LONGEST_RETRY
    fleet.start_due()
    assert len(bench.workers.opened) == 1


def test_stopping_another_model_ends_the_wait(bench: Bench, fleet_of: Callable[..., Fleet]) -> None:
    fleet = fleet_of("other", "model")
    fleet.start("other")
    becomes(fleet, RUNNING, component="other")
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet.start("model")
    becomes(fleet, FAILED, "it is tried again")
    fleet.stop("other")
    fleet.start_due()
    becomes(fleet, RUNNING)


@pytest.mark.parametrize("auto_start", [True, False])
def test_a_model_that_somebody_stops_is_not_started_again(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet], auto_start: bool
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet = fleet_of("model", auto_start=auto_start)
    if not auto_start:
        fleet.start("model")
    becomes(fleet, FAILED, "it is tried again")
    with pytest.raises(ModelNotRunning):
        fleet.stop("model")
    assert fleet.describe("model").message == str(PASSING[0])
    clock.now += LONGEST_RETRY
    fleet.start_due()
    assert (fleet.describe("model").status, len(bench.workers.opened)) == (FAILED, 1)


def test_a_stop_that_is_refused_because_somebody_started_the_model_meanwhile_changes_nothing(
    bench: Bench, fleet_of: Callable[..., Fleet]
) -> None:
    gate = bench.gate()
    bench.workers.next += [Plan(refuses_to_open=PASSING[0]), Plan(may_open=gate)]
    fleet = fleet_of("model")
    fleet.start("model")
    becomes(fleet, FAILED, "it is tried again")
    fleet.start("model")
    with pytest.raises(ModelNotRunning):
        fleet.stop("model")
    gate.set()
    becomes(fleet, RUNNING)
    fleet.apply({})
    fleet.apply({"model": bench.record()})
    becomes(fleet, RUNNING)  # it is still to run after it was away, and after a restart of the agent


def test_a_model_that_is_no_longer_wanted_is_not_started_again_and_says_so_no_more(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet]
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, FAILED, "it is tried again")
    fleet.use_settings(SETTINGS, auto_start=False)
    clock.now += LONGEST_RETRY
    fleet.start_due()
    assert (fleet.describe("model").message, len(bench.workers.opened)) == (str(PASSING[0]), 1)


def test_a_model_that_has_left_the_registry_is_not_started_again(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet]
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, FAILED, "it is tried again")
    fleet.apply({})
    clock.now += LONGEST_RETRY
    fleet.start_due()
    assert len(bench.workers.opened) == 1


@pytest.mark.parametrize(
    ("refusal", "is_tried_again"), [(PASSING[0], True), (ModelNotLoaded("Runtime", "it is odd"), False)]
)
def test_a_worker_that_finds_no_memory_when_it_is_to_be_replaced_fails_the_model_for_a_while_only(
    bench: Bench,
    clock: Clock,
    fleet_of: Callable[..., Fleet],
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
    is_tried_again: bool,
) -> None:
    monkeypatch.setattr("agent.models.keeper.BACK_OFF", (0.0,) * len(BACK_OFF))
    fleet = fleet_of("model", auto_start=True)
    becomes(fleet, RUNNING)
    bench.workers.plan = Plan(refuses_to_open=refusal)
    bench.workers.number(0).die()
    becomes(fleet, FAILED, "it is tried again in 30 s" if is_tried_again else "it is odd")
    assert ("again in" in fleet.describe("model").message) is is_tried_again
    bench.workers.plan = Plan()
    clock.now += 30
    fleet.start_due()
    becomes(fleet, RUNNING if is_tried_again else FAILED)


def test_the_watch_of_the_registry_starts_what_is_due(
    bench: Bench, clock: Clock, fleet_of: Callable[..., Fleet], tmp_path: Path
) -> None:
    bench.workers.next.append(Plan(refuses_to_open=PASSING[0]))
    fleet = fleet_of(auto_start=True)
    write_record(tmp_path, Record("model", "1.0.0", str(bench.packages / "1")))
    watch = RegistryWatch(Registry(tmp_path), fleet.apply, 0.01, fleet.start_due)
    watch.start()
    try:
        becomes(fleet, FAILED, "it is tried again")
        clock.now += 30
        becomes(fleet, RUNNING)
    finally:
        watch.stop()
