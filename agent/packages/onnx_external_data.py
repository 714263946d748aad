"""Which files beside an ONNX model hold its weights, told without the onnx library, which devices do not have.

A model may keep tensors in other files ("external data"); ONNX Runtime reads them unasked. The model is walked part by
part: only what can lead to a tensor is entered, the rest - raw weights above all - is stepped over and never copied.

Sources: https://protobuf.dev/programming-guides/encoding/ for the wire format;
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto for the field numbers;
https://onnx.ai/onnx/repo-docs/ExternalData.html for the keys of external data.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from agent.errors import BadPackageFile

PARTS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
"""Field number to message type, for every field that can lead to external data."""

MAX_DEPTH = 100
"""Messages inside messages; protobuf's own parsers go no deeper."""
MAX_LOCATION = 4096
"""Bytes of a location; Linux opens no longer path (PATH_MAX)."""

_KEY, _VALUE = 1, 2  # fields of StringStringEntryProto
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class _Malformed(Exception):
    """The bytes are no message of this kind."""


def external_data_files(model: Path, name: str | None = None) -> frozenset[str]:
    """The locations the model's tensors refer to, as they stand there: paths relative to the model's folder.

    A location counts even where the tensor's `data_location` says that it is not used.

    Args:
        model: an ONNX model, as a file.
        name: what a refusal calls it; its file name by default.

    Raises:
        BadPackageFile: it cannot be read or is no ONNX model.
    """
    name = model.name if name is None else name
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return frozenset(_locations(content))
    except OSError as error:
        raise BadPackageFile(name, f"it cannot be read ({error.strerror})") from None
    except (_Malformed, ValueError):  # ValueError: an empty file cannot be mapped
        raise BadPackageFile(name, "it is no ONNX model") from None


def leads_outside(location: str) -> bool:
    """Whether a location is no path below the model's folder, whatever lies there."""
    path = PurePosixPath(location)
    # "*/": ONNX Runtime's marks for an address in memory. Release 1.23 follows them in a file.
    return path.is_absolute() or ".." in path.parts or "\\" in location or location.startswith("*/")


def _locations(content: mmap.mmap) -> Iterator[str]:
    # Iterators on a list of our own: memory grows with the depth alone, whatever the file holds.
    open_messages = [("ModelProto", _fields(content, 0, len(content)))]
    while open_messages:
        kind, fields = open_messages[-1]
        for number, start, end in fields:
            part = PARTS[kind].get(number)
            if part == "StringStringEntryProto":
                location = _location(content, start, end)
                if location is not None:
                    yield location
            elif part is not None:
                if len(open_messages) == MAX_DEPTH:
                    raise _Malformed
                open_messages.append((part, _fields(content, start, end)))
                break
        else:
            open_messages.pop()


def _location(content: mmap.mmap, start: int, end: int) -> str | None:
    """The value of an entry of external data whose key is "location"."""
    key, value = b"", (start, start)
    for number, first, last in _fields(content, start, end):  # of a repeated field the last one counts
        if number == _KEY:
            key = content[first : min(last, first + len(b"location") + 1)]
        elif number == _VALUE:
            value = first, last
    if key != b"location":
        return None
    first, last = value
    if last - first > MAX_LOCATION:
        raise _Malformed
    try:
        return content[first:last].decode("utf-8")
    except UnicodeDecodeError:
        raise _Malformed from None


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of the message in bytes start to end: number, and where the content is.

    Fields of another type than ours are stepped over, as protobuf's parsers do.
    """
    position = start
    while position < end:
        tag, position = _varint(content, position, end)
        # More than 32 bits: some parsers drop the upper ones and see another field than we would.
        if not 8 <= tag < 1 << 32:
            raise _Malformed
        wire_type = tag & 7
        first = position
        if wire_type == _LENGTH_DELIMITED:
            length, first = _varint(content, position, end)
            position = first + length
        elif wire_type == _VARINT:
            _, position = _varint(content, position, end)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:  # groups, which ONNX never had, and types that do not exist
            raise _Malformed
        if position > end:
            raise _Malformed
        if wire_type == _LENGTH_DELIMITED:
            yield tag >> 3, first, position


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """The variable-length integer at `position`, and where it ends."""
    number = 0
    for index in range(min(_MAX_VARINT_BYTES, end - position)):
        byte = content[position + index]
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, position + index + 1
    raise _Malformed
