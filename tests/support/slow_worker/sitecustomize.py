"""Slows models down, and notes what reaches them, from within an agent's processes. The product has no hooks for it.

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in an agent and its workers.
(`tests.support.slow_worker` makes the environment and says what its variables do.)
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from typing import Any

RUN = "<Id"
REFUSAL = "<d"


def note(file: str, record: bytes) -> None:
    """One write to the end of the file: whole, whoever else writes."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, record)
    os.close(descriptor)


def slow_down(seconds: float, never_loads: str, runs: str) -> None:
    """Models that sleep: their capacity is known, and costs no processor."""
    from agent.backends.onnx_runtime import OnnxRuntimeBackend

    load, run = OnnxRuntimeBackend.__init__, OnnxRuntimeBackend.run

    def slow_load(self: Any, model: Any, *others: Any) -> None:
        if model.path.parent.name == never_loads:
            threading.Event().wait()
        load(self, model, *others)

    def slow_run(self: Any, inputs: Any) -> Any:
        if runs:
            red, green, blue = next(iter(inputs.values())).reshape(-1)[:3]
            note(runs, struct.pack(RUN, int(red) << 16 | int(green) << 8 | int(blue), time.monotonic()))
        time.sleep(seconds)
        return run(self, inputs)

    OnnxRuntimeBackend.__init__, OnnxRuntimeBackend.run = slow_load, slow_run


def time_refusals(file: str) -> None:
    from agent.errors import QueueFull, TooManyCalls
    from agent.rpc.service import EdgeAgent

    detect = EdgeAgent.DetectAnomalies

    def timed(*call: Any) -> Any:
        begin = time.monotonic()
        try:
            return detect(*call)
        except (QueueFull, TooManyCalls):
            note(file, struct.pack(REFUSAL, time.monotonic() - begin))
            raise

    EdgeAgent.DetectAnomalies = timed


if "SLOW_RUN" in os.environ:
    if sys.orig_argv[1:3] == ["-m", "agent.workers.loop"]:
        slow_down(float(os.environ["SLOW_RUN"]), os.environ["SLOW_NEVER_LOADS"], os.environ["SLOW_NOTE_RUNS"])
    elif sys.orig_argv[1:3] == ["-m", "agent"] and os.environ["SLOW_NOTE_REFUSALS"]:
        time_refusals(os.environ["SLOW_NOTE_REFUSALS"])
