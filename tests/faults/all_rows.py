"""Every row, by importing the modules that hold them, in the order of the plan."""

from tests.faults import (
    concurrency,
    concurrency_answers,
    concurrency_load,
    concurrency_updates,
    inputs,
    inputs_limits,
    inputs_messages,
    inputs_wire,
    processes,
    segments,
    soak,
    surroundings,
)
from tests.faults.row import ROWS, SOAK

__all__ = [
    "ROWS",
    "SOAK",
    "concurrency",
    "concurrency_answers",
    "concurrency_load",
    "concurrency_updates",
    "inputs",
    "inputs_limits",
    "inputs_messages",
    "inputs_wire",
    "processes",
    "segments",
    "soak",
    "surroundings",
]
