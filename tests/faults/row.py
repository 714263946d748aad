"""A row: one kind of fault, what it must lead to, and how often that is to be shown."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.faults.oracle import nothing_stays_behind
from tests.support.agent_process import AgentProcess
from tests.support.packages import make_package

ANY_SIZE, CLASSIFIER = "any-size", "classifier"
"""The models of the shared agent: segmentation of any size (dark is anomalous), and the first pixel's red as score."""


class Run:
    """One go at a row: how far, how long, and what came of it. `steps` and `saw` may be used from several threads."""

    def __init__(self, folder: Path, shared: SharedAgent, seed: int, count: int, seconds: float) -> None:
        self.folder = folder
        """Empty, the run's own."""
        self.seed, self.random = seed, random.Random(seed)
        self.reached = 0
        """Faults injected, in the row's unit."""
        self.outcomes = Counter[str]()
        """What happened how often: status codes, mostly."""
        self.figures = dict[str, str]()
        """What was measured, for the table: name to value with its unit."""
        self.wanted = count
        """How many are to be injected, time permitting."""
        self._shared, self._seconds = shared, seconds
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()

    @property
    def agent(self) -> AgentProcess:
        """The agent that rows share, ANY_SIZE and CLASSIFIER running; what it holds is compared before and after."""
        return self._shared.agent

    @property
    def time_is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def steps(self, each: int = 1, least: int = 1) -> Iterator[int]:
        """0, 1, 2, ... until the count is reached or the time is over, but not before `least` are counted.

        `each`: how many a step counts.
        """
        while True:
            with self._lock:
                if self.reached >= least and (self.reached >= self.wanted or self.time_is_over):
                    return
                number, self.reached = self.reached, self.reached + each
            yield number

    def saw(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


class SharedAgent:
    """The agent that rows share, started when the first of them wants it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._agent: AgentProcess | None = None

    @property
    def agent(self) -> AgentProcess:
        if self._agent is None:
            # A worker that has seen the largest images has grown by more than the default allows.
            self._agent = self._stack.enter_context(AgentProcess("--worker-growth", "0"))
            start_models(self._agent, self._folder)
        return self._agent

    def close(self) -> None:
        self._stack.close()


def start_models(agent: AgentProcess, folder: Path) -> None:
    """Makes the packages of ANY_SIZE and CLASSIFIER in `folder`, and has the agent run both."""
    agent.run_model(ANY_SIZE, make_package(folder / ANY_SIZE, any_size=True))
    agent.run_model(CLASSIFIER, make_package(folder / CLASSIFIER, task="classification"))


@dataclass(frozen=True)
class Row:
    """One line of the plan."""

    name: str
    expectation: str
    """The fault, and what it must lead to."""
    unit: str
    """What is counted."""
    full: int
    """How many the plan asks for, all runs together."""
    short: int
    """How many `make test` does; a second or so."""
    check: Callable[[Run], None]
    """Injects faults for each of `run.steps()`; an AssertionError where one does not lead to what it must."""
    uses_shared_agent: bool = True

    def go(self, run: Run) -> None:
        """Runs the check; with the shared agent, nothing may stay behind in it and it must answer as before."""
        if not self.uses_shared_agent:
            self.check(run)
            return
        with nothing_stays_behind(run.agent):
            self.check(run)


ROWS: dict[str, Row] = {}
SOAK: dict[str, Row] = {}
"""Rows that only mean something over a long time: `make soak`."""


def row(
    name: str,
    expectation: str,
    *,
    unit: str,
    full: int,
    short: int,
    uses_shared_agent: bool = True,
    into: dict[str, Row] = ROWS,
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Makes a row of the function below."""

    def register(check: Callable[[Run], None]) -> Callable[[Run], None]:
        assert name not in into, name
        into[name] = Row(name, expectation, unit, full, short, check, uses_shared_agent)
        return check

    return register


def skip(reason: str) -> NoReturn:
    """For what a row needs and this machine has not; `python -m tests.faults` says so, as pytest does."""
    pytest.skip(reason)
