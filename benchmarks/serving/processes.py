"""Processes: those that serve, those that call, and what they take."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from benchmarks.serving.load import READY
from benchmarks.serving.orders import Call, Order, Span

PATIENCE = 60.0
"""Seconds that anything may take to come up or to go."""
STEP = 0.01
"""Seconds between two looks at whether something is ready."""


@contextmanager
def running(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS` as a process, its output in `log`; ended on leaving."""
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(what: str, holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> float:
    """Waits; the seconds it took. Ends the benchmark where the process ends first."""
    began = time.monotonic()
    while not holds():
        if process.poll() is not None or time.monotonic() > began + PATIENCE:
            sys.exit(f"In vain waited for {what}. Its log says:\n{log.read_text()}")
        time.sleep(STEP)
    return time.monotonic() - began


class LoadProcess:
    """The benchmark's end of a `benchmarks.serving.load`."""

    def __init__(self, niceness: int = 0) -> None:
        command = [sys.executable, "-m", "benchmarks.serving.load", str(niceness)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, message: Order | Span) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        self._process.stdin.flush()

    def wait_until_ready(self) -> None:
        if self._line() != READY:
            raise AssertionError("a load process has lost its place")

    def calls(self) -> list[Call]:
        """What it did in the span it was given."""
        return msgspec.json.decode(self._line(), type=list[Call])

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("A load process has ended; what it wrote above says why.")
        return line


@contextmanager
def load_processes(count: int, niceness: int = 0) -> Iterator[list[LoadProcess]]:
    processes = [LoadProcess(niceness) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.close()


def resident_memory(pid: int) -> float:
    """MB, pages shared with others included."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def processor_seconds(pid: int) -> float:
    """Processor time it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found
