"""What every row must leave as it was: descriptors, threads, child processes, shared memory, and the answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.agent_process import AgentProcess, detect, inline_request, wait_for
from tests.support.packages import grey

SETTLING = 30.0
"""Seconds for connections and workers to be gone for good."""


@dataclass(frozen=True)
class Holdings:
    """What an agent holds of the device."""

    descriptors: int
    children: int
    shared_memory: frozenset[str]
    files: frozenset[str]
    """In the agent's own folder, which is its TMPDIR too."""

    @classmethod
    def of(cls, agent: AgentProcess) -> Holdings:
        return cls(
            len(list(Path(f"/proc/{agent.running.pid}/fd").iterdir())),
            len(agent.worker_pids()),
            # Other programs use shared memory too: ours carry our process's number (`segment` of tests.support).
            frozenset(path.name for path in Path("/dev/shm").glob(f"*-{os.getpid()}-*")),
            frozenset(path.name for path in agent.folder.iterdir()),
        )


def resident_bytes(pid: int) -> int:
    """Memory of a process that no file backs: what leaks would add to (RssAnon of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # a process on its way out has none


def answers_as_always(agent: AgentProcess) -> None:
    """The shared agent tells dark from bright, and a number in the first pixel."""
    stub = agent.stub()
    for value, is_anomalous in ((0, True), (255, False)):
        assert detect(stub, inline_request("any-size", grey(value))).is_anomalous is is_anomalous
    pixels = grey(0)
    pixels[0, 0] = np.array([51, 0, 0])
    assert round(detect(stub, inline_request("classifier", pixels)).anomaly_score, 4) == 0.2


@contextlib.contextmanager
def nothing_stays_behind(agent: AgentProcess) -> Iterator[None]:
    """What the agent holds after the block is what it held before, and it answers as always."""
    answers_as_always(agent)
    agent.close_channels()
    before = Holdings.of(agent)
    yield
    answers_as_always(agent)
    agent.close_channels()
    held: list[Holdings] = []

    def settled() -> bool:
        held[:] = [Holdings.of(agent)]
        now = held[0]
        return (
            now.descriptors <= before.descriptors
            and now.children == before.children
            and now.shared_memory <= before.shared_memory
            and now.files <= before.files
        )

    try:
        wait_for("what the agent holds to be as before", settled, SETTLING)
    except AssertionError:
        raise AssertionError(f"before {before}, after {held[0]}") from None
