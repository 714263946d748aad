"""Agents whose wall clock jumps: what `sitecustomize.py` beside this does, as an environment for AgentProcess."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path


def jumping_clock() -> dict[str, str]:
    return {"PYTHONPATH": python_path(Path(__file__).parent)}
