"""Opens mutated models one after another as a worker does, until it dies of one or nobody listens any more.

    python -m tests.faults.packages_opener FOLDER SEED FIRST

FOLDER holds a package. Writes a line for each model: its number and what came of it, when it is over.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from agent.backends.base import BackendSettings
from agent.errors import Refusal
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from agent.workers.memory_limit import limited_memory
from tests.faults.packages_graphs import mutant, write_model

MEMORY = 512 << 20
"""Bytes that a model may take."""
TIME = 3
"""Seconds of processor time; then SIGXCPU ends the process."""


def main() -> None:
    folder, seed, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    # A core file for each model that ends the process would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        write_model(folder, mutant(seed, number))
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + TIME, resource.RLIM_INFINITY))
        print(number, _outcome(folder), flush=True)
        number += 1


def _outcome(folder: Path) -> str:
    try:
        with limited_memory(MEMORY):
            Pipeline(read_package(folder), BackendSettings()).self_test()
    except Refusal as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return "serves"


if __name__ == "__main__":
    main()
