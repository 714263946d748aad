"""Devices that are not at hand: an AgentProcess's environment for what `sitecustomize.py` beside this pretends."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path
from tests.support.pretended_gpu.sitecustomize import GPU, SURROUNDINGS, pretend

__all__ = ["GPU", "SURROUNDINGS", "pretend", "pretended_gpu"]


def pretended_gpu(surroundings: str, *, switches: Path | None = None) -> dict[str, str]:
    """The environment of an agent whose workers find these `surroundings`; `switches`: a folder with the files
    `sticky` and `wrong`, while they exist."""
    assert surroundings in SURROUNDINGS
    environment = {"PYTHONPATH": python_path(Path(__file__).parent), "PRETENDED_GPU": surroundings}
    if switches is not None:
        environment["PRETENDED_GPU_SWITCHES"] = str(switches)
    return environment
