"""What is TensorRT's alone: how long a build takes, that it is done once, and what a damaged engine leads to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu_check.result import Result, passed
from benchmarks.serving.model import Package

PRECISIONS = {"fp32": 0.005, "fp16": 0.05}
"""How far scores and areas may be from the CPU's: what packages allow unless they say otherwise."""


def engine_checks(package: Package, cache: Path) -> Iterator[Result]:
    """`cache`: a folder for engines, empty."""
    seconds, built = _opened(package, cache)
    (engine,) = cache.glob("*.engine")
    figures = f"{seconds:.1f} s with its start and self-test, {engine.stat().st_size / (1 << 20):.1f} MiB; {built}"
    yield passed("an engine is built", built.count("building a TensorRT engine") == 1, figures)
    seconds, loaded = _opened(package, cache)
    yield passed("the next start loads it", "building" not in loaded, f"{seconds:.1f} s with its start and self-test")
    os.truncate(engine, engine.stat().st_size // 2)
    seconds, rebuilt = _opened(package, cache)
    holds = "put aside" in rebuilt and "building a TensorRT engine" in rebuilt
    yield passed("a truncated engine is built again", holds, f"{seconds:.1f} s, with what was measured before")


def _opened(package: Package, cache: Path) -> tuple[float, str]:
    """Seconds, and what `edge-agent engines build` says of its progress, on one line."""
    command = [sys.executable, "-m", "agent", "engines", "build", str(package.folder), "--engine-cache", str(cache)]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if ended.returncode:
        sys.exit(f"No engine can be built of {package.folder}: {ended.stderr.strip()}")
    return seconds, "; ".join(line for line in ended.stderr.splitlines() if "engine" in line)
