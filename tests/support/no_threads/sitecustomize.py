"""An agent to which the kernel gives no more threads while a file (NO_THREADS_WHEN) exists.

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in an agent, not in its workers.
(`tests.support.no_threads` makes the environment. RLIMIT_NPROC would not hold root.)
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def refusing(start: Callable[..., Any], when: Path) -> Callable[..., Any]:
    def start_unless(*arguments: Any, **named: Any) -> Any:
        if when.exists():
            raise RuntimeError("can't start new thread")
        return start(*arguments, **named)

    return start_unless


if sys.orig_argv[1:4] == ["-m", "agent", "serve"]:
    when = Path(os.environ["NO_THREADS_WHEN"])
    for name in ("_start_new_thread", "_start_joinable_thread"):  # the latter since Python 3.13
        if hasattr(threading, name):
            setattr(threading, name, refusing(getattr(threading, name), when))
