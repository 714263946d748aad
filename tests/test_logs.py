"""The log: one event, one line or one object; nobody's text makes a line of its own."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from agent.log_writer import DetachedHandler
from agent.logs import BadMessagesInOneLine, JsonFormatter, TextFormatter

ROOM = 10_000
DROPPED = re.compile(r"log lines dropped here: (\d+)")
FILLING = b"." * 4096


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


def test_text_escapes_what_starts_a_line_or_moves_the_cursor() -> None:
    line = TextFormatter().format(record("a\rb\x1b[2Jc\x85d\u2028e"))
    assert line.endswith(r"a\x0db\x1b[2Jc\x85d\u2028e")
    assert len(line.splitlines()) == 1


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


@pytest.fixture
def stalled() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that is full: whoever writes to it waits until somebody reads."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    try:
        while True:
            os.write(writes, FILLING)
    except BlockingIOError:
        os.set_blocking(writes, True)
    yield reads, writes
    os.close(reads)  # who still waits to write gets an error and is done
    os.close(writes)


def log_to(descriptor: int) -> tuple[logging.Logger, DetachedHandler]:
    log, handler = logging.Logger("agent.x"), DetachedHandler(descriptor, ROOM)
    log.addHandler(handler)
    return log, handler


def read_until(reads: int, text: bytes) -> bytes:
    content = b""
    while text not in content:
        content += os.read(reads, 1 << 16)
    return content


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stalled_reader_stops_nobody_and_is_told_what_it_missed(stalled: tuple[int, int], blocking: bool) -> None:
    reads, writes = stalled
    os.set_blocking(writes, blocking)
    log, handler = log_to(writes)
    for number in range(1000):
        log.warning("line %03d %s", number, "x" * 90)
    began = time.monotonic()
    handler.flush()
    assert time.monotonic() - began < 10  # not for ever; its limit is 0.3 s

    content = read_until(reads, b"dropped").lstrip(b".")
    *kept, told = content.decode().splitlines()
    assert [int(line.split()[1]) for line in kept] == list(range(len(kept)))
    dropped = DROPPED.match(told)
    assert dropped is not None and len(kept) + int(dropped[1]) == 1000
    assert sum(len(line) + 1 for line in kept) <= ROOM
    log.warning("all is well")
    assert read_until(reads, b"well") == b"all is well\n"


def test_what_a_full_disk_did_not_take_is_told_when_there_is_room_again(tmp_path: Path) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        log, handler = log_to(descriptor)
        for _ in range(3):
            log.warning("lost")
            handler.flush()
        with (tmp_path / "log").open("wb") as file:
            os.dup2(file.fileno(), descriptor)
        log.warning("written")
        handler.flush()
        first, second = (tmp_path / "log").read_text().splitlines()
        assert first == "written"
        assert second.startswith("log lines dropped here: 3;")
    finally:
        os.close(descriptor)


def test_a_reader_that_has_gone_stops_nobody() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    log, handler = log_to(writes)
    log.warning("lost")
    handler.flush()
    os.close(writes)


def test_arguments_that_do_not_fit_their_message_are_a_dropped_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log, handler = log_to(file.fileno())
        log.warning("%d", "no number")
        log.warning("next")
        handler.flush()
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first == "next"
    assert second.startswith("log lines dropped here: 1;")


def run_logging(code: str, shell: str = "", **arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Runs `code` in a process of its own; `shell` redirects its standard error where that is to be closed."""
    code = f"import logging, os, resource, threading\nfrom agent.logs import set_up_logging\n{code}"
    command = ["sh", "-c", f'exec "$0" "$@" {shell}', sys.executable, "-c", code]
    return subprocess.run(command, timeout=20, check=True, **arguments)


def test_a_stalled_reader_does_not_hold_up_the_end_of_the_process(stalled: tuple[int, int]) -> None:
    run_logging("set_up_logging('text', 'info'); logging.info('a line')", stderr=stalled[1])


def test_the_last_lines_are_written_before_the_process_ends() -> None:
    ended = run_logging(
        "set_up_logging('json', 'info')\nfor n in range(500): logging.info('%d', n)", stderr=subprocess.PIPE
    )
    assert [json.loads(line)["message"] for line in ended.stderr.splitlines()] == [str(n) for n in range(500)]


def test_without_a_standard_error_no_other_file_is_written_to(tmp_path: Path) -> None:
    code = """
file = open("file", "w")
assert file.fileno() == 2
set_up_logging("text", "info")
logging.info("nowhere to go")
"""
    run_logging(code, "2>&-", cwd=tmp_path)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_line_cut_short_by_a_full_disk_is_ended_before_the_next(tmp_path: Path) -> None:
    code = """
set_up_logging("text", "info")
flush = logging.getLogger().handlers[0].flush
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
logging.info("x" * 200)
flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
logging.info("whole")
"""
    with (tmp_path / "log").open("ab") as log:
        run_logging(code, stderr=log)
    torn, whole, told = (tmp_path / "log").read_text().splitlines()
    assert len(torn) == 100
    assert whole.endswith("INFO root: whole")
    assert "WARNING agent.log_writer: log lines dropped here: 1;" in told


def test_what_ends_a_thread_is_an_event_of_the_log() -> None:
    code = "set_up_logging('text', 'info'); t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    first, *traceback = run_logging(code, stderr=subprocess.PIPE).stderr.decode().splitlines()
    assert "CRITICAL agent.logs: a thread ended unexpectedly" in first
    assert traceback[-1] == "  ZeroDivisionError: division by zero"


HOLDING = """
import logging
from agent.logs import hold_log_lines, set_log_level, set_up_logging
log = logging.getLogger("agent")
hold_log_lines()
log.info("early")
set_up_logging("json", "error")
log.info("not wanted")
set_log_level("debug")
log.debug("late")
"""


def test_lines_from_before_the_log_is_set_up_come_first_and_in_its_format() -> None:
    ran = subprocess.run([sys.executable, "-c", HOLDING], capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line)["message"] for line in ran.stderr.splitlines()] == ["early", "late"]
