"""HTTP/2 by hand, mostly wrong: what a connection to the agent's socket may be fed (RFC 9113; headers: RFC 7541)."""

from __future__ import annotations

import random
from collections.abc import Callable

from agent.rpc.health import EDGE_AGENT
from tests.faults.inputs_log import FORGED

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, _, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Kinds of frames."""
END_STREAM, END_HEADERS = 0x1, 0x4
"""Flags."""


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


GREETING = PREFACE + frame(SETTINGS, 0, 0)


def header(name: bytes, value: bytes) -> bytes:
    """A literal header that is not indexed."""
    return b"\0" + _text(name) + _text(value)


def _text(content: bytes) -> bytes:
    length = len(content)
    if length < 0x7F:
        return bytes([length]) + content
    length -= 0x7F
    encoded = bytearray([0x7F])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(encoded) + bytes([length]) + content


def call_headers(method: str) -> bytes:
    """Headers of a call, as a client's gRPC sends them."""
    return (
        header(b":method", b"POST")
        + header(b":scheme", b"http")
        + header(b":path", f"/{EDGE_AGENT}/{method}".encode())
        + header(b":authority", b"localhost")
        + header(b"te", b"trailers")
        + header(b"content-type", b"application/grpc")
    )


def message(content: bytes, promised: int | None = None) -> bytes:
    """A gRPC message: not compressed, its length, its content (or only some of what it promises)."""
    return b"\0" + (len(content) if promised is None else promised).to_bytes(4, "big") + content


# --- what goes wrong ---


def _nothing(chance: random.Random) -> bytes:
    return b""


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 5000))


def _http1(chance: random.Random) -> bytes:
    return b"GET /" + b"a" * chance.randint(0, 5000) + b" HTTP/1.1\r\nHost: x\r\n\r\n"


def _cut_preface(chance: random.Random) -> bytes:
    return PREFACE[: chance.randint(1, len(PREFACE))]


def _noise_after_preface(chance: random.Random) -> bytes:
    return PREFACE + _noise(chance)


def _frames_of_noise(chance: random.Random) -> bytes:
    frames = [
        frame(chance.randrange(12), chance.getrandbits(8), chance.randrange(8), chance.randbytes(chance.randrange(40)))
        for _ in range(chance.randint(1, 20))
    ]
    return GREETING + b"".join(frames)


def _cut_frame(chance: random.Random) -> bytes:
    promised = frame(chance.randrange(12), 0, 1, bytes(chance.randint(1, 16_384)))
    return GREETING + promised[: chance.randint(1, len(promised) - 1)]


def _too_large_frame(chance: random.Random) -> bytes:
    return GREETING + b"\xff\xff\xff" + bytes([chance.randrange(10), 0, 0, 0, 0, 1]) + chance.randbytes(1000)


def _cut_call(chance: random.Random) -> bytes:
    """A call whose message never arrives whole; half of them say that it has."""
    some = message(chance.randbytes(chance.randrange(1000)), chance.choice((1000, 2**20, 2**26, 2**32 - 1)))
    started = frame(HEADERS, END_HEADERS, 1, call_headers("DetectAnomalies"))
    return GREETING + started + frame(DATA, chance.choice((0, END_STREAM)), 1, some)


def _reset_calls(chance: random.Random) -> bytes:
    """Calls that are taken back at once, one after the other (as in CVE-2023-44487)."""
    method = chance.choice(("ListModels", "DescribeModel", "DetectAnomalies"))
    calls = [
        frame(HEADERS, END_HEADERS, stream, call_headers(method))
        + frame(DATA, END_STREAM, stream, message(b""))
        + frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
        for stream in range(1, 2 * chance.randint(1, 50), 2)
    ]
    return GREETING + b"".join(calls)


def _endless_headers(chance: random.Random) -> bytes:
    """Headers that go on and on and have no end."""
    more = [frame(CONTINUATION, 0, 1, header(b"x-%d" % number, b"a" * 100)) for number in range(chance.randint(1, 300))]
    return GREETING + frame(HEADERS, 0, 1, call_headers("ListModels")) + b"".join(more)


def _pings(chance: random.Random) -> bytes:
    return GREETING + frame(PING, 0, 0, bytes(8)) * chance.randint(1, 500)


def _settings(chance: random.Random) -> bytes:
    one = chance.randrange(8).to_bytes(2, "big") + chance.getrandbits(32).to_bytes(4, "big")
    return GREETING + frame(SETTINGS, 0, 0, one) * chance.randint(1, 200)


def _wide_window(chance: random.Random) -> bytes:
    return GREETING + frame(WINDOW_UPDATE, 0, chance.randrange(2), (2**31 - 1).to_bytes(4, "big")) * 2


def _last_words(chance: random.Random) -> bytes:
    """A farewell with a text that wants to be a line of the log."""
    farewell = chance.getrandbits(31).to_bytes(4, "big") + chance.getrandbits(32).to_bytes(4, "big")
    return GREETING + frame(GOAWAY, 0, 0, farewell + f"\n{FORGED}\n".encode())


JUNK: dict[str, Callable[[random.Random], bytes]] = {
    "nothing": _nothing,
    "noise": _noise,
    "HTTP/1": _http1,
    "cut preface": _cut_preface,
    "noise after the preface": _noise_after_preface,
    "frames of noise": _frames_of_noise,
    "cut frame": _cut_frame,
    "too large frame": _too_large_frame,
    "cut call": _cut_call,
    "reset calls": _reset_calls,
    "endless headers": _endless_headers,
    "pings": _pings,
    "settings": _settings,
    "wide window": _wide_window,
    "last words": _last_words,
}
"""Ways to spoil a connection: each makes the bytes that are sent on one."""
