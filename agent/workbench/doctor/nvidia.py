"""The GPU, its driver and CUDA, as far as files tell; whether models run on it is tried (`trials`).

Source: /proc/driver/nvidia (NVIDIA driver README, "The /proc interface").
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from agent.backends.cuda_runtime import CudaError, CudaNotUsable, open_cuda_runtime
from agent.workbench.doctor.finding import Finding
from agent.workbench.doctor.jetson import jetson_findings
from agent.workbench.doctor.packages import version_of
from agent.workbench.doctor.system_file import text_of

DEVICE_FILES = ("nvidia[0-9]*", "nvhost-ctrl-gpu", "nvmap")
"""Below /dev: of a GPU on a card, and of a Jetson's."""
KERNELS = {
    "x86_64": ((1, 27), ("7.5", "8.0", "8.6", "8.9", "9.0", "12.0")),
    "aarch64": ((1, 29), ("8.9", "9.0", "12.0", "12.1")),
}
"""By machine: the compute capabilities that wheels of onnxruntime-gpu hold kernels for, and since which release."""
NO_GPU = Finding("GPU", "no NVIDIA driver and no Jetson: models run on the processor")


def nvidia_findings(root: Path = Path("/")) -> list[Finding]:
    """`root`: where the system's files are; elsewhere for tests."""
    jetson = jetson_findings(root)
    driver = _driver(root)
    cuda = _cuda(version_of("onnxruntime-gpu"))
    # Under WSL there is a GPU without any of these files.
    if not jetson and not driver and cuda[0].level != "ok":
        return [NO_GPU]
    return [*jetson, *driver, *cuda, *_device_files(root)]


def _driver(root: Path) -> list[Finding]:
    version = re.search(
        r"(?:Kernel Module.*?|for \S+)\s+(\d+\.\d+(?:\.\d+)?)", text_of(root / "proc/driver/nvidia/version")
    )
    if version is None:
        return []
    names = [
        line.partition(":")[2].strip()
        for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        for line in text_of(file).splitlines()
        if line.startswith("Model:")
    ]
    return [Finding("GPU", f"driver {version[1]}: {', '.join(names) or 'no GPU'}")]


def _cuda(onnxruntime_gpu: str | None) -> list[Finding]:
    """`onnxruntime_gpu`: its version, where it is installed."""
    try:
        cuda = open_cuda_runtime()
        gpu, (free, total) = cuda.gpu, cuda.memory()
        shared = ", shared with the processor" if gpu.is_integrated else ""
        found = Finding(
            "CUDA",
            f"{gpu.name}, compute capability {gpu.compute_capability}, {free >> 20} of {total >> 20} MiB free{shared}; "
            f"CUDA {cuda.release}, the driver serves up to {cuda.driver_release}",
        )
        return [found, *kernel_findings(gpu.compute_capability, onnxruntime_gpu, platform.machine())]
    except CudaNotUsable as error:
        what, _, todo = str(error).partition("; ")
        return [Finding("CUDA", what, "note", todo)]
    except CudaError as error:
        todo = "restart the device; if it comes again, install the driver again"
        return [Finding("CUDA", str(error), "note", todo)]


def kernel_findings(compute_capability: str, onnxruntime_gpu: str | None, machine: str) -> list[Finding]:
    """What is known of a wheel before a model is loaded: one without kernels for the GPU installs, and fails at the
    first run."""
    since, capabilities = KERNELS.get(machine, ((0, 0), ()))
    if onnxruntime_gpu is None or not capabilities or _release(onnxruntime_gpu) < since:
        return []
    major, minor = map(int, compute_capability.split("."))
    # Machine code runs on later GPUs of its generation (CUDA C++ Programming Guide, "Binary Compatibility").
    if any(int(built.split(".")[0]) == major and int(built.split(".")[1]) <= minor for built in capabilities):
        return []
    what = (
        f"onnxruntime-gpu {onnxruntime_gpu}, as the package index has it for {machine}, holds kernels for compute "
        f"capability {', '.join(capabilities)}, and this GPU has {compute_capability}"
    )
    todo = (
        "use device tensorrt, or an onnxruntime-gpu that was made for this GPU (NVIDIA's own on a Jetson); else: pip "
        "uninstall onnxruntime-gpu, then pip install 'vision-edge-agent[cpu]'"
    )
    return [Finding("CUDA kernels", what, "note", todo)]


def _release(version: str) -> tuple[int, int]:
    """(1, 31) for `1.31.1`."""
    major, minor = re.findall(r"\d+", f"{version}.0")[:2]
    return int(major), int(minor)


def _device_files(root: Path) -> list[Finding]:
    """Whether this user may use the GPU: files that the group `video` (or `render`) owns on a Jetson."""
    files = [file for name in DEVICE_FILES for file in sorted((root / "dev").glob(name))]
    closed = [file.name for file in files if not os.access(file, os.R_OK | os.W_OK)]
    if not closed:
        return []
    todo = "add the agent's user to the group video (usermod -aG video,render USER), and start the agent again"
    return [Finding("GPU access", f"this user may not use /dev/{', /dev/'.join(closed)}", "problem", todo)]
