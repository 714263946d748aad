"""Writing log lines without ever making whoever logs wait for whoever reads.

Lines are written by a thread of their own; those that find no room or cannot be written are dropped, counted, and told
of.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from contextlib import suppress

log = logging.getLogger(__name__)

ROOM = 1 << 20
"""Bytes of lines that may wait to be written: several thousand lines."""
FLUSH_LIMIT = 0.3
"""Seconds the end of the process waits for lines to be written; a reader that has stalled must not hold it up."""


class DetachedHandler(logging.Handler):
    """Queues lines for a thread that writes them to a descriptor; neither blocks nor raises, whatever is behind it.

    (The standard library's QueueListener writes through a handler and holds that one's lock meanwhile, and
    `logging.shutdown` would wait for it for ever.)
    """

    def __init__(self, descriptor: int, room: int = ROOM) -> None:
        super().__init__()
        self._descriptor, self._room = descriptor, room
        # The handler's own lock, which `handle` holds around `emit`; nobody holds it while writing.
        self._changed = threading.Condition(self.lock)
        self._lines = deque[tuple[bytes, int]]()
        """What waits, or is being written: a line, and how many lines are lost with it."""
        self._waiting = 0
        """Bytes in `_lines`."""
        self._dropped = 0
        """Lines that nobody has been told of yet."""
        self._is_torn = False
        """The last line was written in part only."""
        threading.Thread(target=self._write_lines, name="log-writer", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        line = b""
        with suppress(Exception):  # arguments that do not fit their message
            line = self._line(record)
        # Once a line is dropped, so are those after it until the queue is empty: one gap, told of where it is.
        in_a_gap = self._dropped > 0 and len(self._lines) > 0
        if not line or in_a_gap or self._waiting + len(line) > self._room:
            self._dropped += 1
        else:
            self._append(line, 1)

    def flush(self) -> None:
        """Waits for what is queued to be written, not longer than FLUSH_LIMIT seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, FLUSH_LIMIT)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _append(self, line: bytes, lost_with_it: int) -> None:
        self._lines.append((line, lost_with_it))
        self._waiting += len(line)
        self._changed.notify_all()

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line, lost_with_it = self._lines[0]
            written = self._write(line)
            with self._changed:
                self._lines.popleft()
                self._waiting -= len(line)
                if not written:
                    self._dropped += lost_with_it
                elif self._dropped and not self._lines:
                    self._tell_of_the_gap()
                self._changed.notify_all()

    def _tell_of_the_gap(self) -> None:
        text = "log lines dropped here: %d; they could not be written, or came faster than they were read"
        record = log.makeRecord(log.name, logging.WARNING, __file__, 0, text, (self._dropped,), None)
        self._append(self._line(record), self._dropped)
        self._dropped = 0

    def _write(self, line: bytes) -> bool:
        """Whether the whole line was written. Waits for the reader, as long as it takes."""
        left = memoryview(b"\n" + line if self._is_torn else line)
        whole = len(left)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever shares the pipe with us has made it so
                select.select([], [self._descriptor], [])
            except OSError:  # the disk is full, the reader has gone, ...
                self._is_torn = self._is_torn or len(left) < whole
                return False
        self._is_torn = False
        return True
