"""Our parser of DetectAnomalies against protobuf's: the same request or the same refusal, whatever comes."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import NoRequest, TooManyBytes
from agent.rpc.request_parser import WORTH_IT, ReceivedRequest, RequestParser, length_delimited, parse
from agent.wire import edge_agent_pb2 as wire

LARGE = bytes(2 * WORTH_IT)


def as_protobuf(content: bytes) -> wire.DetectAnomaliesRequest | None:
    try:
        return wire.DetectAnomaliesRequest.FromString(content)
    except DecodeError:
        return None


def put_together(received: ReceivedRequest) -> wire.DetectAnomaliesRequest:
    """The request as one message again."""
    message = wire.DetectAnomaliesRequest()
    message.CopyFrom(received.message)
    if received.pixels is not None:
        message.bitmap.byte_data = bytes(received.pixels)
    return message


def agree(content: bytes) -> bool:
    """Both see the same in `content`; whether it is a request."""
    expected, parsed = as_protobuf(content), parse(content, worth_it=0)
    if expected is None:
        assert isinstance(parsed, NoRequest)
        return False
    assert isinstance(parsed, ReceivedRequest)
    assert (parsed.pixels is not None) == (expected.bitmap.WhichOneof("data") == "byte_data")
    assert put_together(parsed).SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    return True


def request(content: bytes = LARGE) -> wire.DetectAnomaliesRequest:
    given = wire.Bitmap(width=96, height=64, byte_data=content)
    return wire.DetectAnomaliesRequest(model_component="bolt", bitmap=given)


# --- wire bytes of all kinds ---


def varint(number: int, length: int = 0) -> bytes:
    """`number`, written in at least `length` bytes: longer than it needs to be is legal, up to ten."""
    written = bytearray()
    while number >= 0x80 or len(written) < length - 1:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


NUMBERS = st.sampled_from([1, 2, 3, 4, 5, 6, 0, 15, 16, 2**29 - 1, 2**29, 2**35])
LENGTHS = st.sampled_from([0, 0, 0, 2, 5, 6, 10, 11])
CONTENT = st.binary(max_size=40)


@st.composite
def fields(draw: st.DrawFn, inside: st.SearchStrategy[bytes]) -> bytes:
    """A field: any number, any wire type, tags and lengths longer than needed, lengths that lie."""
    wire_type = draw(st.sampled_from([0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 7]))
    tag = varint(draw(NUMBERS) << 3 | wire_type, draw(LENGTHS))
    if wire_type == 0:
        return tag + varint(draw(st.integers(0, 2**70)), draw(LENGTHS))
    if wire_type == 2:
        value = draw(inside)
        lie = draw(st.sampled_from([0] * 12 + [1, -1, 2**31, 2**63]))
        return tag + varint(max(0, len(value) + lie), draw(LENGTHS)) + value
    return tag + draw(st.binary(max_size=9))


def several(strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(strategy, max_size=5).map(b"".join)


BITMAPS = several(fields(CONTENT))
MESSAGES = several(fields(st.one_of(BITMAPS, CONTENT)))


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    """The plain shape with a few bytes changed, taken out, or put in."""
    content = bytearray(request(draw(CONTENT)).SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content) - 1))
        content[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
        if not content:
            break
    return bytes(content)


BITMAP = request(b"abc").bitmap.SerializeToString()
HANDLE = wire.Bitmap(shared_memory_handle=wire.SharedMemoryHandle(name="s")).SerializeToString()


def bitmap_field(content: bytes) -> bytes:
    return length_delimited(2, len(content)) + content


@settings(max_examples=1500, deadline=None, database=None)
@given(st.one_of(MESSAGES, nearly_plain(), st.binary(max_size=60)))
@example(b"")
@example(bitmap_field(BITMAP))
@example(bitmap_field(BITMAP) * 2)  # merged: the last one's pixels count
@example(bitmap_field(BITMAP + BITMAP))
@example(bitmap_field(BITMAP + HANDLE))  # of two that exclude each other the last one counts
@example(bitmap_field(HANDLE + BITMAP))
@example(bitmap_field(BITMAP) + bitmap_field(HANDLE))
@example(bitmap_field(HANDLE) + bitmap_field(BITMAP))
@example(bitmap_field(BITMAP) + b"\x0a\x02\xff\xfe")  # a name that is no UTF-8
@example(bitmap_field(BITMAP) + b"\x9b\x06\x9c\x06")  # a group, which only old definitions have
@example(bitmap_field(BITMAP) + b"\x9b\x06")
@example(bitmap_field(BITMAP)[:-1])
@example(b"\x92\x00" + bitmap_field(BITMAP)[1:])  # a tag in two bytes
def test_every_message_is_what_protobuf_makes_of_it(content: bytes) -> None:
    agree(content)


def test_messages_made_by_chance_are_often_requests_with_pixels() -> None:
    """Else the comparison above would show little."""
    seed = random.Random(1)
    plain = request(b"abcdefgh").SerializeToString()
    changed = [bytes(byte if seed.random() > 0.02 else seed.randrange(256) for byte in plain) for _ in range(5000)]
    outcomes = [agree(content) for content in changed]
    assert outcomes.count(True) > 1000 and outcomes.count(False) > 100


# --- what it is for ---


def test_the_pixels_of_a_large_message_are_a_view_of_it() -> None:
    content = request().SerializeToString()
    received = parse(content)
    assert isinstance(received, ReceivedRequest) and isinstance(received.pixels, memoryview)
    assert received.pixels.obj is content
    assert received.message.bitmap.width == 96 and not received.message.bitmap.byte_data


def test_many_fields_are_left_to_protobuf() -> None:
    """Walking over a million small fields would take seconds in Python."""
    content = b"\x98\x06\x01" * 200_000 + request().SerializeToString()
    received = parse(content)
    assert isinstance(received, ReceivedRequest) and isinstance(received.pixels, bytes)


# --- bytes in flight ---


def test_messages_beyond_the_limit_are_refused_until_others_are_done_with() -> None:
    content = request().SerializeToString()
    parser = RequestParser(most_bytes=2 * len(content))
    held = [parser(content), parser(content)]
    assert all(isinstance(each, ReceivedRequest) for each in held) and parser.held == 2 * len(content)
    refused = parser(content)
    assert isinstance(refused, TooManyBytes) and "MiB" in str(refused)
    # Small ones, without pixels to speak of, always pass.
    assert isinstance(parser(request(b"x").SerializeToString()), ReceivedRequest)
    held.pop()
    assert parser.held == len(content)
    assert isinstance(parser(content), ReceivedRequest)


def test_another_limit_holds_from_the_next_message_on() -> None:
    content = request().SerializeToString()
    parser = RequestParser(most_bytes=len(content))
    held = [parser(content)]
    assert isinstance(parser(content), TooManyBytes)
    parser.allow(2 * len(content))
    held.append(parser(content))
    parser.allow(len(content))
    assert isinstance(parser(content), TooManyBytes)
    assert all(isinstance(each, ReceivedRequest) for each in held) and parser.held == 2 * len(content)


@pytest.mark.parametrize("content", [LARGE, b"\xff" * len(LARGE)])
def test_what_is_no_request_holds_nothing(content: bytes) -> None:
    parser = RequestParser(most_bytes=1 << 30)
    kept = parser(content)  # as an exception that was raised is, until the garbage collector comes by
    assert isinstance(kept, NoRequest)
    assert parser.held == 0
