"""DetectAnomalies requests, their pixels taken out without a copy.

protobuf copies the pixels of a message twice. But such a message is nearly all one field: that field is found here and
handed on as a view, and protobuf parses the few bytes around it, so its rules for everything else (fields that come
twice, fields it does not know, text that is no UTF-8) hold because it is protobuf that applies them. A message in any
but the plain shape goes to protobuf whole.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from agent.errors import NoRequest, Refusal, TooManyBytes
from agent.wire import edge_agent_pb2 as wire

WORTH_IT = 32 * 1024
"""Bytes; protobuf is as quick with messages below."""
MOST_FIELDS = 16
"""Walked over before protobuf takes a message whole; the plain shape has three, and three in its bitmap."""
BITMAP, BYTE_DATA, HANDLE = 2, 3, 4
"""Numbers of `DetectAnomaliesRequest.bitmap`, and in it of the two that exclude each other."""
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types; what has another one is left to protobuf. Source: protobuf.dev, "Encoding"."""


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it came in."""

    message: wire.DetectAnomaliesRequest
    """Its `bitmap.byte_data` is of no account: `pixels` holds what the client sent."""
    pixels: bytes | memoryview | None
    """None where the client sent none in the message."""


class RequestParser:
    """gRPC's deserializer of DetectAnomalies. Never raises (the client would get INTERNAL): it hands on a refusal."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: how many bytes all messages that are alive may have together."""
        self._most, self._held = most_bytes, 0
        self._lock = threading.RLock()  # the garbage collector may give back while this very thread takes

    def allow(self, most_bytes: int) -> None:
        """So many bytes from now on; messages that are alive stay so."""
        self._most = most_bytes

    @property
    def held(self) -> int:
        """Bytes of the messages that are alive."""
        return self._held

    def __call__(self, content: bytes) -> ReceivedRequest | Refusal:
        size = len(content)
        if size < WORTH_IT:
            return parse(content)
        with self._lock:
            if self._held + size > self._most:
                return TooManyBytes(self._most)
            self._held += size
        received: ReceivedRequest | Refusal | None = None
        try:
            received = parse(content)
        finally:
            if isinstance(received, ReceivedRequest):
                # For as long as somebody holds the pixels, whatever becomes of the call.
                weakref.finalize(received, self._give_back, size).atexit = False
            else:
                self._give_back(size)
        return received

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size


def parse(content: bytes, worth_it: int = WORTH_IT) -> ReceivedRequest | Refusal:
    """What protobuf would make of `content`, or a refusal where it would refuse."""
    found = _find_pixels(content) if len(content) >= worth_it else None
    try:
        if found is not None:
            around, pixels = found
            return ReceivedRequest(wire.DetectAnomaliesRequest.FromString(around), pixels)
        message = wire.DetectAnomaliesRequest.FromString(content)
    except DecodeError:
        return NoRequest()
    has_pixels = message.bitmap.WhichOneof("data") == "byte_data"
    return ReceivedRequest(message, message.bitmap.byte_data if has_pixels else None)


@dataclass(frozen=True)
class _Field:
    number: int
    wire_type: int
    start: int
    """Of its tag."""
    value: int
    """Where its value starts; behind the length where it has one."""
    end: int


def _find_pixels(content: bytes) -> tuple[bytes, memoryview] | None:
    """The message without its pixels, and the pixels; None where it has not the plain shape."""
    bitmap = _only(_fields(content, 0, len(content)), BITMAP)
    if bitmap is None:
        return None
    inside = _fields(content, bitmap.value, bitmap.end)
    pixels = _only(inside, BYTE_DATA)
    # Which of the two counts is a matter of their order: protobuf's.
    if pixels is None or inside is None or any(field.number == HANDLE for field in inside):
        return None
    rest = content[bitmap.value : pixels.start] + content[pixels.end : bitmap.end]
    around = content[: bitmap.start] + length_delimited(BITMAP, len(rest)) + rest + content[bitmap.end :]
    return around, memoryview(content)[pixels.value : pixels.end]


def _only(fields: list[_Field] | None, number: int) -> _Field | None:
    """The one field of this number, where there is one only, with a length, and its tag and length written as usual."""
    found = [field for field in fields or () if field.number == number]
    if len(found) != 1:
        return None
    (field,) = found
    usual = field.value - field.start == len(length_delimited(number, field.end - field.value))
    return field if field.wire_type == LENGTH_DELIMITED and usual else None


def _fields(content: bytes, start: int, end: int) -> list[_Field] | None:
    """The fields between `start` and `end`; None where protobuf had better look itself."""
    fields: list[_Field] = []
    at = start
    while at < end and len(fields) < MOST_FIELDS:
        tag, value = _varint(content, at, end)
        wire_type = tag & 7
        if wire_type == VARINT:
            _, field_end = _varint(content, value, end)
        elif wire_type == LENGTH_DELIMITED:
            length, value = _varint(content, value, end)
            field_end = value + length
        elif wire_type in (FIXED32, FIXED64):
            field_end = value + (4 if wire_type == FIXED32 else 8)
        else:
            return None
        if field_end > end:
            return None
        fields.append(_Field(tag >> 3, wire_type, at, value, field_end))
        at = field_end
    return fields if at == end else None


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where it ends; one that is cut off, or too long, ends beyond `end`."""
    number = 0
    for index in range(10):
        if at + index >= end:
            break
        byte = content[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    return 0, end + 1


def length_delimited(number: int, length: int) -> bytes:
    """Tag and length that go before `length` bytes of field `number` (below 16)."""
    written = bytearray([number << 3 | LENGTH_DELIMITED])
    while length >= 0x80:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    written.append(length)
    return bytes(written)
