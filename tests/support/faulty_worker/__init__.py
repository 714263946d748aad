"""Agents whose workers break on purpose: an AgentProcess's environment for what `sitecustomize.py` beside this does."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path
from tests.support.faulty_worker.sitecustomize import ENDS

__all__ = ["ENDS", "faulty_workers"]


def faulty_workers(fault: str, *, model: str | None = None, when: Path | None = None) -> dict[str, str]:
    """The environment of an agent whose workers have `fault`: `load-sleep`, `load-crash` or `call-ends`.

    Only those of the package in a folder called `model`, and only while the file `when` exists, where these are given.
    """
    environment = {"PYTHONPATH": python_path(Path(__file__).parent), "FAULT": fault}
    if model is not None:
        environment["FAULT_MODEL"] = model
    if when is not None:
        environment["FAULT_WHEN"] = str(when)
    return environment
