"""Failures that are forced: a GPU that is hidden, too small or full, and a worker that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from agent.wire import edge_agent_pb2 as wire
from benchmarks.gpu_check.agents import described, environment_of, outcome, stub_of
from benchmarks.gpu_check.result import Check, Result, passed
from benchmarks.serving import servers
from benchmarks.serving.model import Package

HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}
LEFT = 64 << 20
"""Bytes of GPU memory that a full GPU has."""
PATIENCE = 60.0
"""Seconds that a model may take to run again."""


def failure_checks(package: Package, folder: Path, device: str, is_integrated: bool) -> Iterator[Check]:
    """`folder`: for agents. Filling the memory of an integrated GPU would fill the computer's."""
    yield Check("GPU hidden, fallback forbidden", partial(hidden, package, folder / "hidden", device))
    yield Check("GPU hidden, fallback allowed", partial(stood_in_for, package, folder / "allowed", device))
    yield Check("less GPU memory than it needs", partial(limited, package, folder / "limited", device))
    if not is_integrated:
        yield Check("GPU memory taken by others", partial(full, package, folder / "full", device))
    yield Check("worker killed", partial(killed, package, folder / "killed", device))


def hidden(package: Package, folder: Path, device: str) -> Iterator[Result]:
    state, message = outcome(package, folder, EDGE_AGENT_DEVICE=device, **HIDDEN)
    holds = state == wire.FAILED and "cannot be used here" in message
    yield passed("GPU hidden, fallback forbidden: FAILED", holds, message)


def stood_in_for(package: Package, folder: Path, device: str) -> Iterator[Result]:
    state, message = outcome(package, folder, EDGE_AGENT_DEVICE=device, EDGE_AGENT_FALLBACK="allow", **HIDDEN)
    holds = state == wire.RUNNING and " on CPU, instead of " in message
    yield passed("GPU hidden, fallback allowed: RUNNING on the CPU", holds, message)


def limited(package: Package, folder: Path, device: str) -> Iterator[Result]:
    state, message = outcome(package, folder, EDGE_AGENT_DEVICE=device, EDGE_AGENT_GPU_MEMORY_LIMIT="1")
    holds = state == wire.FAILED and "of GPU memory" in message
    yield passed("less GPU memory than it needs: FAILED", holds, message)


def full(package: Package, folder: Path, device: str) -> Iterator[Result]:
    with _memory_taken():
        state, message = outcome(package, folder, EDGE_AGENT_DEVICE=device)
    holds = state == wire.FAILED and "of GPU memory" in message
    yield passed("GPU memory taken by others: FAILED", holds, message)


def killed(package: Package, folder: Path, device: str) -> Iterator[Result]:
    with (
        environment_of(EDGE_AGENT_DEVICE=device),
        servers.agent(folder, package) as agent,
        stub_of(agent.address) as stub,
    ):
        (worker,), before = agent.workers, described(stub)
        os.kill(worker, signal.SIGKILL)
        seconds = _wait(lambda: agent.workers not in ([], [worker]) and described(stub) == before)
    figures = f"{before[1]}, after {seconds:.1f} s" if seconds is not None else f"not within {PATIENCE:g} s"
    yield passed("worker killed: back on the same device", seconds is not None, figures)


def _wait(holds: Callable[[], bool]) -> float | None:
    """Seconds until it holds; None where that takes too long."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() > began + PATIENCE:
            return None
        time.sleep(0.01)
    return time.monotonic() - began


@contextmanager
def _memory_taken() -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.gpu_check.gpu_memory", "take", str(LEFT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "taken\n":
            raise RuntimeError("the GPU's memory could not be taken")
        yield
        process.communicate()
