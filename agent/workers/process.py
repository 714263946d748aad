"""The parent's handle on one worker: starts it, hands it calls, notices its end."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout  # on Python 3.10 not the built-in one
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

import agent
from agent.backends.base import BackendSettings, OnProgress, RunsOn
from agent.errors import LoadTimedOut
from agent.images.detection import Detection
from agent.workers.handle import ImageToInspect, OpenSegment, WorkerDied
from agent.workers.link import Answer, Detect, Ends, InHand, Link, Message, Open, Opened, Progress, Refused, refusal_in
from agent.workers.slots import make_slots

log = logging.getLogger(__name__)

MAX_LINE = 4096
"""Bytes of a worker's output that become one line of the log."""
CLOSE_LIMIT = 1.0
"""Seconds a worker has to leave by itself after its link has ended; then it is killed."""


def _block_signals() -> None:
    # Children inherit what their thread blocks: no SIGTERM meets a worker before it can ignore it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


# PR_SET_PDEATHSIG fires when the thread that started a child ends: all are started by one that lives as long as we.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner", initializer=_block_signals)


class _Call:
    """A call that the worker has in hand."""

    def __init__(self) -> None:
        self.answer: Future[Answer] = Future()
        self._image: bytes | None = None

    def take(self, message: Answer | Refused | InHand) -> None:
        if isinstance(message, InHand):
            self._image = message.fingerprint
        elif isinstance(message, Answer):
            self.answer.set_result(message)
        else:
            self.answer.set_exception(refusal_in(message))

    def died(self, what: str) -> WorkerDied:
        death = WorkerDied(what)
        death.image = self._image
        return death


class WorkerProcess:
    """A worker process for one package."""

    def __init__(
        self,
        folder: Path,
        settings: BackendSettings,
        slots: int,
        on_progress: OnProgress,
        on_end: Callable[[], None],
        memory: int,
    ) -> None:
        """Starts the process. `on_progress` and `on_end` are called from a thread of this handle.

        `memory`: bytes that loading the model may take.
        """
        self._on_progress, self._on_end = on_progress, on_end
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._next_call = 0
        self._ended = False
        self.why_ended = WorkerDied.UNEXPECTEDLY
        self._end_told = threading.Event()
        self._opened: Future[RunsOn] = Future()
        self._waits = False
        """Whether it waits for its turn to build an engine."""
        self._works_since = time.monotonic()
        """On opening the model, since it was started or last waited."""
        try:
            self._begin(Open(str(folder), settings, slots, memory))
        except RuntimeError as error:  # no thread to be had: the system's refusal, as if there were no process
            raise OSError(errno.EAGAIN, str(error)) from error

    def _begin(self, order: Open) -> None:
        with ExitStack() as closed_here:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            closed_here.callback(theirs.close)
            self._link = Link(ours)
            with ExitStack() as undone:  # what must not stay behind where a step fails
                undone.callback(self._link.close)
                self._slots, descriptors = make_slots(order.slots)
                for descriptor in descriptors:
                    closed_here.callback(os.close, descriptor)
                self._process = _spawner.submit(_start, theirs.fileno()).result()
                undone.callback(self._process.wait)
                undone.callback(self._process.kill)
                self._link.send(order, descriptors)
                for target, name in ((self._receive, "worker-link"), (self._read_output, "worker-output")):
                    threading.Thread(target=target, name=name, daemon=True).start()
                undone.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_open(self, limit: float) -> RunsOn:
        try:
            while (left := self._time_left_to_open(limit)) > 0:
                with suppress(FutureTimeout):
                    return self._opened.result(left)
            self._process.kill()
            raise LoadTimedOut(limit)
        finally:
            # As with a call (see `_detect`): a reason kept here would keep this worker's slots.
            self._opened = Future()

    def _time_left_to_open(self, limit: float) -> float:
        # What other models take to build their engines is no fault of this one.
        return limit if self._waits else self._works_since + limit - time.monotonic()

    def detect(self, slot: int, image: ImageToInspect, limit: float) -> Detection:
        try:
            return self._detect(slot, image, limit)
        except WorkerDied:
            # A second try must not find this worker again, so not before everybody has been told of its end.
            self._end_told.wait()
            raise

    def _detect(self, slot: int, image: ImageToInspect, limit: float) -> Detection:
        layout, segments = image.layout, []
        if isinstance(image.pixels, OpenSegment):
            segments.append(image.pixels)
        else:
            memoryview(self._slots[slot].image)[: layout.size] = image.pixels
        if image.mask is not None:
            segments.append(image.mask)
        call = _Call()
        with self._lock:
            number = self._next_call
            self._next_call += 1
            self._calls[number] = call
        order = Detect(
            number,
            slot,
            layout.width,
            layout.height,
            layout.row_bytes,
            image.pixels.offset if isinstance(image.pixels, OpenSegment) else None,
            image.mask.offset if image.mask else None,
            image.refuse,
            image.tell_image,
            image.threshold,
        )
        try:
            if self._ended:
                raise WorkerDied
            self._link.send(order, [segment.descriptor for segment in segments])
            return self._detection(call.answer.result(limit), slot, image)
        except FutureTimeout as error:  # a run cannot be stopped from outside, but its process can
            log.error("worker %d: a call ran longer than %g s; the worker is replaced", self.pid, limit)
            self._process.kill()
            raise call.died(f"its worker was ended after {limit:g} s (run_time_limit)") from error
        except (OSError, WorkerDied) as error:  # the link has ended
            raise call.died(self.why_ended) from error
        finally:
            with self._lock:
                self._calls.pop(number, None)
            # An exception of this call names this frame, which names the call, which names the exception: its pixels
            # and this worker's slots would stay until the garbage collector comes by.
            del call

    def memory(self) -> int:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        # proc(5). Slots are shared memory, and not counted: they are as large as the largest images have been.
        anonymous = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
        return int(anonymous[1]) * 1024 if anonymous else 0

    def close(self) -> None:
        self._link.shutdown()
        self._wait_for_process()
        self._end_told.wait()  # by the thread that receives: only then link and descriptors are given back too

    def _wait_for_process(self) -> None:
        """Its link has ended, so it is on its way out, or of no use any more."""
        try:
            self._process.wait(CLOSE_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _detection(self, answer: Answer, slot: int, image: ImageToInspect) -> Detection:
        mask = None
        if answer.has_mask and image.mask is None:
            # Copied out: the slot belongs to the next call as soon as this one is answered.
            layout = image.layout
            content = bytes(memoryview(self._slots[slot].mask)[: layout.packed_size])
            mask = np.frombuffer(content, np.uint8).reshape(layout.height, layout.width, 3)
        return Detection(
            answer.is_anomalous, answer.confidence, answer.score, answer.threshold, answer.regions, mask, answer.times
        )

    def _receive(self) -> None:
        try:
            while (frame := self._link.receive()) is not None:
                self._take(frame[0])
        finally:
            self._end()

    def _read_output(self) -> None:
        output = self._process.stdout
        assert output is not None
        with output:
            while line := output.readline(MAX_LINE):
                text = line.decode(errors="replace").rstrip()
                log.warning("worker %d: %s", self.pid, text.encode("unicode_escape").decode())

    def _take(self, message: Message) -> None:
        if isinstance(message, Answer | Refused | InHand) and message.call is not None:
            with self._lock:
                call = self._calls.get(message.call)
            if call is not None:  # else it has stopped waiting
                call.take(message)
        elif isinstance(message, Refused):
            self._opened.set_exception(refusal_in(message))
        elif isinstance(message, Opened):
            self._opened.set_result(message.runs_on)
        elif isinstance(message, Progress):
            if self._waits:  # until now
                self._works_since = time.monotonic()
            self._waits = message.stage == "waiting"
            self._on_progress(message.text, message.stage)
        elif isinstance(message, Ends):
            log.error("worker %d: %s", self.pid, message.reason)
            self.why_ended = message.reason

    def _end(self) -> None:
        self._wait_for_process()
        with self._lock:
            self._ended = True
            left = list(self._calls.values())
        for call in left:
            if not call.answer.done():
                call.answer.set_exception(WorkerDied())
        if not self._opened.done():
            why = self.why_ended
            what = "its worker ended while it was loading the model" if why == WorkerDied.UNEXPECTEDLY else why
            self._opened.set_exception(WorkerDied(what))
        self._link.close()
        try:
            self._on_end()
        finally:
            self._end_told.set()


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    # Secrets of a Greengrass component are no business of a model.
    environment = {
        name: value for name, value in os.environ.items() if name != "SVCUID" and not name.startswith("AWS_")
    }
    # Pillow gives freed memory back to the system, and takes it page by page for the next image, unless it may keep
    # blocks (of 16 MiB): a 4096 x 3000 image is then taken over four times as fast.
    environment.setdefault("PILLOW_BLOCKS_MAX", "8")
    # NumPy's matrix products would start threads of their own, one per core, which spin between two images.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The worker runs the same code as we do, wherever it was imported from, and nothing that lies in the current
    # folder: `python -m` looks there first, so it starts in one where nobody but root puts anything.
    paths = [str(Path(agent.__file__).resolve().parent.parent)]
    paths += [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "agent.workers.loop", str(descriptor), str(os.getpid())]
    return subprocess.Popen(
        command,
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        # Read by us: whatever a runtime prints becomes log lines, and never waits for who reads our own output.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd="/",
    )
