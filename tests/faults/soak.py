"""Rows H: what only shows after a long time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.row import SOAK, Run, row, start_models
from tests.faults.soak_checker import LEAST_SAMPLES, MB, POOLED_THREADS, Sample, Trend, judge
from tests.faults.soak_client import fill_segment, segment_size
from tests.support.agent_process import AgentProcess, segment
from tests.support.checkout import ROOT


@dataclass(frozen=True)
class Mix:
    """What a load is made of."""

    width: int
    height: int
    """Of the largest of the usual images; the smallest have 64 x 64 pixels."""
    largest_every: int
    """One call in so many, of the first client, brings an image of 4096 x 4096; 0: none does."""


CAMERAS = Mix(1280, 960, largest_every=2000)
QUICK = Mix(160, 120, largest_every=0)
CLIENTS = 2
ROUND = 25
"""Calls of each client between two samples: those are taken while nobody calls."""
ALLOWED_PER_CALL = MB / 100_000
SETTLED = 100_000
"""Calls after which allocators have met every coincidence of images."""


class Load:
    """Clients in processes of their own: what they hold, and their interpreter's lock, are none of ours."""

    def __init__(self, agent: AgentProcess, segment_name: str, seed: int, mix: Mix) -> None:
        # Only the first brings the largest images: two at once take a runtime's memory to a new height whenever that
        # happens first, which would look like growth.
        self._clients = [
            _client(agent, segment_name, number, seed, mix.width, mix.height, 0 if number else mix.largest_every)
            for number in range(CLIENTS)
        ]

    def warm_up(self) -> Counter[str]:
        """What came of the calls that the clients make of themselves."""
        return self._outcomes()

    def calls(self, each: int) -> Counter[str]:
        """What came of `each` calls of each client, all clients at once."""
        for client in self._clients:
            client.stdin.write(f"{each}\n")
            client.stdin.flush()
        return self._outcomes()

    def close(self) -> None:
        for client in self._clients:
            client.kill()
            client.communicate()

    def _outcomes(self) -> Counter[str]:
        outcomes = Counter[str]()
        for client in self._clients:
            line = client.stdout.readline()
            assert line, "a client has ended"
            outcomes.update(json.loads(line))
        return outcomes


def _client(agent: AgentProcess, segment_name: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.soak_client", str(agent.socket), segment_name, *map(str, numbers)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@contextlib.contextmanager
def load_on(agent: AgentProcess, seed: int, mix: Mix) -> Iterator[Load]:
    with segment(b"", segment_size(CLIENTS)) as name:
        fill_segment(Path("/dev/shm") / name.removeprefix("/"))
        load = Load(agent, name, seed, mix)
        try:
            yield load
        finally:
            load.close()


class Watch:
    """Samples of an agent and of its workers, which must stay the same."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent, self._workers = agent, agent.worker_pids()
        self.agent: list[Sample] = []
        self.workers: dict[int, list[Sample]] = {pid: [] for pid in self._workers}

    def sample(self, steps: int) -> None:
        assert self._agent.worker_pids() == self._workers, "a worker was replaced"
        self.agent.append(Sample.of(self._agent.running.pid, steps))
        for pid, samples in self.workers.items():
            samples.append(Sample.of(pid, steps))


def load_and_watch(run: Run, agent: AgentProcess, mix: Mix, least: int) -> Watch:
    """Calls for as long as the run goes on, `least` in any case, and what was held meanwhile."""
    with load_on(agent, run.seed, mix) as load:
        run.outcomes.update(load.warm_up())
        watch, began = Watch(agent), time.monotonic()
        for _ in run.steps(each=CLIENTS * ROUND, least=least):
            run.outcomes.update(load.calls(ROUND))
            watch.sample(run.reached)
        run.figures["rate"] = f"{run.reached / (time.monotonic() - began):.0f} calls/s"
    assert set(run.outcomes) == {"OK"}, run.outcomes
    return watch


def judged(run: Run, watch: Watch, settled: int) -> dict[str, Trend]:
    """The trend of each process, told in the run's figures."""
    processes = {"agent": watch.agent}
    processes |= {f"worker {number}": samples for number, samples in enumerate(watch.workers.values(), 1)}
    return {name: _judged(run, name, samples, settled) for name, samples in processes.items()}


def _judged(run: Run, name: str, samples: list[Sample], settled: int) -> Trend:
    trend = judge(samples, ALLOWED_PER_CALL, settled, POOLED_THREADS)
    run.figures[name] = f"{samples[-1].resident / MB:.0f} MB, {trend.told(100_000, '100 k calls')}"
    return trend


@row(
    "H1",
    "calls without end: memory, descriptors and threads stay as they are, and every answer is right",
    unit="calls",
    full=2_600_000,
    short=600,
    into=SOAK,
)
def endless_calls(run: Run) -> None:
    watch = load_and_watch(run, run.agent, CAMERAS, least=LEAST_SAMPLES * CLIENTS * ROUND)
    for name, trend in judged(run, watch, SETTLED).items():
        assert not trend.complaints, (name, trend)


LEAKING = """
import os, sys

if "agent.workers.loop" in sys.orig_argv:
    from agent.pipeline import Pipeline

    detect, leaked = Pipeline.detect, []

    def leaking(self, *arguments):
        leaked.append(b"x" * int(os.environ["FAULT_LEAK"]))
        return detect(self, *arguments)

    Pipeline.detect = leaking
"""
"""A sitecustomize for workers."""
LEAKED_PER_CALL = 1024
LEAKED_AT_LEAST = 32 * MB
"""Over a run; a short one leaks more per call, and one whose time is over sooner goes on until then."""


@row(
    "H3",
    "workers that leak 1 KB per call: flagged by the judge of H1, and the agent beside them is not",
    unit="calls",
    full=100_000,
    short=600,
    uses_shared_agent=False,
    into=SOAK,
)
def leaking_workers(run: Run) -> None:
    (run.folder / "sitecustomize.py").write_text(LEAKING)
    leak = max(LEAKED_PER_CALL, LEAKED_AT_LEAST // run.wanted)
    path = os.pathsep.join([str(run.folder), os.environ.get("PYTHONPATH", "")])
    with AgentProcess(environment={"PYTHONPATH": path, "FAULT_LEAK": str(leak)}) as agent:
        start_models(agent, run.folder)
        # Large images leave free memory behind, which a leak fills before it shows.
        watch = load_and_watch(run, agent, QUICK, least=LEAKED_AT_LEAST // leak)
    run.figures["leak"] = f"{leak} bytes per call"
    trends = judged(run, watch, settled=0)
    assert not trends["agent"].complaints, trends
    # The classification model gets a tenth of the calls.
    assert any("memory grows" in complaint for complaint in trends["worker 1"].complaints), trends
