"""Agents whose models take as long as told: what `sitecustomize.py` beside this does, as an environment."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from tests.support.checkout import ROOT
from tests.support.slow_worker.sitecustomize import REFUSAL, RUN


def slow_workers(
    *, run: float = 0, never_loads: str = "", runs: Path | None = None, refusals: Path | None = None
) -> dict[str, str]:
    """The environment of an agent each of whose models takes `run` seconds for an image, asleep.

    The package in a folder called `never_loads` is never done with loading. What reaches a model is noted in the file
    `runs`, and how long the agent took for each refusal of a call that is one too many in the file `refusals`.
    """
    path = [str(Path(__file__).parent), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "SLOW_RUN": str(run),
        "SLOW_NEVER_LOADS": never_loads,
        "SLOW_NOTE_RUNS": str(runs or ""),
        "SLOW_NOTE_REFUSALS": str(refusals or ""),
    }


def noted_runs(file: Path) -> list[tuple[int, float]]:
    """Number of the image (24 bits in its first pixel) and `time.monotonic()` of each run, in order of their begin."""
    return list(struct.iter_unpack(RUN, file.read_bytes()))


def noted_refusals(file: Path) -> list[float]:
    """Seconds from a call's coming to its handler to its refusal, of each."""
    return [seconds for (seconds,) in struct.iter_unpack(REFUSAL, file.read_bytes())]
