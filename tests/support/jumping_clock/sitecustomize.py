"""A wall clock that jumps by ten years whenever it is read; the monotonic clock stays as it is.

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in an agent and its workers.
(`tests.support.jumping_clock` makes the environment.)
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

TEN_YEARS = 10 * 365 * 86400
"""Seconds."""
JUMPS = (-TEN_YEARS, TEN_YEARS)


def jumping(clock: Callable[[], Any], unit: int) -> Callable[[], Any]:
    def read() -> Any:
        # gRPC compares this clock with the kernel's, which it reads in C: shifted for one of the two, it would be two
        # clocks that disagree and not one that jumps.
        if sys._getframe(1).f_globals.get("__name__", "").startswith("grpc"):
            return clock()
        return clock() + random.choice(JUMPS) * unit

    return read


if sys.orig_argv[1:4] == ["-m", "agent", "serve"] or sys.orig_argv[1:3] == ["-m", "agent.workers.loop"]:
    time.time = jumping(time.time, 1)
    time.time_ns = jumping(time.time_ns, 10**9)
