"""Workers without a process: they answer, wait, refuse, die or hang while opening, as the test tells them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.backends.base import OnProgress, RunsOn, Stage
from agent.errors import LoadTimedOut
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection
from agent.models.registry import Record
from agent.models.request import DetectRequest
from agent.workers.handle import ImageToInspect, WorkerDied
from tests.support.packages import HEIGHT, WIDTH

PATIENCE = 20.0
"""Seconds a test waits for what must happen."""
NORMAL = Detection(is_anomalous=False, confidence=0.75, score=0.25, threshold=0.5)


def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Returns as soon as `holds()`; for what another thread is about to do and tells nobody of."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain for: {what}"
        time.sleep(0.0005)


def happens(event: threading.Event) -> None:
    """Waits for `event`; fails if it does not come."""
    assert event.wait(PATIENCE), "the event did not come"


def open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


def image_request(value: int = 0, width: int = WIDTH, height: int = HEIGHT) -> DetectRequest:
    """An inline image of one grey value."""
    content = bytes([value]) * (width * height * 3)
    return DetectRequest(BitmapLayout.of(width, height, len(content)), content)


@dataclass(frozen=True)
class Plan:
    """What a worker will do. Gates are events it waits for; a new plan's are open."""

    refuses_to_open: Exception | None = None
    dies_while_opening: bool = False
    progress: tuple[str, ...] = ()
    stage: Stage = "loading"
    """Of what it tells while it opens."""
    may_open: threading.Event | None = None
    may_answer: threading.Event | None = None
    refuses_calls: Exception | None = None
    dies_on_call: int | None = None
    """Ends with this call (0 is the first) in hand."""
    answer: Callable[[ImageToInspect], Detection] = lambda image: NORMAL


class FakeWorker:
    """A `WorkerHandle`. Checks that no two calls ever share a slot and that none comes before it is open."""

    why_ended = WorkerDied.UNEXPECTEDLY

    def __init__(
        self, folder: Path, slots: int, on_progress: OnProgress, on_end: Callable[[], None], plan: Plan
    ) -> None:
        self.folder, self.slots, self.plan = folder, slots, plan
        self.opening, self.is_open, self.ended, self.closed = (threading.Event() for _ in range(4))
        self.faults: list[str] = []
        """What the caller of this handle did wrong."""
        self.calls = 0
        """Calls that reached the worker."""
        self.most_at_once = 0
        self.calls_when_closed: int | None = None
        """Calls in hand at the moment of `close`."""
        self.limits: list[float] = []
        """Seconds that each call was given."""
        self.load_limit: float | None = None
        """Seconds it was given to open."""
        self.size = 0
        """Bytes it says it holds."""
        self.looks = 0
        """How often it was asked."""
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        self._on_progress, self._on_end = on_progress, on_end
        self._changed = threading.Condition()
        self._busy: set[int] = set()

    # --- the handle ---

    def wait_until_open(self, limit: float) -> RunsOn:
        self.load_limit = limit
        for text in self.plan.progress:
            self._on_progress(text, self.plan.stage)
        self.opening.set()
        if not self._wait_for(self.plan.may_open, limit):
            self._end()
            raise LoadTimedOut(limit)
        if self.plan.dies_while_opening:
            self.die()
        if self.ended.is_set():
            raise WorkerDied("its worker ended while it was loading the model")
        if self.plan.refuses_to_open is not None:
            self._end()
            raise self.plan.refuses_to_open
        self.is_open.set()
        return RunsOn(f"fake runtime of {self.folder.name}", "CPU")

    def detect(self, slot: int, image: ImageToInspect, limit: float) -> Detection:
        with self._changed:
            number = self.calls
            self.calls += 1
            self.limits.append(limit)
            if slot in self._busy or slot not in range(self.slots):
                self.faults.append(f"call {number} came in slot {slot} beside {self._busy}")
            if not self.is_open.is_set():
                self.faults.append(f"call {number} came before the worker was open")
            if self.closed.is_set():
                self.faults.append(f"call {number} came after the worker was closed")
            self._busy.add(slot)
            self.most_at_once = max(self.most_at_once, len(self._busy))
            self._changed.notify_all()
        try:
            if self.plan.dies_on_call == number:
                self.die()
            self._wait_for(self.plan.may_answer, PATIENCE)
            if self.ended.is_set():
                raise WorkerDied
            if self.plan.refuses_calls is not None:
                raise self.plan.refuses_calls
            return self.plan.answer(image)
        finally:
            with self._changed:
                self._busy.discard(slot)
                self._changed.notify_all()

    def memory(self) -> int:
        self.looks += 1
        return self.size

    def close(self) -> None:
        with self._changed:
            if self.calls_when_closed is None:
                self.calls_when_closed = len(self._busy)
            self.closed_at = self.closed_at or time.monotonic()
        self.closed.set()
        self._end()

    # --- for the test ---

    def die(self) -> None:
        """Ends of its own accord: calls in hand get WorkerDied."""
        self._end()

    def wait_for_calls(self, count: int) -> None:
        """Returns when `count` calls have reached the worker."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls >= count, PATIENCE), f"{self.calls} of {count} calls came"

    def closed_before(self, other: FakeWorker) -> bool:
        """Whether it was closed before the other was begun."""
        return self.closed_at is not None and self.closed_at <= other.opened_at

    @property
    def in_hand(self) -> int:
        return len(self._busy)

    def _end(self) -> None:
        with self._changed:
            if self.ended.is_set():
                return
        # First everybody is told, then calls in hand end: the promise of WorkerProcess.
        self._on_end()
        self.ended.set()

    def _wait_for(self, gate: threading.Event | None, limit: float) -> bool:
        """Whether the gate opened, or the worker ended, within the limit."""
        deadline = time.monotonic() + limit
        while gate is not None and not gate.is_set() and not self.ended.is_set():
            if time.monotonic() > deadline:
                return False
            gate.wait(0.002)  # two things may end this wait; the gate usually does
        return True


class FakeWorkers:
    """An `OpenWorker`: its workers follow the plans put in `next`, then their package's, then `plan`."""

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.next: deque[Plan | Exception] = deque()
        """For the workers that are opened next, in turn; an exception is raised in place of a worker."""
        self.of_package: dict[str, Plan] = {}
        """By the name of the package's folder; goes before `plan`."""
        self.opened: list[FakeWorker] = []
        self._changed = threading.Condition()

    def __call__(self, record: Record, slots: int, on_progress: OnProgress, on_end: Callable[[], None]) -> FakeWorker:
        folder = Path(record.path)
        with self._changed:
            plan = self.next.popleft() if self.next else self.of_package.get(folder.name, self.plan)
            if isinstance(plan, Exception):
                raise plan
            worker = FakeWorker(folder, slots, on_progress, on_end, replace(plan))
            self.opened.append(worker)
            self._changed.notify_all()
            return worker

    def number(self, index: int) -> FakeWorker:
        """The worker opened at this place (0 is the first), as soon as there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.opened) > index, PATIENCE), f"{len(self.opened)} were opened"
            return self.opened[index]

    @property
    def calls(self) -> int:
        """Calls that reached any of them."""
        return sum(worker.calls for worker in self.opened)

    @property
    def faults(self) -> list[str]:
        return [fault for worker in self.opened for fault in worker.faults]
