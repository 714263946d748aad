"""Agents that get no more threads: what `sitecustomize.py` beside this does, as an environment for AgentProcess."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path


def no_threads(when: Path) -> dict[str, str]:
    """While the file `when` exists."""
    return {"PYTHONPATH": python_path(Path(__file__).parent), "NO_THREADS_WHEN": str(when)}
