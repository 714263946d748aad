"""Every row, by importing the modules that hold them, in the order of the plan."""

from importlib import import_module

from tests.faults.row import ROWS, SOAK

for module in (
    "inputs",
    "inputs_limits",
    "inputs_messages",
    "inputs_wire",
    "segments",
    "segments_races",
    "segments_masks",
    "segments_lifetimes",
    "concurrency",
    "concurrency_load",
    "concurrency_updates",
    "concurrency_answers",
    "processes",
    "processes_agents",
    "processes_sockets",
    "processes_limits",
    "surroundings",
    "surroundings_access",
    "surroundings_secrets",
    "surroundings_code",
    "surroundings_workers",
    "devices",
    "settings",
    "settings_live",
    "soak",
    "soak_cycles",
):
    import_module(f"tests.faults.{module}")

__all__ = ["ROWS", "SOAK"]
