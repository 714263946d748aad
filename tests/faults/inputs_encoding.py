"""Protobuf's wire format by hand: what no client library would send, but any program can."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from agent.rpc.health import EDGE_AGENT
from tests.support.agent_process import AgentProcess

UINT64 = 2**64 - 1


def varint(value: int) -> bytes:
    """A number 0..2^64-1, seven bits a byte, the lowest first."""
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def number(field: int, value: int) -> bytes:
    """A field that holds a number; negative ones as libraries send them, in 64 bits."""
    return varint(field << 3) + varint(value & UINT64)


def block(field: int, content: bytes) -> bytes:
    """A field that holds text, bytes or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def as_int32(value: int) -> int:
    """What a field of 32 bits makes of a number: its lowest bits."""
    return (value + 2**31) % 2**32 - 2**31


# --- the messages of DetectAnomalies ---


def detect_bytes(component: str, *parts: bytes) -> bytes:
    """A DetectAnomaliesRequest: the component's name, and what else it holds."""
    return block(1, component.encode()) + b"".join(parts)


def bitmap(*parts: bytes) -> bytes:
    return block(2, b"".join(parts))


def sides(width: int, height: int) -> bytes:
    return number(1, width) + number(2, height)


def byte_data(content: bytes) -> bytes:
    return block(3, content)


def handle(field: int, name: str, size: int, offset: int = 0) -> bytes:
    """A SharedMemoryHandle: field 4 of a bitmap, 2 or 3 of the mask's parameters."""
    return block(field, block(1, name.encode()) + number(2, size) + number(3, offset))


def mask_params(*parts: bytes) -> bytes:
    return block(3, b"".join(parts))


@contextlib.contextmanager
def raw_calls(agent: AgentProcess) -> Iterator[dict[str, grpc.UnaryUnaryMultiCallable]]:
    """The five methods by name; they take and give the bytes of messages."""
    methods = ("DetectAnomalies", "DescribeModel", "ListModels", "StartModel", "StopModel")
    with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        yield {method: channel.unary_unary(f"/{EDGE_AGENT}/{method}") for method in methods}
