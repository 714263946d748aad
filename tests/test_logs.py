"""The log: one event, one line or one object; nobody's text makes a line of its own."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from google.protobuf.message import DecodeError

from agent.logs import BadMessagesInOneLine, JsonFormatter, TextFormatter


def record(
    message: str, *arguments: object, failed: bool = False, kind: type[Exception] = ValueError
) -> logging.LogRecord:
    error = None
    if failed:
        try:
            raise kind("inner\nFORGED line")
        except kind:
            error = sys.exc_info()
    return logging.LogRecord("agent.x", logging.WARNING, __file__, 1, message, arguments, error)


def test_text_is_one_line_and_whatever_follows_is_indented() -> None:
    lines = TextFormatter().format(record("a\nFORGED line", failed=True)).split("\n")
    assert lines[0].endswith("Z WARNING agent.x: a")
    assert all(line.startswith("  ") for line in lines[1:])


def test_json_is_one_object_a_line_with_its_traceback_inside() -> None:
    line = JsonFormatter().format(record("calls: %d\nnext", 3, failed=True))
    assert "\n" not in line
    event = json.loads(line)
    assert (event["level"], event["logger"], event["message"]) == ("warning", "agent.x", "calls: 3\nnext")
    assert event["traceback"].startswith("Traceback")
    assert event["time"].endswith("Z")


def test_a_clients_bytes_that_are_no_message_take_one_line_and_our_own_failures_keep_their_traceback() -> None:
    for kind, has_traceback in ((DecodeError, False), (ValueError, True)):
        event = record("Exception deserializing message!", failed=True, kind=kind)
        assert BadMessagesInOneLine().filter(event)
        assert ("\n" in TextFormatter().format(event)) is has_traceback


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_time_is_utc(formatter: logging.Formatter) -> None:
    event = record("x")
    event.created = 0.0
    assert "1970-01-01T00:00:00Z" in formatter.format(event)
