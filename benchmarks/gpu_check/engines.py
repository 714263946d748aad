"""What is TensorRT's alone: how long a build takes, that it is done once, and what a damaged engine leads to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu_check.result import Result, passed
from benchmarks.serving.model import Package

PRECISIONS = {"fp32": 0.005, "fp16": 0.05}
"""How far scores and areas may be from the CPU's: what packages allow unless they say otherwise."""


TIME_LIMIT = 900.0
"""Seconds after which a process is given up: builds take minutes on a Jetson, and some wait for several."""


def engine_checks(package: Package, cache: Path) -> Iterator[Result]:
    """`cache`: a folder for engines, empty."""
    seconds, built = _engines_build(package.folder, cache)
    # One, or two where fp16 deviates: the one that serves was written last.
    engine = max(cache.glob("*.engine"), key=lambda file: file.stat().st_mtime)
    figures = f"{seconds:.1f} s with its start and self-test, {engine.stat().st_size / (1 << 20):.1f} MiB; {built}"
    yield passed("an engine is built", "building a TensorRT engine" in built, figures)
    seconds, loaded = _engines_build(package.folder, cache)
    yield passed("the next start loads it", "building" not in loaded, f"{seconds:.1f} s with its start and self-test")
    os.truncate(engine, engine.stat().st_size // 2)
    seconds, rebuilt = _engines_build(package.folder, cache)
    holds = "put aside" in rebuilt and "building a TensorRT engine" in rebuilt
    yield passed("a truncated engine is built again", holds, f"{seconds:.1f} s, with what was measured before")
    yield from _brought_by_a_package(package, cache)


def _brought_by_a_package(package: Package, cache: Path) -> Iterator[Result]:
    """What a device builds into a package, another one loads: here the same one, with an empty cache."""
    brings, empty = cache.with_name("brings-its-engine"), cache.with_name("empty-cache")
    _engines_build(package.folder, cache, "--into", str(brings))
    seconds, said = _engines_build(brings, empty)
    holds = "building" not in said and not list(empty.glob("*.engine"))
    yield passed("an engine that a package brings is loaded", holds, f"{seconds:.1f} s with its start and self-test")


def built_for_agents(packages: Sequence[Package]) -> Iterator[Result]:
    """Into the engine cache of the environment."""
    took = [_engines_build(package.folder, Path(os.environ["EDGE_AGENT_ENGINE_CACHE"]))[0] for package in packages]
    yield Result("engines of the agents below", "measured", f"built in {', '.join(f'{each:.1f} s' for each in took)}")


def _engines_build(package: Path, cache: Path, *flags: str) -> tuple[float, str]:
    """Seconds, and what `edge-agent engines build` says of its progress, on one line."""
    command = [sys.executable, "-m", "agent", "engines", "build", str(package), "--engine-cache", str(cache), *flags]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIME_LIMIT)
    seconds = time.monotonic() - began
    if ended.returncode:
        raise RuntimeError(f"no engine can be built of {package.name}: {ended.stderr.strip()}")
    return seconds, "; ".join(line for line in ended.stderr.splitlines() if "engine" in line)
