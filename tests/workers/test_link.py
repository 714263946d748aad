"""What passes between the agent and a worker: frames, descriptors, refusals."""

from __future__ import annotations

import fcntl
import inspect
import os
import socket
from collections.abc import Iterator

import pytest

from agent import errors
from agent.backends.base import BackendSettings, RunsOn
from agent.images.detection import Region, StageTimes
from agent.workers.link import (
    MAX_DESCRIPTORS,
    MAX_SENTENCE,
    Answer,
    Detect,
    Ends,
    Link,
    Message,
    Open,
    Opened,
    Progress,
    Refused,
    refusal_in,
    refused,
)


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = (Link(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield ours, theirs
    ours.close()
    theirs.close()


ANSWER = Answer(
    7, True, 0.75, 0.75, 0.5, (Region("background", 0.9, "#FFFFFF"), Region("dent", 0.1, "#23A436")), True, StageTimes()
)


@pytest.mark.parametrize(
    "message",
    [
        Open("/packages/bolt", BackendSettings(4, "cuda", gpu_memory_limit=1 << 30), 2),
        Detect(2**40, 1, 4096, 64, 12288, None, None),
        Detect(0, 0, 64, 64, 192, 2**62, 5),
        Detect(1, 0, 64, 64, 192, None, None, (), False, 0.62),
        Progress("building TensorRT engine, 40 %"),
        Opened(RunsOn("ONNX Runtime 1.23 on CPU", "CPU")),
        Opened(RunsOn("ONNX Runtime 1.23", "CPU", "cuda", "There is no GPU.")),
        Ends("its worker ended: the GPU failed"),
        ANSWER,
        Answer(1, False, 1.0, 0.0, 0.5, (), False, StageTimes()),
        Refused(None, "BadManifest", "manifest.json: it is odd."),
        Refused(3, "SegmentTruncated", 'a "quoted" sentence, Größe \N{GREEK SMALL LETTER ALPHA}'),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_kind_of_frame_arrives_as_it_was_sent(ends: tuple[Link, Link], message: Message) -> None:
    ours, theirs = ends
    ours.send(message)
    assert theirs.receive() == (message, [])


def test_frames_arrive_whole_and_in_order_in_both_directions(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    for number in range(50):
        ours.send(Progress(str(number) * 100))
        theirs.send(Progress(str(number)))
    assert [theirs.receive() for _ in range(50)] == [(Progress(str(number) * 100), []) for number in range(50)]
    assert [ours.receive() for _ in range(50)] == [(Progress(str(number)), []) for number in range(50)]


def test_descriptors_arrive_in_order_open_and_closed_on_exec(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    sent = [os.memfd_create(f"number {number}") for number in range(MAX_DESCRIPTORS)]
    for number, descriptor in enumerate(sent):
        os.write(descriptor, bytes([number]))
        os.set_inheritable(descriptor, True)
    ours.send(Open("/p", BackendSettings(), len(sent) // 2), sent)
    for descriptor in sent:
        os.close(descriptor)
    received = theirs.receive()
    assert received is not None
    message, descriptors = received
    try:
        assert message == Open("/p", BackendSettings(), len(sent) // 2)
        assert [os.pread(descriptor, 2, 0) for descriptor in descriptors] == [bytes([n]) for n in range(len(sent))]
        assert all(fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for descriptor in descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.parametrize("letter", ["x", "é", "\N{CJK UNIFIED IDEOGRAPH-68C0}", "\N{GRINNING FACE}"])
def test_an_answer_with_100_regions_of_200_character_names_fits_in_a_frame(
    ends: tuple[Link, Link], letter: str
) -> None:
    regions = tuple(Region(letter * 200, 0.01, "#23A436") for _ in range(100))
    answer = Answer(2**62, True, 1.0, 1.0, 0.5, regions, True, StageTimes())
    ours, theirs = ends
    ours.send(answer)
    assert theirs.receive() == (answer, [])


def test_the_end_of_the_other_side_is_none_and_sending_to_it_an_os_error() -> None:
    ours, theirs = (Link(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    ours.send(Progress("unread"))
    theirs.close()
    assert ours.receive() is None
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ours.send(Progress("to nobody"))
    ours.close()


def test_shutting_down_ends_both_sides_after_what_was_sent_and_may_be_repeated(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    ours.send(Progress("last words"))
    ours.shutdown()
    ours.shutdown()
    assert ours.receive() is None
    assert theirs.receive() == (Progress("last words"), [])
    assert theirs.receive() is None
    theirs.close()
    theirs.shutdown()


def _refusals() -> list[errors.Refusal]:
    made = []
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.Refusal):
            refusal = kind.__new__(kind)
            Exception.__init__(refusal, f'The sentence of a {kind.__name__}, 17 x 4 "quoted".')
            made.append(refusal)
    return made


@pytest.mark.parametrize("refusal", _refusals(), ids=lambda refusal: type(refusal).__name__)
def test_a_refusal_crosses_with_its_class_and_sentence(ends: tuple[Link, Link], refusal: errors.Refusal) -> None:
    ours, theirs = ends
    ours.send(refused(5, refusal))
    received = theirs.receive()
    assert received is not None and isinstance(received[0], Refused)
    assert received[0].call == 5
    arrived = refusal_in(received[0])
    assert type(arrived) is type(refusal)
    assert str(arrived) == str(refusal)


@pytest.mark.parametrize("kind", ["NoSuchThing", "annotations", "_quoted", "Exception", "", "__builtins__"])
def test_what_is_no_refusal_becomes_unexpected(kind: str) -> None:
    refusal = refusal_in(Refused(1, kind, "a secret of the other side"))
    assert type(refusal) is errors.Unexpected
    assert "secret" not in str(refusal)


def test_a_refusal_of_another_room_becomes_unexpected() -> None:
    class OfAnotherRoom(errors.Refusal):
        pass

    assert type(refusal_in(refused(1, OfAnotherRoom("words")))) is errors.Unexpected


def test_a_sentence_without_end_is_shortened_and_passes(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    names = ", ".join(f"'output{number}'" for number in range(100_000))
    ours.send(refused(None, errors.ModelDoesNotFit(f"it gives {names}")))
    received = theirs.receive()
    assert received is not None and isinstance(received[0], Refused)
    sentence = str(refusal_in(received[0]))
    assert len(sentence) == MAX_SENTENCE
    assert sentence.startswith("The model does not fit its manifest: it gives 'output0', 'output1'")
    assert sentence.endswith("...")
