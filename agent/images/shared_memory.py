"""A client's shared-memory segment, handled so that nothing a client does to it can hurt the agent.

The segment is opened for each call by its allow-listed name below /dev/shm, without following links and without
waiting, and read with `preadv`, written with `pwrite`: a segment that its owner truncates meanwhile gives a short
count there, where mapped memory would kill the process with SIGBUS (both were tried). No mapping and no descriptor
outlives its call.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BadSegmentName, NoRoomForMask, SegmentNotUsable, SegmentTooSmall, SegmentTruncated

SHM = Path("/dev/shm")
# As shm_open takes it, with or without the leading slash. No leading dot, no second slash, nothing that needs escaping.
NAME = re.compile(r"/?([A-Za-z0-9_+@-][A-Za-z0-9._+@:=,~-]{0,253})", re.ASCII)
NOT_PLAIN = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR, errno.ENODEV)
"""What opening a link, a folder, a socket or a device node says."""


@dataclass(frozen=True)
class SegmentRange:
    """A byte range of a client's segment, not opened yet: name as the client gave it, size and offset in bytes."""

    name: str
    size: int
    offset: int

    def overlaps(self, other: SegmentRange) -> bool:
        """Whether both name the same segment and share a byte."""
        same = self.name.removeprefix("/") == other.name.removeprefix("/")
        return same and self.offset < other.offset + other.size and other.offset < self.offset + self.size


def open_segment(segment: SegmentRange, *, writable: bool) -> int:
    """A descriptor of the client's segment, which the caller closes.

    Raises:
        BadSegmentName: the name is none that shm_open would take, or holds unusual characters.
        SegmentNotUsable: there is no such segment, it may not be opened, or it is no plain segment with one name.
        SegmentTooSmall: offset + size lies outside the segment.
    """
    match = NAME.fullmatch(segment.name)
    if match is None:
        raise BadSegmentName(segment.name)
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(SHM / match[1], flags)
    except FileNotFoundError:
        raise SegmentNotUsable(segment.name, "there is no such segment") from None
    except PermissionError:
        raise SegmentNotUsable(segment.name, f"the agent may not {'write' if writable else 'read'} it") from None
    except OSError as error:
        if error.errno not in NOT_PLAIN:  # no descriptor left: the agent's trouble, not the caller's
            raise
        raise SegmentNotUsable(segment.name, "it is no plain shared-memory segment") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise SegmentNotUsable(segment.name, "it is no plain shared-memory segment")
        # nlink 0: unlinked between our open and here; the segment lives on in our descriptor.
        if segment.offset + segment.size > status.st_size:
            raise SegmentTooSmall(segment.name, segment.offset, segment.size, status.st_size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_segment(descriptor: int, offset: int, into: memoryview) -> None:
    """Fills `into` with the segment's bytes from `offset`.

    Raises:
        SegmentTruncated: the segment ends before that, so there is no whole image.
    """
    done = 0
    while done < len(into):
        count = os.preadv(descriptor, [into[done:]], offset + done)
        if count == 0:
            raise SegmentTruncated()
        done += count


def write_segment(descriptor: int, offset: int, content: memoryview) -> None:
    """Writes `content` at `offset`, not past the segment's end.

    (A client that shrinks its segment between the look and the write gets it grown back: no write of Linux refuses.)

    Raises:
        SegmentTruncated: the segment has become shorter than offset + content (writing would grow the client's file).
        NoRoomForMask: the memory behind the segment is full.
    """
    if os.fstat(descriptor).st_size < offset + len(content):
        raise SegmentTruncated()
    done = 0
    try:
        while done < len(content):
            done += os.pwrite(descriptor, content[done:], offset + done)
    except OSError as error:  # a sparse segment has its pages allocated when they are written
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoomForMask(len(content)) from error
