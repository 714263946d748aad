"""Agents that find little memory left: what `sitecustomize.py` beside this does, as an environment for AgentProcess."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path


def little_memory(available: int) -> dict[str, str]:
    """`available`: bytes."""
    return {"PYTHONPATH": python_path(Path(__file__).parent), "AVAILABLE_MEMORY": str(available)}
