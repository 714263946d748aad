"""Messages of the event-stream RPC protocol, as bytes.

A message: u32 total length, u32 length of the headers, u32 CRC32 of these eight bytes, headers, payload, u32 CRC32 of
all before; big-endian. A header: u8 length of its name, name, u8 type, value.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

PRELUDE = struct.Struct(">III")
CHECKSUM = struct.Struct(">I")
TRUE, FALSE, INT32, BYTES, STRING = 0, 1, 4, 6, 7
"""Types of header values."""
TYPE, FLAGS, STREAM = ":message-type", ":message-flags", ":stream-id"
"""Headers every message has."""
MOST_BYTES = 16 << 20
"""A message of the protocol has no more."""


class MessageType(IntEnum):
    APPLICATION_MESSAGE = 0
    APPLICATION_ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class MessageFlags(IntFlag):
    NONE = 0
    CONNECTION_ACCEPTED = 1
    TERMINATE_STREAM = 2


HeaderValue = bool | int | bytes | str


@dataclass(frozen=True)
class Message:
    """One message; `stream` 0 is the connection itself."""

    kind: MessageType
    stream: int = 0
    flags: MessageFlags = MessageFlags.NONE
    headers: dict[str, HeaderValue] = field(default_factory=dict)
    payload: bytes = b""


class BadFrame(Exception):
    """These bytes are no message."""


def encode(message: Message) -> bytes:
    headers = {TYPE: int(message.kind), FLAGS: int(message.flags), STREAM: message.stream, **message.headers}
    written = b"".join(_encode_header(name, value) for name, value in headers.items())
    total = PRELUDE.size + len(written) + len(message.payload) + CHECKSUM.size
    lengths = struct.pack(">II", total, len(written))
    frame = lengths + CHECKSUM.pack(zlib.crc32(lengths)) + written + message.payload
    return frame + CHECKSUM.pack(zlib.crc32(frame))


def decode(frame: bytes) -> Message:
    """Raises BadFrame."""
    total, header_length, prelude_sum = PRELUDE.unpack_from(frame)
    if total != len(frame) or prelude_sum != zlib.crc32(frame[:8]):
        raise BadFrame("the prelude's checksum is wrong")
    if CHECKSUM.unpack(frame[-4:])[0] != zlib.crc32(frame[:-4]):
        raise BadFrame("the checksum is wrong")
    start = PRELUDE.size
    headers = _decode_headers(frame[start : start + header_length])
    kind, flags, stream = (headers.pop(name, None) for name in (TYPE, FLAGS, STREAM))
    if not isinstance(kind, int) or not isinstance(flags, int) or not isinstance(stream, int):
        raise BadFrame("a header that every message has is missing")
    return Message(MessageType(kind), stream, MessageFlags(flags), headers, frame[start + header_length : -4])


async def read_message(reader: asyncio.StreamReader, most_bytes: int = MOST_BYTES) -> Message:
    """The next message.

    Raises:
        BadFrame: it is none, or one of more than `most_bytes`.
        asyncio.IncompleteReadError: the connection has ended.
    """
    prelude = await reader.readexactly(PRELUDE.size)
    total = PRELUDE.unpack(prelude)[0]
    if not PRELUDE.size + CHECKSUM.size <= total <= most_bytes:
        raise BadFrame(f"{total} bytes")
    return decode(prelude + await reader.readexactly(total - PRELUDE.size))


def _encode_header(name: str, value: HeaderValue) -> bytes:
    start = struct.pack(">B", len(name)) + name.encode()
    if isinstance(value, bool):
        return start + bytes([TRUE if value else FALSE])
    if isinstance(value, int):
        return start + struct.pack(">Bi", INT32, value)
    kind, content = (BYTES, value) if isinstance(value, bytes) else (STRING, value.encode())
    return start + struct.pack(">BH", kind, len(content)) + content


def _decode_headers(content: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    while at < len(content):
        length = content[at]
        name, kind = content[at + 1 : at + 1 + length].decode(), content[at + 1 + length]
        at += length + 2
        if kind in (TRUE, FALSE):
            headers[name] = kind == TRUE
        elif kind == INT32:
            headers[name] = struct.unpack_from(">i", content, at)[0]
            at += 4
        elif kind in (BYTES, STRING):
            (size,) = struct.unpack_from(">H", content, at)
            value = content[at + 2 : at + 2 + size]
            headers[name] = value.decode() if kind == STRING else value
            at += 2 + size
        else:
            raise BadFrame(f"header {name} has the type {kind}, which is not known here")
    return headers
