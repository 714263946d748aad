"""Who looks after the worker of a started model: opens it, replaces it when it dies or grows, lets updates in."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.backends.base import OnProgress, Stage
from agent.errors import BadPackage, DeviceNotUsable, NoMemoryToLoad, NotEnoughMemory, Refusal
from agent.free_memory import available_memory
from agent.models.loading_turn import LoadingTurn
from agent.models.memory import needed_memory
from agent.models.registry import Record
from agent.models.retries import delay_after
from agent.models.worker_post import OnDuty, ServedBy, WorkerPost
from agent.packages.manifest import Manifest
from agent.packages.package import Package, read_package
from agent.workers.handle import WorkerDied, WorkerHandle

log = logging.getLogger(__name__)

DEATHS_ALLOWED = 5
"""A worker that dies more often than this within DEATHS_WINDOW makes its model FAILED."""
DEATHS_WINDOW = 60.0
"""Seconds."""
RECYCLING_REST = 600.0
"""Seconds that a worker serves at least before it may be replaced for having grown: one that grows at once, because its
first image is a large one, would be replaced for ever."""
LOADS_AT_ONCE = 8
"""Models that start at a time, of all together: a worker takes a core and some 100 MB to load, and a registry may hold
hundreds. Updates and the next of a dead worker wait for nobody: calls wait for them. Engines are built one at a time on
a device, for minutes, so a model whose engine is built, or waits for that, holds up no other."""
MAY_PASS = (DeviceNotUsable, NoMemoryToLoad, NotEnoughMemory)
"""Refusals for what may be otherwise soon: memory that others have now, a GPU that fails or is not up yet."""
LEAVING_STEP = 0.2
"""Seconds between two looks at whether a model that waits for its turn to load is still wanted."""
BACK_OFF = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds before the first, second, ... restart in a row: one crash costs no wait, a crash loop no core."""


@dataclass(frozen=True)
class ModelSettings:
    """The settings a model needs; sentences for them stand with `agent.settings`."""

    slots: int
    queue_length: int
    load_time_limit: float
    run_time_limit: float
    worker_growth: int = 0
    """Bytes; 0: without a limit."""
    unload_first: bool = False
    available_memory: Callable[[], int] = available_memory
    """Bytes that may still be taken."""
    memory_interval: float = 5.0
    """Seconds between two looks at how much a worker has grown, and whether its weights are as they were."""
    recycling_rest: float = RECYCLING_REST
    loading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(LOADS_AT_ONCE))
    """Shared by all models; one that starts holds it until it is loaded, or has an engine to build."""


class OpenWorker(Protocol):
    """Starts a worker for the package of a record."""

    def __call__(
        self, record: Record, slots: int, on_progress: OnProgress, on_end: Callable[[], None]
    ) -> WorkerHandle: ...


class Reports(Protocol):
    """Whom a keeper tells; from its own thread."""

    def serves(self, manifest: Manifest, served_by: ServedBy) -> None:
        """A worker has come on duty."""
        ...

    def progresses(self, text: str, stage: Stage, beside: str = "") -> None:
        """What a worker that is being opened is doing; `beside`: what a model that is RUNNING meanwhile says before it,
        where it says it at all."""
        ...

    def says(self, message: str) -> None:
        """What people should know now."""
        ...

    def restarts(self) -> None:
        """The worker has ended, or was ended for what it did, and is about to be replaced."""
        ...

    def leaves(self, reason: str, *, may_pass: bool) -> None:
        """The keeper leaves, its worker is gone; `reason`: why, where nobody asked it to, else empty; `may_pass`:
        whether it may be otherwise soon."""
        ...


class Keeper:
    """A thread that keeps one model's post staffed, from `start` to `leave`."""

    def __init__(
        self, record: Record, open_worker: OpenWorker, settings: ModelSettings, post: WorkerPost, reports: Reports
    ) -> None:
        self._open_worker, self._settings, self._post, self._reports = open_worker, settings, post, reports
        self._events = threading.Condition()
        self._wanted = self._tried = self._good = record
        """What the registry says, what was last opened, and what last served: a restart takes the good one."""
        self._leaving = False
        self._opening: WorkerHandle | None = None
        self._turn: LoadingTurn | None = None
        """None: it has not come yet."""
        self._deaths: deque[float] = deque()
        self._why = WorkerDied.UNEXPECTEDLY
        """Why the last worker ended, or did not come up."""
        self._may_pass = False
        """Whether that is for what may be otherwise soon."""
        self._complaint = ""
        """Why the version that is wanted does not serve; goes after what people are told of the one that does."""
        self._again_at = math.inf
        """When an update that failed for what may be otherwise soon is tried again."""
        self._failed_updates = 0
        """In a row, to the version that is wanted."""
        self._package: Package | None = None
        """What serves, or served last."""
        self._weights: dict[tuple[int, int], tuple[int, int]] = {}
        """Its files of weights as they were before they were hashed."""
        self._size_at_first = 0
        """Bytes that the worker on duty had when it came."""
        self._came_at = 0.0
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{record.component}", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the device gives no thread."""
        self._post.expect_worker()
        self._thread.start()

    def use(self, record: Record) -> None:
        """The registry has a new record: let it take over from the one that serves."""
        with self._events:
            self._wanted = record
            self._events.notify_all()

    def use_settings(self, settings: ModelSettings) -> None:
        """What is done from now on is done by these."""
        self._settings = settings

    def leave(self, *, at_once: bool = False) -> None:
        """Ends the worker and returns when it is gone; after the calls in hand, or `at_once`: they get no answer."""
        with self._events:
            self._leaving = True
            opening = self._opening
            self._events.notify_all()
        self._post.give_up()
        to_close = [] if opening is None else [opening]
        if at_once:
            to_close += self._post.workers()
        if to_close:
            # All at once: each may take a second.
            with ThreadPoolExecutor(len(to_close)) as closing:
                list(closing.map(lambda worker: worker.close(), to_close))
        self._thread.join()

    # --- the thread ---

    def _keep(self) -> None:
        reason = ""
        try:
            with self._turn_to_load():
                self._open_and_take_over(self._next_record())
            while self._next_event():
                if not self._post.is_staffed:
                    self._replace_dead_worker()
                elif self._is_outdated():
                    self._update()
                elif self._weights_have_changed():
                    log.error("model %s: its weights on disk were written to; it is loaded anew", self._component)
                    self._why = "its weights on disk were written to"
                    self._post.dismiss(self._post.relieve(None))
                elif self._has_outgrown():
                    self._recycle()
        except (Refusal, WorkerDied) as error:
            reason = str(error)
            self._may_pass = isinstance(error, MAY_PASS) or (self._may_pass and isinstance(error, _CrashedTooOften))
        except OSError as error:
            reason = f"the system does not give it what it needs: {error.strerror or error}"
        except Exception:
            log.exception("model %s: its keeper failed", self._component)
            reason = "the agent failed unexpectedly; its log says more"
        self._post.give_up()
        self._post.dismiss(self._post.relieve(None))
        # Last: once it is told, the model may be started again, and the next worker is none of this thread's.
        self._reports.leaves(reason, may_pass=self._may_pass)

    @property
    def _component(self) -> str:
        return self._wanted.component

    def _next_event(self) -> bool:
        """Waits for something to do; False when the keeper is to leave."""
        with self._events:
            self._events.wait_for(
                lambda: self._leaving or not self._post.is_staffed or self._is_outdated(),
                self._settings.memory_interval,
            )
            return not self._leaving

    def _is_outdated(self) -> bool:
        return self._tried != self._wanted or time.monotonic() >= self._again_at

    def _next_record(self) -> Record:
        with self._events:
            if self._tried != self._wanted:
                self._failed_updates = 0
            self._tried, self._complaint, self._again_at = self._wanted, "", math.inf
            return self._tried

    @contextmanager
    def _turn_to_load(self) -> Iterator[None]:
        """Raises WorkerDied where the keeper is to leave meanwhile."""
        places = self._settings.loading
        while not places.acquire(timeout=LEAVING_STEP):
            self._reports.progresses("waiting until other models are loaded", "waiting")
            if self._leaving:
                raise WorkerDied
        self._turn = LoadingTurn(places)
        try:
            yield
        finally:
            self._turn.give_back()

    def _progresses(self, text: str, stage: Stage, beside: str) -> None:
        if stage == "loading":
            self._reports.progresses(text, stage)
            return
        if self._turn is not None:
            self._turn.give_back()
        # It takes minutes: people want to know of it although another version may be serving.
        self._reports.progresses(text, stage, beside)

    def _open_and_take_over(self, record: Record, beside: str = "") -> None:
        """Opens a worker for `record`, beside the one that may be serving, and lets it take the calls from then on.

        `beside`: what people are told before the progress of an engine's build.

        Raises:
            BadPackage, LoadTimedOut, NoMemoryToLoad, NotEnoughMemory, WorkerDied: it cannot; a worker that serves
                already serves on.
        """
        began = time.monotonic()
        package = read_package(Path(record.path))
        weights = package.stamps_of_weights()
        ended = threading.Event()
        worker = self._open_worker(
            record,
            self._settings.slots,
            lambda text, stage="loading": self._progresses(text, stage, beside),
            lambda: self._worker_ended(ended),
        )
        try:
            with self._events:
                self._opening = worker
                if self._leaving:
                    raise WorkerDied
            runs_on = worker.wait_until_open(self._settings.load_time_limit)
        except BaseException:
            worker.close()
            raise
        finally:
            with self._events:
                self._opening = None
        if self._leaving:
            worker.close()
            raise WorkerDied
        self._good, self._size_at_first, self._came_at = record, worker.memory(), time.monotonic()
        self._package, self._weights = package, weights
        served_by = ServedBy(record.version, runs_on, package.manifest.model.lookout_vision_model_arn)
        relieved = self._post.relieve(OnDuty(worker, served_by, ended, self._came_at - began))
        self._reports.serves(package.manifest, served_by)
        if self._complaint:
            self._reports.says(f"{served_by}{self._complaint}")
        self._post.dismiss(relieved)

    def _worker_ended(self, ended: threading.Event) -> None:
        ended.set()
        self._post.worker_ended()
        with self._events:
            self._events.notify_all()

    def _replace_dead_worker(self) -> None:
        now = time.monotonic()
        dead = self._post.relieve(None)
        if dead is not None:
            self._why, self._may_pass = dead.worker.why_ended, False
        self._post.dismiss(dead)
        self._deaths.append(now)
        while self._deaths[0] < now - DEATHS_WINDOW:
            self._deaths.popleft()
        count = len(self._deaths)
        if count > DEATHS_ALLOWED:
            raise _CrashedTooOften(count, self._why)
        self._reports.restarts()
        self._reports.says(f"restarting: {self._why}{self._complaint}")
        with self._events:
            # Waits for the back-off, or for being told to leave.
            self._events.wait_for(lambda: self._leaving, BACK_OFF[min(count, len(BACK_OFF)) - 1])
            if self._leaving:
                return
        try:
            try:
                self._open_and_take_over(self._good, "restarting")
            except BadPackage:
                if self._good == self._wanted:
                    raise
                self._open_and_take_over(self._next_record(), "restarting")  # a deployment has replaced the package
        # It counts as one more death. The next event is that there is no worker.
        except (WorkerDied, *MAY_PASS, OSError) as error:
            log.warning("model %s: the new worker did not come up (%s)", self._component, error)
            self._may_pass = isinstance(error, MAY_PASS)
            self._why = WorkerDied.UNEXPECTEDLY if isinstance(error, OSError) else str(error).rstrip(".")

    def _update(self) -> None:
        """A new record: its worker takes over, and the old version serves on if it cannot."""
        record = self._next_record()
        before = self._served_by()
        if self._serves_already(record):
            self._reports.says(before)
            return
        loading = f"{before}; loading version {record.version}"
        self._reports.says(loading)
        log.info("model %s: version %s is being loaded", self._component, record.version)
        try:
            self._replace_worker(record, loading)
        except (Refusal, WorkerDied) as error:
            if self._leaving:
                return
            reason = str(error)
            # Where the old version was unloaded first, another try would interrupt the line once more.
            if isinstance(error, MAY_PASS) and self._post.is_staffed:
                self._failed_updates += 1
                self._again_at = time.monotonic() + delay_after(self._failed_updates)
        except Exception:  # no process to be had, for example: no reason to end the one that serves
            log.exception("model %s: version %s cannot be loaded", self._component, record.version)
            reason = "the agent failed unexpectedly; its log says more"
        else:
            return
        log.error("model %s: version %s does not take over: %s", self._component, record.version, reason)
        self._complaint = f"; version {record.version} does not take over: {reason}"
        # Where the old version was unloaded first, the next event is that nobody is there, and it comes back.
        self._reports.says(f"{before}{self._complaint}")

    def _serves_already(self, record: Record) -> bool:
        """Whether a failed deployment was rolled back: loading once more what serves would take memory, or calls would
        wait for it."""
        try:
            is_same = self._package is not None and self._package.manifest == read_package(Path(record.path)).manifest
        except (BadPackage, OSError):  # told when it is loaded
            return False
        return is_same and record == self._good

    def _recycle(self) -> None:
        """A worker that has grown gives its memory back by making room for a new one, between two calls."""
        log.info("model %s: its worker has grown; a new one takes over", self._component)
        try:
            self._replace_worker(self._good)
        except (Refusal, WorkerDied, OSError) as error:
            # Where the old one was unloaded first, the next event is that nobody is there.
            log.warning("model %s: its worker has grown, and a new one does not come up (%s)", self._component, error)
            self._came_at = time.monotonic()  # not again at once

    def _replace_worker(self, record: Record, beside: str = "") -> None:
        """A worker for `record` in place of the one on duty: beside it, or after it where memory is to be saved.

        Raises:
            NotEnoughMemory: there is too little for a new version beside the one that serves.
            BadPackage, LoadTimedOut, NoMemoryToLoad, WorkerDied, OSError: the new one cannot serve.
        """
        needed, available = needed_memory(read_package(Path(record.path)).manifest), self._settings.available_memory()
        is_tight = needed > available
        if is_tight and record != self._good and not self._settings.unload_first:
            raise NotEnoughMemory(record.component, needed, available)
        if is_tight or self._settings.unload_first:
            self._post.dismiss(self._post.relieve(None))  # calls wait meanwhile
        self._open_and_take_over(record, beside)

    def _weights_have_changed(self) -> bool:
        if self._package is None or not self._weights:
            return False
        now = self._package.stamps_of_weights()
        return any(now.get(file, stamp) != stamp for file, stamp in self._weights.items())

    def _has_outgrown(self) -> bool:
        growth, rest = self._settings.worker_growth, self._settings.recycling_rest
        is_due = growth > 0 and time.monotonic() - self._came_at >= rest
        return is_due and self._size() - self._size_at_first > growth

    def _size(self) -> int:
        on_duty = self._post.on_duty
        return on_duty.worker.memory() if on_duty else 0

    def _served_by(self) -> str:
        on_duty = self._post.on_duty
        return str(on_duty.served_by) if on_duty else ""


class _CrashedTooOften(Refusal):
    def __init__(self, count: int, why: str) -> None:
        last = "" if why == WorkerDied.UNEXPECTEDLY else f", at last: {why}"
        super().__init__(f"its worker ended {count} times within {DEATHS_WINDOW:g} s{last}; StartModel tries again")
