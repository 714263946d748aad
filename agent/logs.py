"""The log: one line per event on standard error, as text or as JSON. Never pixels, never a client's text unescaped."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from logging.handlers import MemoryHandler

from google.protobuf.message import DecodeError

from agent.log_writer import DetachedHandler

log = logging.getLogger(__name__)

_ESCAPED = str.maketrans(
    {chr(code): f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) != "\n"}
    | {"\u2028": "\\u2028", "\u2029": "\\u2029"}
)
"""What starts a line, or moves a terminal's cursor, where a text is shown."""


class TextFormatter(logging.Formatter):
    """`2026-01-01T12:00:00Z INFO agent.models: text`; a traceback follows on indented lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPED).replace("\n", "\n  ")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and traceback where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


class BadMessagesInOneLine(logging.Filter):
    """For the logger of gRPC that tells of bytes that are no message: a client's mistake, without our traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], DecodeError):
            record.exc_info = None
        return True


HELD_LINES = 1000
"""Lines that are held at most; those before go."""

FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def hold_log_lines() -> None:
    """Keeps lines until `set_up_logging`: how they are to look, and which are wanted, is not known yet."""
    held = MemoryHandler(HELD_LINES, flushLevel=sys.maxsize)
    logging.basicConfig(level=logging.INFO, handlers=[held], force=True)


def set_log_level(level: str) -> None:
    """The least severe events that are logged from now on."""
    logging.getLogger().setLevel(level.upper())


def set_up_logging(log_format: str, level: str) -> None:
    """Logs to standard error from now on, also what ends a thread; what cannot be written is dropped, never raised.

    Before gRPC is imported.
    """
    # gRPC's core writes past our handlers, and repeats what clients sent (the text of a GOAWAY) with its line feeds.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("grpc._common").addFilter(BadMessagesInOneLine())
    # Without a standard error its number may be anybody's file, or a client's connection.
    handler = logging.NullHandler() if sys.stderr is None else DetachedHandler(sys.stderr.fileno())
    handler.setFormatter(FORMATTERS[log_format]())
    for held in logging.getLogger().handlers:
        if isinstance(held, MemoryHandler):
            held.setTarget(handler)  # it is closed below, and gives then what it holds
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    threading.excepthook = _log_end_of_thread


def _log_end_of_thread(end: threading.ExceptHookArgs) -> None:
    if not isinstance(end.exc_value, SystemExit | None):
        log.critical("a thread ended unexpectedly", exc_info=end.exc_value)
