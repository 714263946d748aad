"""What is measured beside the calls: overload, start, idling, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from agent.settings import Settings
from benchmarks.serving.measure import CLIENTS, IN_FLIGHT, take_turn, take_turns_together
from benchmarks.serving.orders import Order
from benchmarks.serving.processes import load_processes, processor_seconds, resident_memory
from benchmarks.serving.results import percentile
from benchmarks.serving.servers import COMPONENT, Server

Figures = dict[str, float]

OVERLOAD = 10
OVERLOAD_CLIENTS, OVERLOAD_PROCESSES, OVERLOAD_NICENESS = 96, 4, 10
"""They share the cores with the agent: without niceness the measuring would be what is measured."""
SMALL = (640, 480)
DESCRIBE_INTERVAL = 0.01


def overload(address: str, seconds: float) -> Figures:
    """DescribeModel while clients send ten times the images that the model can answer."""
    segments = Order("segment", CLIENTS, *SMALL, address, COMPONENT)
    with load_processes(OVERLOAD_PROCESSES, OVERLOAD_NICENESS) as crowd, load_processes(1) as asking:
        capacity = take_turn(crowd, segments, 1.0).per_second
        # Those whose calls wait send nothing meanwhile: the others have to send it all.
        sending = OVERLOAD_CLIENTS - IN_FLIGHT - Settings().queue_length
        interval = sending / (OVERLOAD * capacity)
        flood = Order("segment", OVERLOAD_CLIENTS, *SMALL, address, COMPONENT, interval=interval)
        describing = Order("describe", 1, *SMALL, address, COMPONENT, interval=DESCRIBE_INTERVAL)
        flooding, described = take_turns_together([(crowd, flood), (asking, describing)], seconds, settling=1.0)
    answered = sum(not call.verdict.is_refusal for call in flooding.calls)
    return {
        "DescribeModel under overload, p50 ms": percentile(described.latencies, 50) * 1000,
        "DescribeModel under overload, p99 ms": percentile(described.latencies, 99) * 1000,
        "overload, images sent / images answered": len(flooding.calls) / max(1, answered),
        "overload, images answered / answered by 8 clients": answered / seconds / capacity,
    }


def start(server: Callable[[Path], AbstractContextManager[Server]], folder: Path, times: int) -> float:
    """Seconds from the start of the process until it answers, the median of some starts."""
    ready = []
    for number in range(times):
        with server(folder / str(number)) as started:
            ready.append(started.seconds_to_ready)
    return statistics.median(ready)


def idling(server: Server, seconds: float) -> float:
    """Per cent of a core that the agent and its workers take while nobody calls."""
    pids = [server.pid, *server.workers]
    before = sum(map(processor_seconds, pids))
    time.sleep(seconds)
    return (sum(map(processor_seconds, pids)) - before) / seconds * 100


def memory(server: Server) -> float:
    """MB of the agent without its workers."""
    return resident_memory(server.pid)
