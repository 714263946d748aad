"""One model: its state and its calls."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.backends.base import Stage
from agent.errors import (
    BadPackage,
    ModelAlreadyStarted,
    ModelCrashed,
    ModelNotFound,
    ModelNotRunning,
    NotEnoughMemory,
)
from agent.images.detection import Detection
from agent.models.admission import Admission, Caller
from agent.models.device_threshold import IgnoredThreshold, ThresholdFile, remark, threshold_for
from agent.models.figures import ModelFigures, WorkerFigures
from agent.models.keeper import Keeper, ModelSettings, OpenWorker
from agent.models.lifecycle import ALLOWED_MOVES, ModelStatus
from agent.models.memory import needed_memory
from agent.models.registry import Record
from agent.models.request import DetectRequest, checked_image
from agent.models.tally import Tally
from agent.models.worker_post import NoWorkerComes, ServedBy, WorkerPost
from agent.packages.manifest import Manifest
from agent.packages.package import read_package
from agent.workers.handle import ImageToInspect, WorkerDied

log = logging.getLogger(__name__)

SUSPECTS = 16
"""Images that have ended two workers: how many a model remembers, the last ones."""

DRAINING_STEP = 0.25
"""Seconds between two looks at whether a stopping model still has a worker."""


@dataclass(frozen=True)
class ModelDescription:
    """What clients are told of a model."""

    component: str
    arn: str
    status: ModelStatus
    message: str


@dataclass(frozen=True)
class Inspection:
    """The answer to one image, and how it came about."""

    detection: Detection
    served_by: ServedBy
    waited: float
    """Seconds from the call's arrival until a worker took it."""


OnShortage = Callable[[str], None]
"""Told a component that is FAILED for what may be otherwise soon; from the keeper's thread."""
OnChange = Callable[[str, bool], None]
"""Told a component and whether it can answer an image now; returns quickly, and asks the model nothing."""


class ServedModel:
    """A model of the registry. All methods may be called from several threads at once.

    The lock guards moves, never a load or an inference: those take seconds to minutes, and DescribeModel must answer
    meanwhile. From StartModel on a keeper looks after the worker.
    """

    def __init__(
        self,
        record: Record,
        open_worker: OpenWorker,
        settings: ModelSettings,
        on_change: OnChange = lambda component, can_answer: None,
        on_shortage: OnShortage = lambda component: None,
    ) -> None:
        self._record, self._open_worker, self._settings = record, open_worker, settings
        self._on_change, self._on_shortage = on_change, on_shortage
        self._admission = Admission(record.component, settings.slots, settings.queue_length)
        self._lock = threading.RLock()
        self._status = ModelStatus.STOPPED
        self._message = ""
        self._stage: Stage | None = None
        """Of the worker that is being opened."""
        self._again: float | None = None
        """Seconds after which it is started again by itself, as was said when it failed."""
        self._manifest: Manifest | None = None
        self._arn = ""
        self._version = ""
        """Of the component, as it serves now or served last."""
        self._threshold: ThresholdFile | None = None
        """What was set on this device."""
        self._post = WorkerPost(self._tell)
        self._keeper: Keeper | None = None
        self._suspects: deque[bytes] = deque(maxlen=SUSPECTS)
        """Fingerprints of images that have ended two workers of this version."""
        self._tally = Tally()
        self._restarts = 0
        self._closed = False
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
        with self._lock:
            return ModelDescription(self.component, self._arn, self._status, self._full_message())

    def figures(self) -> ModelFigures:
        """What is known of it now; waits for no load and no inference."""
        in_hand, waiting = self._admission.load()
        worker = self._worker_figures()
        with self._lock:
            threshold = threshold_for(self._version, self._threshold)
            if threshold is None and self._manifest is not None:
                threshold = self._manifest.decision.threshold
            return ModelFigures(
                self.component,
                self._status,
                self._stage,
                worker,
                in_hand,
                waiting,
                self._restarts,
                threshold,
                self._tally.counted(),
            )

    def tries_again(self, seconds: float, reason: str = "") -> None:
        """It will be started by itself in so many seconds; `reason`: why it does not run, where it does not say so
        already."""
        with self._lock:
            if self._status in (ModelStatus.STOPPED, ModelStatus.FAILED):
                self._again, self._message = seconds, reason or self._message

    def gives_up(self) -> bool:
        """It is not started by itself any more; whether it was to be."""
        with self._lock:
            again, self._again = self._again, None
            return again is not None

    def count_refusal(self, code: str, reason: str) -> None:
        """An image for this model was refused, here or at the door: status code, and class of the refusal."""
        self._tally.refused(code, reason)

    def use(self, record: Record) -> None:
        """The registry has a new record for this component: serve it from now on, and if running without a gap."""
        offered = _offered(record)
        with self._lock:
            self._record = record
            if self._status in (ModelStatus.STOPPED, ModelStatus.FAILED):
                self._offer(offered)
            if self._keeper is not None:
                self._keeper.use(record)

    def use_threshold(self, threshold: ThresholdFile | None) -> None:
        """Judges by what was set on this device from the next image on; None: by the package's."""
        with self._lock:
            if threshold == self._threshold:
                return
            self._threshold = threshold
        if isinstance(threshold, IgnoredThreshold):
            log.warning("model %s: the threshold set on this device is ignored: %s", self.component, threshold.reason)
        elif threshold is None:
            log.info("model %s: the package's threshold holds again", self.component)
        else:
            log.info(
                "model %s: threshold %.4f set on this device for version %s",
                self.component,
                threshold.threshold,
                threshold.version,
            )

    def use_settings(self, settings: ModelSettings) -> None:
        """Goes by these from now on, with as many slots as before: for those a model is made anew."""
        with self._lock:
            self._settings = settings
            self._admission.allow(settings.queue_length)
            if self._keeper is not None:
                self._keeper.use_settings(settings)

    def start(self) -> None:
        """Begins to load; the model is STARTING when this returns (or FAILED, where there is no thread to be had).

        Raises:
            ModelAlreadyStarted: it is neither STOPPED nor FAILED.
            ModelNotFound: it has left the registry; a worker started now would never be ended.
            NotEnoughMemory: less is free than its worker will take.
        """
        with self._lock:
            if self._closed:
                raise ModelNotFound(self.component)
            if (self._status, ModelStatus.STARTING) not in ALLOWED_MOVES:
                raise ModelAlreadyStarted(self.component, self._status.value)
            self._check_memory()
            self._move(ModelStatus.STARTING, "starting a worker")
            self._suspects.clear()
            keeper = Keeper(self._record, self._open_worker, self._settings, self._post, self)
            try:
                keeper.start()
            except RuntimeError as error:  # no thread to be had
                self._move(ModelStatus.FAILED, f"the device gives the agent no thread for it: {error}")
            else:
                self._keeper = keeper

    def stop(self) -> None:
        """Answers the calls in hand, gives the memory back, and returns STOPPED.

        Raises:
            ModelNotRunning: it is not RUNNING.
        """
        with self._lock:
            if (self._status, ModelStatus.STOPPING) not in ALLOWED_MOVES:
                raise ModelNotRunning(self.component, self._status.value)
            self._move(ModelStatus.STOPPING, "answering the calls in hand")
        self._wait_for_calls_in_hand()
        self._dismiss_keeper()
        with self._lock:
            self._move(ModelStatus.STOPPED, "")
            record = self._record
        offered = _offered(record)
        with self._lock:
            if self._status is ModelStatus.STOPPED and self._record is record:
                self._offer(offered)

    def retire(self) -> None:
        """Ends whatever this model is doing, for good, after its calls in hand: it has left the registry."""
        with self._lock:
            self._leave()
            is_running = self._status is ModelStatus.RUNNING
        if is_running:
            with suppress(ModelNotRunning):  # somebody else stops it
                self.stop()
        self._dismiss_keeper()

    def close(self) -> None:
        """Ends whatever this model is doing, for good and at once: a call in hand does not get its answer."""
        with self._lock:
            self._leave()
        self._dismiss_keeper(at_once=True)

    def detect(self, request: DetectRequest, caller: Caller) -> Inspection:
        """The model's answer.

        Raises:
            ModelNotRunning: it is not RUNNING.
            BadInput: the image or a segment cannot be used.
            QueueFull: it cannot keep up with the calls.
            CallerGone: nobody waits any more.
            ModelCrashed: its worker died twice with this call in hand.
            ImageRefused: two workers have died of this very image before.
            Refusal: the worker refused the call.
        """
        arrived = time.monotonic()
        with self._lock:
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
                    try:
                        with self._post.in_hand(caller, alone=alone) as on_duty:
                            waited = time.monotonic() - arrived
                            watched = self._judged(self._watched(image, alone), on_duty.served_by)
                            detection = on_duty.worker.detect(slot, watched, self._settings.run_time_limit)
                            self._tally.answered(detection, waited, time.monotonic() - arrived)
                            return Inspection(detection, on_duty.served_by, waited)
                    except WorkerDied as death:
                        reason = str(death)
                        log.warning("model %s: a call was in hand when its worker died", self.component)
                        if alone:
                            self._suspect(death)
                    except NoWorkerComes:
                        if self._closed:  # it may still be RUNNING: then the agent ends
                            raise ModelNotFound(self.component) from None
                        # Still RUNNING: its keeper is about to tell why it is not.
                        status = ModelStatus.FAILED if self._status is ModelStatus.RUNNING else self._status
                        raise ModelNotRunning(self.component, status.value) from None
        raise ModelCrashed(self.component, reason)

    def _watched(self, image: ImageToInspect, is_second_try: bool) -> ImageToInspect:
        """Images are told apart only while one is under suspicion."""
        if not is_second_try and not self._suspects:
            return image
        return replace(image, refuse=tuple(self._suspects), tell_image=is_second_try)

    def _judged(self, image: ImageToInspect, served_by: ServedBy) -> ImageToInspect:
        """With the threshold of this device, where the worker on duty serves the version it was measured for."""
        threshold = threshold_for(served_by.version, self._threshold)
        return image if threshold is None else replace(image, threshold=threshold)

    def _suspect(self, death: WorkerDied) -> None:
        if death.image is not None:  # else the worker had not got as far as its pixels
            log.error("model %s: an image has ended two workers; it is refused from now on", self.component)
            self._suspects.append(death.image)

    # --- what the keeper tells, from its thread ---

    def serves(self, manifest: Manifest, served_by: ServedBy) -> None:
        with self._lock:
            if manifest != self._manifest:  # another model, which may well take what the last one could not
                self._suspects.clear()
            self._manifest, self._arn = manifest, manifest.model.lookout_vision_model_arn
            self._version, self._stage = served_by.version, None
            if self._status is ModelStatus.STARTING:
                self._move(ModelStatus.RUNNING, str(served_by))
            else:
                self._message = str(served_by)

    def progresses(self, text: str, stage: Stage, beside: str = "") -> None:
        with self._lock:
            if self._status is ModelStatus.STARTING:
                self._message, self._stage = text, stage
            elif self._status is ModelStatus.RUNNING and beside:
                self._message, self._stage = f"{beside}: {text}", stage

    def says(self, message: str) -> None:
        with self._lock:
            self._message, self._stage = message, None

    def restarts(self) -> None:
        self._restarts += 1

    def leaves(self, reason: str, *, may_pass: bool) -> None:
        with self._lock:
            has_failed = bool(reason) and self._status in (ModelStatus.STARTING, ModelStatus.RUNNING)
            if has_failed:
                self._move(ModelStatus.FAILED, reason)
        if has_failed and may_pass:
            self._on_shortage(self.component)

    # --- moves and words ---

    def _worker_figures(self) -> WorkerFigures | None:
        on_duty = self._post.on_duty
        if on_duty is None or on_duty.ended.is_set():
            return None
        return WorkerFigures(on_duty.served_by, on_duty.load_seconds, on_duty.worker.memory())

    def _wait_for_calls_in_hand(self) -> None:
        """Ends: no new call is admitted, each has a time limit, and a worker that is being replaced is not waited for
        longer than one image may take."""
        last_staffed = time.monotonic()
        while not self._admission.wait_until_idle(DRAINING_STEP):
            if self._post.is_staffed:
                last_staffed = time.monotonic()
            elif time.monotonic() - last_staffed > self._settings.run_time_limit:
                return  # the keeper gives up, and tells the calls

    def _dismiss_keeper(self, *, at_once: bool = False) -> None:
        # Not under the lock: the keeper's thread tells us things.
        if self._keeper is not None:
            self._keeper.leave(at_once=at_once)

    def _check_memory(self) -> None:
        """Better a refusal with figures now than the kernel's choice of what to kill later."""
        if self._manifest is not None:  # else it fails with a better reason
            needed, available = needed_memory(self._manifest), self._settings.available_memory()
            if needed > available:
                raise NotEnoughMemory(self.component, needed, available)

    def _full_message(self) -> str:
        if self._again is None:
            return self._message + self._remark()
        return f"{self._message.rstrip('.')}; it is tried again in {self._again:g} s"

    def _remark(self) -> str:
        """What goes after the message of a model that runs, where a threshold was set on this device."""
        if self._status is not ModelStatus.RUNNING or self._manifest is None:
            return ""
        said = remark(self._version, self._manifest.decision.threshold, self._threshold)
        return said and f"; {said}"

    def _move(self, to: ModelStatus, message: str) -> None:
        """The one place where the state changes; the lock is held."""
        assert (self._status, to) in ALLOWED_MOVES, (self._status, to)
        log.info("model %s: %s -> %s%s", self.component, self._status.value, to.value, message and f": {message}")
        self._status, self._message = to, message
        self._again = self._stage = None
        self._tell()

    def _leave(self) -> None:
        """From now on this model has no say: while it drains, one that came back under its name speaks."""
        if not self._closed:
            self._on_change(self.component, False)
            self._closed = True

    def _tell(self) -> None:
        with self._lock:  # so that what is told last is what holds
            if not self._closed:
                self._on_change(self.component, self._status is ModelStatus.RUNNING and self._post.is_staffed)

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
