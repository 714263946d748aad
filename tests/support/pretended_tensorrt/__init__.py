"""A device with a GPU and TensorRT, for processes: the environment that makes them find the fakes."""

from __future__ import annotations

from pathlib import Path

from tests.support.checkout import python_path


def pretended_tensorrt(cuda: Path, gate: Path | None = None) -> dict[str, str]:
    """The environment of an agent or a command; `cuda` is the compiled fake, and a build waits until the FIFO `gate` is
    opened for writing."""
    environment = {
        "PYTHONPATH": python_path(Path(__file__).parent),
        "LD_LIBRARY_PATH": str(cuda.parent),
        "PRETENDED_CUDA": str(cuda),
    }
    return environment if gate is None else {**environment, "PRETENDED_BUILD_GATE": str(gate)}
