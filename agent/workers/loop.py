"""The worker's main: opens one package, answers calls until the link ends.

    python -m agent.workers.loop LINK_DESCRIPTOR PARENT_PID

A worker ignores SIGTERM and SIGINT (Greengrass signals children first; the parent drains them), and never outlives its
parent: the kernel kills it, and the end of the link ends it too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from agent.allocator import keep_freed_memory
from agent.errors import GpuFailed, ImageRefused, Refusal, Unexpected
from agent.images.bitmap import BitmapLayout, fingerprint
from agent.images.detection import StageTimes
from agent.images.shared_memory import read_segment, write_segment
from agent.packages.package import read_package
from agent.pipeline import Pipeline, TestedPipeline, open_tested
from agent.workers.link import Answer, Detect, Ends, InHand, Link, Open, Opened, Progress, Refused, refused
from agent.workers.memory_limit import limited_memory
from agent.workers.slots import Slot, map_slots

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
GPU_FAILED = 3
"""Exit code of a worker that can use its GPU no more."""
OOM_SCORE_ADJ = 500
"""When memory runs out the kernel takes a worker, which is replaced, and not the agent."""


def main() -> None:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent)
    _be_the_first_to_go()
    keep_freed_memory()
    link = Link(socket.socket(fileno=descriptor))
    first = link.receive()
    if first is None or not isinstance(first[0], Open):
        return
    try:
        with limited_memory(first[0].memory):
            opened = _open(first[0], link)
    except GpuFailed as failure:
        _end(link, failure)
    except Refusal as refusal:
        link.send(refused(None, refusal))
        return
    except BrokenPipeError:  # the model was stopped, or its update replaced, while it was loaded
        return
    slots = _slots(first[1])
    link.send(Opened(opened.runs_on))
    _answer_calls(link, opened.pipeline, slots)


def _open(order: Open, link: Link) -> TestedPipeline:
    link.send(Progress("verifying and loading the model"))
    package = read_package(Path(order.folder))
    return open_tested(package, order.settings, lambda text, stage="loading": link.send(Progress(text, stage)))


def _slots(descriptors: list[int]) -> list[Slot]:
    slots = map_slots(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)  # the mapping stays (it holds a descriptor of its own)
    return slots


def _answer_calls(link: Link, pipeline: Pipeline, slots: list[Slot]) -> None:
    # As many threads as slots: one call preprocesses while the other runs. Each takes its calls from the link itself:
    # a thread that received for the others would cost every call a change of threads.
    threads = [
        threading.Thread(target=_answer_next_calls, args=(link, pipeline, slots), name=f"call-{number}")
        for number in range(len(slots))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer_next_calls(link: Link, pipeline: Pipeline, slots: list[Slot]) -> None:
    while (frame := link.receive()) is not None:
        call, descriptors = frame
        if isinstance(call, Detect):
            _answer(link, pipeline, slots[call.slot], call, descriptors)
    # The parent drains before it ends the link, so nobody waits for what still runs.
    os._exit(0)


def _answer(link: Link, pipeline: Pipeline, slot: Slot, call: Detect, descriptors: list[int]) -> None:
    reply: Answer | Refused
    try:
        reply = _detect(link, pipeline, slot, call, descriptors)
    except GpuFailed as failure:
        _end(link, failure)
    except Refusal as refusal:
        reply = refused(call.call, refusal)
    except Exception:
        traceback.print_exc()
        reply = refused(call.call, Unexpected())
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    try:
        link.send(reply)
    except OSError:
        os._exit(0)  # the parent is gone


def _end(link: Link, failure: GpuFailed) -> NoReturn:
    """At once and without an answer: whatever this process would still answer may be wrong. A new worker, which has to
    pass the self-test first, is asked again."""
    with suppress(OSError):  # the parent is gone
        link.send(Ends(f"its worker ended: the GPU failed ({failure.reason})"))
    os._exit(GPU_FAILED)


def _detect(link: Link, pipeline: Pipeline, slot: Slot, call: Detect, descriptors: list[int]) -> Answer:
    began = time.perf_counter()
    layout = BitmapLayout(call.width, call.height, call.row_bytes)
    left = iter(descriptors)
    image = memoryview(slot.image)[: layout.size]
    if call.segment_offset is not None:
        # Copied once, here: what the client writes from now on changes nothing.
        read_segment(next(left), call.segment_offset, image)
    pixels = layout.pixels(image)
    if call.refuse or call.tell_image:
        _look_closely(link, call, pixels)
    reading = time.perf_counter() - began

    mask = memoryview(slot.mask)[: layout.packed_size]
    detection = pipeline.detect(pixels, mask, call.threshold)

    began = time.perf_counter()
    if call.mask_offset is not None and detection.mask is not None:
        write_segment(next(left), call.mask_offset, mask)
    writing = time.perf_counter() - began
    times = detection.times
    return Answer(
        call.call,
        detection.is_anomalous,
        detection.confidence,
        detection.score,
        detection.threshold,
        detection.regions,
        detection.mask is not None,
        StageTimes(times.preprocessing + reading, times.inferring, times.postprocessing + writing),
    )


def _look_closely(link: Link, call: Detect, pixels: NDArray[np.uint8]) -> None:
    """Only while an image is under suspicion: a fingerprint of every image would cost too much."""
    image = fingerprint(pixels)
    if image in call.refuse:
        raise ImageRefused
    if call.tell_image:
        link.send(InHand(call.call, image))


def _die_with(parent: int) -> None:
    # The signal comes when the *thread* that started us ends; the parent keeps one thread for that.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        sys.exit(1)


def _be_the_first_to_go() -> None:
    with suppress(OSError):  # not on every system; it is a precaution only
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))


if __name__ == "__main__":
    main()
