"""One model: its state, its worker, its calls."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from agent.errors import (
    BadPackage,
    CallerGone,
    ModelAlreadyStarted,
    ModelCrashed,
    ModelNotFound,
    ModelNotRunning,
    NotEnoughMemory,
    Refusal,
)
from agent.images.detection import Detection
from agent.models.admission import Admission, Caller
from agent.models.lifecycle import ALLOWED_MOVES, ModelStatus
from agent.models.memory import available_memory, needed_memory
from agent.models.registry import Record
from agent.models.request import DetectRequest, checked_image
from agent.packages.manifest import Manifest
from agent.packages.package import read_package
from agent.workers.process import WorkerDied, WorkerHandle

log = logging.getLogger(__name__)

DEATHS_ALLOWED = 5
"""A worker that dies more often than this within DEATHS_WINDOW makes its model FAILED."""
DEATHS_WINDOW = 60.0
"""Seconds."""
WAITING_STEP = 0.25
"""Seconds between two looks at whether a caller that waits for a restarting worker is still there."""
BACK_OFF = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Seconds before the first, second, ... restart in a row: one crash costs no wait, a crash loop no core."""


@dataclass(frozen=True)
class ModelSettings:
    """The settings a model needs; sentences for them stand with `agent.settings`."""

    slots: int
    queue_length: int
    load_time_limit: float
    run_time_limit: float
    available_memory: Callable[[], int] = available_memory
    """Bytes that may still be taken."""


@dataclass(frozen=True)
class ModelDescription:
    """What clients are told of a model."""

    component: str
    arn: str
    status: ModelStatus
    message: str


OnChange = Callable[[str, bool], None]
"""Told a component and whether it can answer an image now; returns quickly, and asks the model nothing."""


class OpenWorker(Protocol):
    """Starts a worker for the package in a folder."""

    def __call__(
        self, folder: Path, slots: int, on_progress: Callable[[str], None], on_end: Callable[[], None]
    ) -> WorkerHandle: ...


class _Serving:
    """A worker that takes calls, and how many have it in hand."""

    def __init__(self, worker: WorkerHandle, ended: threading.Event) -> None:
        self.worker, self.ended = worker, ended
        self.calls = 0
        self.is_alone = False
        """Whether the call in hand wants no other beside it."""


class ServedModel:
    """A model of the registry. All methods may be called from several threads at once.

    The lock guards moves and counts, never a load or an inference: those take seconds to minutes, and DescribeModel
    must answer meanwhile. From StartModel on a keeper thread looks after the worker: opens it, replaces it when it
    dies, lets a new version take over.
    """

    def __init__(
        self,
        record: Record,
        open_worker: OpenWorker,
        settings: ModelSettings,
        on_change: OnChange = lambda component, can_answer: None,
    ) -> None:
        self._record, self._open_worker, self._settings = record, open_worker, settings
        self._on_change = on_change
        self._admission = Admission(record.component, settings.slots, settings.queue_length)
        self._changed = threading.Condition()
        self._status = ModelStatus.STOPPED
        self._message = ""
        self._served_by = ""
        """Version, runtime and device of the worker that serves, or last served."""
        self._manifest: Manifest | None = None
        self._arn = ""
        self._serving: _Serving | None = None
        self._waiting_alone = 0
        """Calls that wait to have the worker alone; others let them go first."""
        self._opening: WorkerHandle | None = None
        self._tried = self._good = record
        """The record that was last opened, and the one that last served: a restart takes the good one."""
        self._keeper: threading.Thread | None = None
        self._end = False
        """Tells the keeper to let go of the worker and leave."""
        self._closed = False
        self._is_kept = False
        """Whether a keeper is there that replaces a worker that died."""
        self._deaths: deque[float] = deque()
        self._offer(_offered(record))
        self._tell()

    @property
    def component(self) -> str:
        return self._record.component

    @property
    def record(self) -> Record:
        """What the registry last said."""
        return self._record

    def describe(self) -> ModelDescription:
        with self._changed:
            return ModelDescription(self.component, self._arn, self._status, self._message)

    def use(self, record: Record) -> None:
        """The registry has a new record for this component: serve it from now on, and if running without a gap."""
        offered = _offered(record)
        with self._changed:
            self._record = record
            if self._status in (ModelStatus.STOPPED, ModelStatus.FAILED):
                self._offer(offered)
            self._changed.notify_all()

    def start(self) -> None:
        """Begins to load; the model is STARTING when this returns.

        Raises:
            ModelAlreadyStarted: it is neither STOPPED nor FAILED.
            ModelNotFound: it has left the registry; a worker started now would never be ended.
            NotEnoughMemory: less is free than its worker will take.
        """
        with self._changed:
            if self._closed:
                raise ModelNotFound(self.component)
            if (self._status, ModelStatus.STARTING) not in ALLOWED_MOVES:
                raise ModelAlreadyStarted(self.component, self._status.value)
            self._check_memory()
            self._move(ModelStatus.STARTING, "starting a worker")
            self._end = False
            self._deaths.clear()
            self._keeper = threading.Thread(target=self._keep, name=f"keeper-{self.component}", daemon=True)
            try:
                self._keeper.start()
            except RuntimeError as error:  # no thread to be had
                self._keeper = None
                self._move(ModelStatus.FAILED, f"the device gives the agent no thread for it: {error}")
            else:
                self._is_kept = True

    def stop(self) -> None:
        """Answers the calls in hand, gives the memory back, and returns STOPPED.

        Raises:
            ModelNotRunning: it is not RUNNING.
        """
        with self._changed:
            if (self._status, ModelStatus.STOPPING) not in ALLOWED_MOVES:
                raise ModelNotRunning(self.component, self._status.value)
            self._move(ModelStatus.STOPPING, "answering the calls in hand")
            keeper = self._keeper
        self._admission.wait_until_idle()  # ends: each call has a time limit, and no new one is admitted
        self._let_go(keeper)
        with self._changed:
            self._move(ModelStatus.STOPPED, "")
        offered = _offered(self._record)
        with self._changed:
            if self._status is ModelStatus.STOPPED:
                self._offer(offered)

    def retire(self) -> None:
        """Ends whatever this model is doing, for good, after its calls in hand: it has left the registry."""
        with self._changed:
            self._leave()
            running, keeper = self._status is ModelStatus.RUNNING, self._keeper
        if running:
            with suppress(ModelNotRunning):  # somebody else stops it
                self.stop()
        self._let_go(keeper)

    def close(self) -> None:
        """Ends whatever this model is doing, for good and at once: a call in hand does not get its answer."""
        with self._changed:
            self._leave()
            self._end = True
            serving, keeper = self._serving, self._keeper
        if serving is not None:
            serving.worker.close()
        self._let_go(keeper)

    def detect(self, request: DetectRequest, caller: Caller) -> Detection:
        """The model's answer.

        Raises:
            ModelNotRunning: it is not RUNNING.
            BadInput: the image or a segment cannot be used.
            QueueFull: it cannot keep up with the calls.
            CallerGone: nobody waits any more.
            ModelCrashed: its worker died twice with this call in hand.
            Refusal: the worker refused the call.
        """
        with self._changed:
            if self._status is not ModelStatus.RUNNING:
                raise ModelNotRunning(self.component, self._status.value)
            manifest = self._manifest
        assert manifest is not None  # it is RUNNING
        with ExitStack() as opened:
            image = checked_image(self.component, request, manifest, opened)
            with self._admission.slot(caller) as slot:
                # A call that was in hand when a worker died is tried once more, and then alone: it may be what killed
                # the worker, and must not take the others in hand down a second time.
                for alone in (False, True):
                    with self._worker(caller, alone) as worker:
                        try:
                            return worker.detect(slot, image, self._settings.run_time_limit)
                        except WorkerDied as death:
                            reason = str(death)
                            log.warning("model %s: a call was in hand when its worker died", self.component)
        raise ModelCrashed(self.component, reason)

    @contextmanager
    def _worker(self, caller: Caller, alone: bool) -> Iterator[WorkerHandle]:
        """The worker that takes calls now, kept open meanwhile; waits while one is being restarted, or for its turn.

        `alone`: no other call has the worker in hand at the same time.
        """
        with self._changed:
            self._waiting_alone += alone
            try:
                while self._will_be_ready(caller) and not self._may_enter(alone):
                    # In steps: a caller that leaves does not wake those who wait here.
                    self._changed.wait(WAITING_STEP)
            finally:
                self._waiting_alone -= alone
            if caller.is_gone:  # it may have left while it waited
                raise CallerGone
            serving = self._ready()
            if serving is None:
                self._refuse_not_running()
            serving.calls += 1
            serving.is_alone = alone
        try:
            yield serving.worker
        finally:
            with self._changed:
                serving.calls -= 1
                serving.is_alone = False
                self._changed.notify_all()

    def _ready(self) -> _Serving | None:
        return self._serving if self._serving is not None and not self._serving.ended.is_set() else None

    def _may_enter(self, alone: bool) -> bool:
        serving = self._ready()
        if serving is None or serving.is_alone:
            return False
        return serving.calls == 0 if alone else not self._waiting_alone

    def _will_be_ready(self, caller: Caller) -> bool:
        """Whether waiting makes sense. STOPPING too: its calls in hand are answered."""
        return self._is_kept and not self._end and not caller.is_gone

    def _refuse_not_running(self) -> NoReturn:
        if self._closed:  # it may still be RUNNING: then the agent ends
            raise ModelNotFound(self.component)
        raise ModelNotRunning(self.component, self._status.value)

    # --- the keeper's thread ---

    def _keep(self) -> None:
        reason = ""
        try:
            self._open_and_take_over(self._present_record())
            while self._next_event():
                if self._ready() is None:
                    self._replace_dead_worker()
                else:
                    self._update()
        except (Refusal, WorkerDied) as error:
            reason = str(error)
        except OSError as error:
            reason = f"no process could be started for it: {error.strerror or error}"
        except Exception:
            log.exception("model %s: its keeper failed", self.component)
            reason = "the agent failed unexpectedly; its log says more"
        with self._changed:
            self._is_kept = False
            self._changed.notify_all()  # nobody waits for a worker that will not come
        # In this order: once it is FAILED it may be started again, and the next worker is none of this thread's.
        self._close_worker()
        if reason:
            self._fail(reason)

    def _next_event(self) -> bool:
        """Waits for something to do; False when the keeper is to leave."""
        with self._changed:
            self._changed.wait_for(lambda: self._end or self._ready() is None or self._tried != self._record)
            return not self._end

    def _present_record(self) -> Record:
        with self._changed:
            self._tried = self._record
            return self._tried

    def _open_and_take_over(self, record: Record) -> None:
        """Opens a worker for `record`, beside the one that may be serving, and lets it take the calls from then on.

        Raises:
            BadPackage, LoadTimedOut, WorkerDied: it cannot; a worker that serves already serves on.
        """
        manifest = read_package(Path(record.path)).manifest
        ended = threading.Event()
        worker = self._open_worker(
            Path(record.path), self._settings.slots, self._say_progress, lambda: self._worker_ended(ended)
        )
        try:
            with self._changed:
                self._opening = worker
                if self._end:
                    raise WorkerDied
            served_by = worker.wait_until_open(self._settings.load_time_limit)
        except BaseException:
            worker.close()
            raise
        finally:
            with self._changed:
                self._opening = None
        with self._changed:
            old, self._serving = self._serving, _Serving(worker, ended)
            self._good, self._manifest, self._arn = record, manifest, manifest.model.lookout_vision_model_arn
            self._served_by = f"version {record.version}, {served_by}"
            if self._status is ModelStatus.STARTING:
                self._move(ModelStatus.RUNNING, self._served_by)
            else:
                self._say(self._served_by)
                self._tell()
            self._changed.notify_all()  # calls may be waiting for this worker
        if old is not None:
            self._retire(old)

    def _replace_dead_worker(self) -> None:
        now = time.monotonic()
        with self._changed:
            self._serving = None
            self._deaths.append(now)
            while self._deaths[0] < now - DEATHS_WINDOW:
                self._deaths.popleft()
            count = len(self._deaths)
            if count > DEATHS_ALLOWED:
                raise _CrashedTooOften(count)
            self._say("restarting: its worker ended unexpectedly")
            # Waits for the back-off, or for being told to leave.
            self._changed.wait_for(lambda: self._end, BACK_OFF[min(count, len(BACK_OFF)) - 1])
            if self._end:
                return
        try:
            try:
                self._open_and_take_over(self._good)
            except BadPackage:
                if self._good == self._record:
                    raise
                self._open_and_take_over(self._present_record())  # a deployment has replaced the package
        except (WorkerDied, OSError) as error:  # it counts as one more death; the next event is that there is no worker
            log.warning("model %s: the new worker did not come up (%s)", self.component, error)

    def _update(self) -> None:
        """A new record: its worker starts beside the old one, which serves on if the new one cannot."""
        record = self._present_record()
        with self._changed:
            self._say(f"{self._served_by}; loading version {record.version}")
        log.info("model %s: version %s is being loaded beside the running one", self.component, record.version)
        try:
            self._open_and_take_over(record)
        except (Refusal, WorkerDied) as error:
            reason = str(error)
        except Exception:  # no process to be had, for example: no reason to end the one that serves
            log.exception("model %s: version %s cannot be loaded", self.component, record.version)
            reason = "the agent failed unexpectedly; its log says more"
        else:
            return
        log.error("model %s: version %s does not take over: %s", self.component, record.version, reason)
        with self._changed:
            self._say(f"{self._served_by}; version {record.version} does not take over: {reason}")

    def _worker_ended(self, ended: threading.Event) -> None:
        with self._changed:
            ended.set()
            self._tell()
            self._changed.notify_all()

    def _retire(self, serving: _Serving) -> None:
        with self._changed:
            self._changed.wait_for(lambda: serving.calls == 0)
        serving.worker.close()

    def _close_worker(self) -> None:
        with self._changed:
            serving, self._serving = self._serving, None
            self._changed.notify_all()
        if serving is not None:
            self._retire(serving)

    def _let_go(self, keeper: threading.Thread | None) -> None:
        with self._changed:
            self._end = True
            opening = self._opening
            self._changed.notify_all()
        if opening is not None:
            opening.close()
        if keeper is not None:
            keeper.join()

    # --- moves and words ---

    def _check_memory(self) -> None:
        """Better a refusal with figures now than the kernel's choice of what to kill later."""
        if self._manifest is not None:  # else it fails with a better reason
            needed, available = needed_memory(self._manifest), self._settings.available_memory()
            if needed > available:
                raise NotEnoughMemory(self.component, needed, available)

    def _move(self, to: ModelStatus, message: str) -> None:
        """The one place where the state changes; the lock is held."""
        assert (self._status, to) in ALLOWED_MOVES, (self._status, to)
        log.info("model %s: %s -> %s%s", self.component, self._status.value, to.value, message and f": {message}")
        self._status, self._message = to, message
        self._tell()
        self._changed.notify_all()

    def _leave(self) -> None:
        """From now on this model has no say: while it drains, one that came back under its name speaks."""
        if not self._closed:
            self._on_change(self.component, False)
            self._closed = True

    def _tell(self) -> None:
        if not self._closed:
            self._on_change(self.component, self._status is ModelStatus.RUNNING and self._ready() is not None)

    def _say(self, message: str) -> None:
        self._message = message

    def _say_progress(self, text: str) -> None:
        with self._changed:
            if self._status is ModelStatus.STARTING:
                self._say(text)

    def _fail(self, reason: str) -> None:
        with self._changed:
            if self._status in (ModelStatus.STARTING, ModelStatus.RUNNING):
                self._move(ModelStatus.FAILED, reason)

    def _offer(self, offered: tuple[Manifest | None, str]) -> None:
        """What can be told of a model that is not loaded; a bad package says so before it is started."""
        self._manifest, complaint = offered
        self._arn = self._manifest.model.lookout_vision_model_arn if self._manifest else ""
        if self._status is ModelStatus.STOPPED:
            self._message = complaint


def _offered(record: Record) -> tuple[Manifest | None, str]:
    """The manifest of a record's package; None and a complaint where it is none. Reads files: not under a lock."""
    try:
        return read_package(Path(record.path)).manifest, ""
    except BadPackage as error:
        return None, f"it cannot be started: {error}"
    except OSError as error:
        return None, f"its package cannot be read now: {error.strerror}"


class _CrashedTooOften(Refusal):
    def __init__(self, count: int) -> None:
        super().__init__(f"its worker ended {count} times within {DEATHS_WINDOW:g} s; StartModel tries again")
