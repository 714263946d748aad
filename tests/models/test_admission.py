"""The queue for a model's slots: first come, first served, bounded, and nobody's slot is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from agent.errors import CallerGone, QueueFull
from agent.models.admission import Admission, Caller
from tests.support.fake_worker import PATIENCE, eventually, happens


class Holder:
    """A thread that waits for a slot, and keeps it until it is told to let go."""

    def __init__(self, admission: Admission, caller: Caller | None = None, served: list[Holder] | None = None) -> None:
        self.caller = caller or Caller()
        self.has_slot, self._let_go = threading.Event(), threading.Event()
        self.slot: int | None = None
        self.ended: Future[None] = Future()
        self._admission, self._served = admission, served
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._admission.slot(self.caller) as self.slot:
                if self._served is not None:
                    self._served.append(self)
                self.has_slot.set()
                happens(self._let_go)
            self.ended.set_result(None)
        except BaseException as error:
            self.ended.set_exception(error)

    def let_go(self) -> None:
        self._let_go.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def queued(admission: Admission) -> int:
    return len(admission._queue)


@contextmanager
def taken(admission: Admission, slots: int = 1) -> Iterator[list[Holder]]:
    """Every slot of `admission` is out; those still out at the end are given back."""
    holders = [Holder(admission) for _ in range(slots)]
    for holder in holders:
        happens(holder.has_slot)
    try:
        yield holders
    finally:
        for holder in holders:
            holder.let_go()


def wait_in_line(admission: Admission, count: int, served: list[Holder] | None = None) -> list[Holder]:
    """`count` holders that wait, in this order."""
    line = []
    for _ in range(count):
        before = queued(admission)
        line.append(Holder(admission, served=served))
        eventually("the holder to wait", lambda before=before: queued(admission) == before + 1)
    return line


def test_a_free_slot_is_had_at_once_and_each_slot_once() -> None:
    admission = Admission("model", slots=3, queue_length=0)
    with taken(admission, 3) as holders:
        assert {holder.slot for holder in holders} == {0, 1, 2}


def test_those_who_wait_are_served_in_the_order_they_came() -> None:
    admission = Admission("model", slots=1, queue_length=30)
    served: list[Holder] = []
    with taken(admission) as (first,):
        line = wait_in_line(admission, 30, served)
        assert served == []
        first.let_go()
        for holder in line:
            happens(holder.has_slot)
            holder.let_go()
    assert served == line


def test_a_slot_that_comes_free_goes_to_the_longest_waiting_even_if_another_comes_at_that_moment() -> None:
    admission = Admission("model", slots=1, queue_length=2)
    with taken(admission) as (first,):
        (waiting,) = wait_in_line(admission, 1)
        first.let_go()
        happens(waiting.has_slot)
        late = Holder(admission)
        eventually("the late one to wait", lambda: queued(admission) == 1)
        assert not late.has_slot.is_set()
        waiting.let_go()
        happens(late.has_slot)
        late.let_go()


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_call_beyond_the_queue_is_refused_at_once_and_says_how_many_wait(length: int) -> None:
    admission = Admission("model", slots=1, queue_length=length)
    with taken(admission) as (first,):
        line = wait_in_line(admission, length)
        begin = time.monotonic()
        with pytest.raises(QueueFull, match=rf'"model" cannot keep up: {length} calls'), admission.slot(Caller()):
            pass
        assert time.monotonic() - begin < 1
        first.let_go()
        for holder in line:
            happens(holder.has_slot)
            holder.let_go()
    with admission.slot(Caller()):
        pass


def test_a_caller_that_leaves_while_waiting_never_gets_a_slot_and_the_next_does() -> None:
    admission = Admission("model", slots=1, queue_length=5)
    with taken(admission) as (first,):
        leaving, staying = wait_in_line(admission, 2)
        leaving.caller.leave()
        with pytest.raises(CallerGone):
            leaving.ended.result(PATIENCE)
        assert queued(admission) == 1  # its place is free for another
        first.let_go()
        happens(staying.has_slot)
        staying.let_go()
    assert leaving.slot is None


def test_a_caller_whose_deadline_passes_while_waiting_never_gets_a_slot_and_the_next_does() -> None:
    admission = Admission("model", slots=1, queue_length=5)
    with taken(admission) as (first,):
        hurried = Holder(admission, Caller(time.monotonic() + 0.05))
        eventually("the hurried one to wait", lambda: queued(admission) == 1 or hurried.ended.done())
        staying = Holder(admission)
        with pytest.raises(CallerGone):
            hurried.ended.result(PATIENCE)
        first.let_go()
        happens(staying.has_slot)
        staying.let_go()
    assert hurried.slot is None


@pytest.mark.parametrize("why", ["left", "deadline passed"])
def test_a_caller_that_has_gone_before_gets_no_slot_though_one_is_free(why: str) -> None:
    admission = Admission("model", slots=1, queue_length=5)
    caller = Caller(time.monotonic() - 1) if why == "deadline passed" else Caller()
    if why == "left":
        caller.leave()
    with pytest.raises(CallerGone), admission.slot(caller):
        pytest.fail("the model was reached")
    with taken(admission):
        pass


def test_a_caller_that_leaves_when_its_turn_has_come_hands_the_slot_on() -> None:
    """The two events cross: the slot was given to one that leaves before it has woken."""
    admission = Admission("model", slots=1, queue_length=5)
    for _ in range(200):
        with taken(admission) as (first,):
            leaving, staying = wait_in_line(admission, 2)
            leaver = threading.Thread(target=leaving.caller.leave)
            leaver.start()
            first.let_go()
            leaver.join()
            leaving.let_go()
            happens(staying.has_slot)
            staying.let_go()
    admission.wait_until_idle()


@pytest.mark.parametrize("seconds", [None, 1e9, 9.2e18])
def test_a_call_without_a_deadline_waits_its_turn(seconds: float | None) -> None:
    """gRPC reports 9.2e18 seconds for a call without a deadline; no lock can wait as long as that."""
    admission = Admission("model", slots=1, queue_length=1)
    caller = Caller(None if seconds is None else time.monotonic() + seconds)
    with taken(admission) as (first,):
        patient = Holder(admission, caller)
        eventually("it to wait", lambda: queued(admission) == 1 or patient.ended.done())
        first.let_go()
        patient.let_go()
        patient.ended.result(PATIENCE)
    assert patient.slot == 0


def test_a_slot_comes_back_when_its_holder_fails() -> None:
    admission = Admission("model", slots=1, queue_length=0)
    for error in (ValueError, CallerGone, KeyboardInterrupt):
        with pytest.raises(error), admission.slot(Caller()):
            raise error
        with admission.slot(Caller()):
            pass
    admission.wait_until_idle()


def test_waiting_until_idle_ends_when_the_last_of_those_who_wait_is_done() -> None:
    admission = Admission("model", slots=2, queue_length=5)
    with ThreadPoolExecutor(1) as threads, taken(admission, 2) as (first, second):
        (waiting,) = wait_in_line(admission, 1)
        idle = threads.submit(admission.wait_until_idle)
        first.let_go()
        happens(waiting.has_slot)
        waiting.let_go()
        assert not idle.done()
        second.let_go()
        idle.result(PATIENCE)


def test_waiting_until_idle_ends_when_the_last_one_in_line_leaves() -> None:
    admission = Admission("model", slots=1, queue_length=5)
    with ThreadPoolExecutor(1) as threads, taken(admission) as (first,):
        (waiting,) = wait_in_line(admission, 1)
        idle = threads.submit(admission.wait_until_idle)
        waiting.caller.leave()
        waiting.thread.join(PATIENCE)
        assert not idle.done()
        first.let_go()
        idle.result(PATIENCE)


def test_a_storm_of_callers_never_has_more_slots_than_there_are_and_loses_none() -> None:
    slots, callers, calls = 3, 16, 250
    admission = Admission("model", slots=slots, queue_length=8)
    lock, out = threading.Lock(), set()
    outcomes = {"served": 0, "gone": 0, "full": 0}
    faults: list[str] = []

    def storm(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(calls):
            kind = chance.choice(("patient", "patient", "hurried", "leaving"))
            caller = Caller(time.monotonic() + chance.random() * 1e-3 if kind == "hurried" else None)
            leaver = threading.Timer(chance.random() * 1e-3, caller.leave) if kind == "leaving" else None
            if leaver:
                leaver.start()
            outcome = "served"
            try:
                with admission.slot(caller) as slot:
                    with lock:
                        if slot in out or slot not in range(slots):
                            faults.append(f"slot {slot} beside {out}")
                        out.add(slot)
                    if chance.random() < 0.1:
                        time.sleep(1e-4)  # some calls take a moment; nothing is waited for
                    with lock:
                        out.remove(slot)
            except CallerGone:
                outcome = "gone"
            except QueueFull:
                outcome = "full"
            finally:
                if leaver:
                    leaver.cancel()
                    leaver.join()
            with lock:
                outcomes[outcome] += 1

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert faults == []
    assert sum(outcomes.values()) == callers * calls
    assert outcomes["served"] > 0 and outcomes["full"] > 0
    admission.wait_until_idle()
    with taken(admission, slots) as holders:
        assert {holder.slot for holder in holders} == set(range(slots))
