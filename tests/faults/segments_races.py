"""Rows B: a client that changes its segment while the agent reads or writes it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import grpc

from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults import segments_storm
from tests.faults.row import ANY_SIZE, CLASSIFIER, Run, row
from tests.faults.segments_support import (
    ANOMALY,
    BRIGHT,
    DARK,
    SIZE,
    Reply,
    ask,
    from_clients,
    handle,
    image_in,
    mask_in,
    must_answer,
    no_worker_dies,
    path_of,
)
from tests.support.agent_process import inline_request, segment

CLIENTS = 3


@row("B7", "a segment shrinks or is replaced while it is read: no crash", unit="requests", full=1_000_000, short=300)
def shrinks_while_it_is_read(run: Run) -> None:
    def go(stub: EdgeAgentStub) -> None:
        for number in run.steps():
            if number % 8 == 0:  # what half an image would be completed with
                assert must_answer(run, stub, inline_request(ANY_SIZE, BRIGHT)).areas == {"background": 1}
            check_whole_or_refused(run, ask(run, stub, image_in(handle(name))))

    with segment(DARK.tobytes()) as name, no_worker_dies(run.agent), storm(run, "shrink", name):
        from_clients(run, CLIENTS, go)
    assert run.outcomes["INVALID_ARGUMENT"] > 0, run.outcomes


@row("B8", "a segment shrinks or is replaced while its mask is written", unit="requests", full=1_000_000, short=300)
def shrinks_while_it_is_written(run: Run) -> None:
    def go(stub: EdgeAgentStub) -> None:
        for _ in run.steps():
            check_whole_or_refused(run, ask(run, stub, mask_in(handle(name))))

    with segment(bytes(SIZE)) as name:
        with no_worker_dies(run.agent), storm(run, "shrink", name):
            from_clients(run, CLIENTS, go)
        must_answer(run, run.agent.stub(), mask_in(handle(name)))
        assert path_of(name).read_bytes() == bytes(ANOMALY) * (SIZE // 3)
    assert run.outcomes["INVALID_ARGUMENT"] > 0, run.outcomes


def check_whole_or_refused(run: Run, reply: Reply) -> None:
    """The answer to a dark image, all of it, or a refusal."""
    if reply.is_ok:
        assert reply.areas == {"background": 0, "anomaly": 1}, reply
    else:
        assert reply.code is grpc.StatusCode.INVALID_ARGUMENT, reply
        if "became shorter during the call" in reply.sentence:
            run.saw("of these after the first look")


@row("B11", "pixels change during the inference: the answer to one image", unit="requests", full=100_000, short=300)
def pixels_change(run: Run) -> None:
    """One byte changes between 0 and 255, so that an image is never read half changed."""
    pixels = BRIGHT.copy()
    pixels[0, 0] = (0, 128, 128)  # dark with the byte at 0, bright with 255
    answers = set()

    def go(stub: EdgeAgentStub) -> None:
        for number in run.steps():
            component = ANY_SIZE if number % 2 else CLASSIFIER
            result = must_answer(run, stub, image_in(handle(name), component=component)).result
            assert result.is_anomalous is (result.anomaly_score >= result.anomaly_threshold)
            answers.add((component, round(result.anomaly_score, 4)))
            if component == ANY_SIZE:
                first, dark = result.anomaly_mask.byte_data[:3], result.is_anomalous
                assert first == (bytes(ANOMALY) if dark else b"\xff\xff\xff")
                assert [anomaly.name for anomaly in result.anomalies] == ["background", "anomaly"][: 1 + dark]

    with segment(pixels.tobytes()) as name, no_worker_dies(run.agent), storm(run, "flip", name):
        from_clients(run, CLIENTS, go)
    brightness = [(value + 2 * 128) / 3 / 255 for value in segments_storm.FLIPPED]
    of_values = {(CLASSIFIER, value / 255) for value in segments_storm.FLIPPED}
    assert answers == of_values | {(ANY_SIZE, round(1 - value, 4)) for value in brightness}


@contextlib.contextmanager
def storm(run: Run, kind: str, name: str) -> Iterator[None]:
    """Another process changes the segment all the time."""
    command = [sys.executable, "-I", segments_storm.__file__, kind, str(path_of(name))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            yield
        finally:
            made, _ = process.communicate()  # the end of its input ends it
    assert process.returncode == 0
    run.figures["changes meanwhile"] = made.strip()
