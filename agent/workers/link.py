"""What passes between the agent and a worker: small typed frames, and descriptors, over a socketpair.

Frames are msgpack (no pickle: nothing in a frame is ever executed) and carry no pixels: a SEQPACKET frame of 212 kB
passes, one of 300 kB does not. Pixels travel in memory without a name (`agent.workers.slots`) or in the client's own
segment, whose descriptor goes along by SCM_RIGHTS.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from agent import errors
from agent.backends.base import BackendSettings, RunsOn, Stage
from agent.images.detection import Region, StageTimes

MAX_FRAME = 96 * 1024
"""Bytes; the longest frame is an answer with 100 regions, each name 200 characters of 4 bytes."""
MAX_SENTENCE = 2000
"""Characters of a refusal's sentence; it may quote a runtime, or the names in a graph."""
MAX_DESCRIPTORS = 64
"""In one frame: two for each slot of a worker."""


class Open(msgspec.Struct, frozen=True, tag=True):
    """Parent to worker, first frame: open this package. Descriptors: image and mask memory of each slot."""

    folder: str
    settings: BackendSettings
    slots: int
    memory: int
    """Bytes that loading may take."""


class Detect(msgspec.Struct, frozen=True, tag=True):
    """Parent to worker: inspect an image. Descriptors: the image's segment where it has an offset, then the mask's."""

    call: int
    slot: int
    width: int
    height: int
    row_bytes: int
    segment_offset: int | None
    """Bytes into the client's segment; None where the pixels lie in the slot's image memory."""
    mask_offset: int | None
    """Bytes into the client's segment; None where the mask is wanted in the slot's mask memory."""
    refuse: tuple[bytes, ...] = ()
    """Fingerprints of images that are not inspected: each has ended workers before."""
    tell_image: bool = False
    """Whether to say which image it is before the model runs: should the worker die, it was this one."""
    threshold: float | None = None
    """0..1, to judge by in place of the package's."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: what it is doing while it opens."""

    text: str
    stage: Stage = "loading"


class Opened(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: the package is verified, loaded, warmed up and self-tested."""

    runs_on: RunsOn


class Ends(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: why it is about to end; calls in hand get no answer."""

    reason: str


class InHand(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: the image of this call is the next that the model sees."""

    call: int
    fingerprint: bytes


class Answer(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: the detection of a call, its mask in the slot's memory or in the client's segment."""

    call: int
    is_anomalous: bool
    confidence: float
    score: float
    threshold: float
    regions: tuple[Region, ...]
    has_mask: bool
    times: StageTimes


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent: a refusal of one call, or of the package where there is no call."""

    call: int | None
    kind: str
    """Name of the refusal's class in `agent.errors`."""
    sentence: str


Message = Open | Detect | Progress | Opened | Ends | InHand | Answer | Refused


class Link:
    """One end of the socketpair. From several threads at once."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = threading.Lock()
        self._is_closed = False
        self._decoder = msgspec.msgpack.Decoder(Message)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Raises BrokenPipeError or ConnectionResetError where the other end is gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        content = msgspec.msgpack.encode(message)
        # Never after `close`: the number of our descriptor may be somebody else's by then.
        with self._sending:
            if self._is_closed:
                raise BrokenPipeError
            # One sendmsg is one frame, whole or not at all.
            self._end.sendmsg([content], rights)

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next frame and its descriptors (the caller closes them); None when the other end is gone."""
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            # Not recv_fds: it leaves descriptors inheritable.
            content, ancillary, _, _ = self._end.recvmsg(MAX_FRAME, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None
        descriptors: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % received.itemsize])
                descriptors.extend(received)
        if not content:
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        return self._decoder.decode(content), descriptors

    def shutdown(self) -> None:
        """Ends the link for both ends; a thread that receives gets None."""
        with suppress(OSError):  # the other end is gone already
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.shutdown()  # who waits to send gives up
        with self._sending:
            self._is_closed = True
            self._end.close()


def refused(call: int | None, refusal: errors.Refusal) -> Refused:
    """`refusal` as a frame, a very long sentence shortened."""
    sentence = str(refusal)
    if len(sentence) > MAX_SENTENCE:
        sentence = sentence[: MAX_SENTENCE - 3] + "..."
    return Refused(call, type(refusal).__name__, sentence)


def refusal_in(frame: Refused) -> errors.Refusal:
    """The refusal of a frame, of the same class and with the same sentence."""
    kind = getattr(errors, frame.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.Refusal)):
        return errors.Unexpected()
    refusal = kind.__new__(kind)
    Exception.__init__(refusal, frame.sentence)
    return refusal
