"""An agent to which the kernel says that AVAILABLE_MEMORY bytes are left, whatever there is.

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in an agent, not in its workers.
(`tests.support.little_memory` makes the environment.)
"""

from __future__ import annotations

import os
import sys

if sys.orig_argv[1:4] == ["-m", "agent", "serve"]:
    from agent import free_memory

    available = int(os.environ["AVAILABLE_MEMORY"])
    free_memory._mem_available = lambda: available
