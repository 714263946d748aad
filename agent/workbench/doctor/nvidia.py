"""The GPU, its driver, CUDA and JetPack, as far as files tell; whether models run on it is tried (`trials`).

Sources: /proc/driver/nvidia (NVIDIA driver README, "The /proc interface"); /etc/nv_tegra_release and
/proc/device-tree/model (Jetson Linux Developer Guide).
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from agent.backends.cuda_runtime import CudaError, CudaNotUsable, open_cuda_runtime
from agent.workbench.doctor.finding import Finding

JETPACK_OF_L4T = {"35": "5", "36": "6", "38": "7"}
"""Major release of Jetson Linux to that of JetPack."""
DEVICE_FILES = ("nvidia[0-9]*", "nvhost-ctrl-gpu", "nvmap")
"""Below /dev: of a GPU on a card, and of a Jetson's."""
OLDEST_JETPACK = 6
"""JetPack 5's Python (3.8) is too old for the agent."""


def nvidia_findings(root: Path = Path("/")) -> list[Finding]:
    """`root`: where the system's files are; elsewhere for tests."""
    jetson = _jetson(root)
    driver = _driver(root)
    if not jetson and not driver:
        return [Finding("GPU", "no NVIDIA driver and no Jetson: models run on the processor")]
    return [*jetson, *driver, _cuda(), *_device_files(root)]


def _jetson(root: Path) -> list[Finding]:
    release = _text(root / "etc/nv_tegra_release")
    if not release:
        return []
    board = _text(root / "proc/device-tree/model").strip("\0\n") or "a Jetson"
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    major, revision = (found[1], found[2]) if found else ("?", "?")
    jetpack = JETPACK_OF_L4T.get(major)
    named = f" (JetPack {jetpack})" if jetpack else ""
    what = f"{board}, Jetson Linux {major}.{revision}{named}, Python {platform.python_version()}"
    if jetpack and int(jetpack) < OLDEST_JETPACK:
        return [Finding("Jetson", what, "problem", "flash JetPack 6 or newer: the agent needs Python 3.10")]
    return [Finding("Jetson", what)]


def _driver(root: Path) -> list[Finding]:
    version = re.search(
        r"(?:Kernel Module.*?|for \S+)\s+(\d+\.\d+(?:\.\d+)?)", _text(root / "proc/driver/nvidia/version")
    )
    if version is None:
        return []
    names = [
        line.partition(":")[2].strip()
        for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        for line in _text(file).splitlines()
        if line.startswith("Model:")
    ]
    return [Finding("GPU", f"driver {version[1]}: {', '.join(names) or 'no GPU'}")]


def _cuda() -> Finding:
    try:
        cuda = open_cuda_runtime()
        gpu, (free, total) = cuda.gpu, cuda.memory()
        shared = ", shared with the processor" if gpu.is_integrated else ""
        return Finding(
            "CUDA",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {free >> 20} of {total >> 20} MiB free{shared}; "
            f"CUDA {cuda.release}, the driver serves up to {cuda.driver_release}",
        )
    except CudaNotUsable as error:
        what, _, todo = str(error).partition("; ")
        return Finding("CUDA", what, "note", todo)
    except CudaError as error:
        return Finding("CUDA", str(error), "note", "restart the device; if it comes again, install the driver again")


def _device_files(root: Path) -> list[Finding]:
    """Whether this user may use the GPU: files that the group `video` (or `render`) owns on a Jetson."""
    files = [file for name in DEVICE_FILES for file in sorted((root / "dev").glob(name))]
    closed = [file.name for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if not closed:
        return []
    todo = "add the agent's user to the group video (usermod -aG video,render USER), and start the agent again"
    return [Finding("GPU access", f"this user may not use /dev/{', /dev/'.join(closed)}", "problem", todo)]


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
