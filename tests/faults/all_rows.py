"""Every row, by importing the modules that hold them."""

from tests.faults import (
    concurrency,
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
    "inputs",
    "inputs_limits",
    "inputs_messages",
    "inputs_wire",
    "processes",
    "segments",
    "soak",
    "surroundings",
]
