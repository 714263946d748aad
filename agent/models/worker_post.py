"""The post of a model's worker: who stands there, who has it in hand, and who waits for one that is to come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agent.backends.base import RunsOn
from agent.errors import CallerGone
from agent.models.admission import Caller
from agent.workers.handle import WorkerHandle

WAITING_STEP = 0.25
"""Seconds between two looks at whether a caller that waits for a worker is still there."""


class NoWorkerComes(Exception):
    """There is no worker, and none is being opened."""


@dataclass(frozen=True)
class ServedBy:
    """What answers: the version of the model component, and what it runs on."""

    version: str
    runs_on: RunsOn
    arn: str = ""
    """Of the original service's model that the package holds; empty for others."""

    def __str__(self) -> str:
        return f"version {self.version}, {self.runs_on}"


class OnDuty:
    """A worker that takes calls, and how many have it in hand."""

    def __init__(self, worker: WorkerHandle, served_by: ServedBy, ended: threading.Event, load_seconds: float) -> None:
        self.worker, self.served_by, self.ended = worker, served_by, ended
        self.load_seconds = load_seconds
        """From its start until it could answer."""
        self.calls = 0
        self.is_alone = False
        """Whether the call in hand wants no other beside it."""


class WorkerPost:
    """Calls come here for the worker; its keeper puts one there. From several threads at once.

    Calls wait from `expect_worker` until `give_up`, also while nobody stands here.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        """`on_change` is told whenever it may have changed whether somebody stands here."""
        self._on_change = on_change
        self._changed = threading.Condition()
        self._on_duty: OnDuty | None = None
        self._relieved: list[OnDuty] = []
        """Those that no longer stand here and still have calls in hand."""
        self._waiting_alone = 0
        """Calls that wait to have the worker alone; others let them go first."""
        self._worker_comes = False

    @property
    def is_staffed(self) -> bool:
        """Whether a worker that lives stands here."""
        return self._ready() is not None

    @property
    def on_duty(self) -> OnDuty | None:
        """Who stands here, alive or not."""
        return self._on_duty

    def expect_worker(self) -> None:
        """One is being opened: calls wait for it."""
        with self._changed:
            self._worker_comes = True

    def give_up(self) -> None:
        """None will come any more: who waits is told so."""
        with self._changed:
            self._worker_comes = False
            self._changed.notify_all()

    def relieve(self, by: OnDuty | None) -> OnDuty | None:
        """Puts another worker here, or none; gives the one that stood here, whose calls in hand it still answers."""
        with self._changed:
            relieved, self._on_duty = self._on_duty, by
            if relieved is not None:
                self._relieved.append(relieved)
            self._changed.notify_all()
        self._on_change()
        return relieved

    def worker_ended(self) -> None:
        """The worker of somebody who stands or stood here has ended."""
        with self._changed:
            self._changed.notify_all()
        self._on_change()

    def dismiss(self, relieved: OnDuty | None) -> None:
        """Ends a worker that no longer stands here, after the calls it has in hand."""
        if relieved is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: relieved.calls == 0)
            self._relieved.remove(relieved)
        relieved.worker.close()

    def workers(self) -> list[WorkerHandle]:
        """Who stands here, and those relieved who still have calls in hand."""
        with self._changed:
            return [each.worker for each in (*self._relieved, *filter(None, (self._on_duty,)))]

    @contextmanager
    def in_hand(self, caller: Caller, *, alone: bool) -> Iterator[OnDuty]:
        """The worker on duty, kept open meanwhile; waits while there is none yet, or for one's turn.

        `alone`: no other call has the worker in hand at the same time.

        Raises:
            CallerGone: the caller left while it waited.
            NoWorkerComes: there is none, and none is to come.
        """
        with self._changed:
            self._waiting_alone += alone
            try:
                while self._worker_comes and not caller.is_gone and not self._may_enter(alone):
                    # In steps: a caller that leaves does not wake those who wait here.
                    self._changed.wait(WAITING_STEP)
            finally:
                self._waiting_alone -= alone
            if caller.is_gone:  # it may have left while it waited
                raise CallerGone
            on_duty = self._ready()
            if on_duty is None:
                raise NoWorkerComes
            on_duty.calls += 1
            on_duty.is_alone = alone
        try:
            yield on_duty
        finally:
            with self._changed:
                on_duty.calls -= 1
                on_duty.is_alone = False
                self._changed.notify_all()

    def _ready(self) -> OnDuty | None:
        on_duty = self._on_duty
        return on_duty if on_duty is not None and not on_duty.ended.is_set() else None

    def _may_enter(self, alone: bool) -> bool:
        on_duty = self._ready()
        if on_duty is None or on_duty.is_alone:
            return False
        return on_duty.calls == 0 if alone else not self._waiting_alone
