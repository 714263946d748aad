"""The computer: processor, memory, shared memory, system."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from agent import __version__
from agent.free_memory import available_memory
from agent.workbench.doctor.finding import Finding
from agent.workbench.doctor.system_file import text_of

LITTLE_MEMORY = 512 << 20
"""Bytes; an agent with one small model takes about half of it."""
LITTLE_SHARED_MEMORY = 128 << 20
"""Bytes; an image of 4096 x 4096 pixels and its mask take 96 MiB. Containers get 64 MiB unless they are told more."""

NO_SHARED_MEMORY = "clients can send images in messages only; mount a tmpfs there, writable for all (mode 1777)"


def machine_findings(root: Path = Path("/")) -> list[Finding]:
    """`root`: where the system's files are; elsewhere for tests."""
    return [_system(root), _processor(root), _memory(), _shared_memory(root / "dev/shm")]


def _system(root: Path) -> Finding:
    name = "Linux"
    for line in text_of(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            name = line.partition("=")[2].strip('"')
    python = platform.python_version()
    return Finding(
        "system", f"{name}, kernel {platform.release()}, Python {python} ({sys.executable}), agent {__version__}"
    )


def _processor(root: Path) -> Finding:
    allowed, there_are = len(os.sched_getaffinity(0)), os.cpu_count() or 0
    lines = text_of(root / "proc/cpuinfo").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    what = f"{name}, {platform.machine()}, {allowed} of {there_are} processors for this process"
    if allowed < there_are:
        return Finding(
            "processor", what, "note", "more of them only by what started this process (taskset, a container)"
        )
    return Finding("processor", what)


def _memory() -> Finding:
    available = available_memory()
    what = f"{available >> 20} MiB may be taken"
    if available < LITTLE_MEMORY:
        return Finding("memory", what, "problem", "end other programs, or raise the memory limit of the container")
    return Finding("memory", what)


def _shared_memory(folder: Path) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("shared memory", f"/dev/shm cannot be used: {error.strerror}", "problem", NO_SHARED_MEMORY)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("shared memory", "/dev/shm cannot be written by this user", "problem", NO_SHARED_MEMORY)
    what = f"/dev/shm has {usage.total >> 20} MiB, {usage.free >> 20} MiB free"
    if usage.free < LITTLE_SHARED_MEMORY:
        todo = "enough for small images only; give a container --shm-size=1g, or remount it: mount -o remount,size=1g"
        return Finding("shared memory", what, "note", todo)
    return Finding("shared memory", what)
