"""Runs a small model on a device as a worker would, and prints what came of it, as JSON.

    python -m agent.workbench.doctor.trial DEVICE [allow]

DEVICE may be `auto`; with `allow` the next best may stand in.

The model (`trial.onnx`: a convolution, a matrix product and a maximum, whose answer to ones is 1) has kernels of each
library that real ones need.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import cast

import numpy as np

from agent.backends.base import Backend, BackendSettings, ModelToOpen, WantedDevice
from agent.backends.opening import open_backend
from agent.errors import Refusal
from agent.packages.manifest import OnnxModel, PackageFile
from agent.workbench.doctor.trials import Outcome

SHAPE = (1, 3, 64, 64)
RUNS = 20
TOLERANCE = 0.01
"""Of the answer, in any precision."""


def run_trial(device: WantedDevice, allows_fallback: bool = False) -> Outcome:
    """What comes of it in this process."""
    model = PackageFile("trial.onnx", 0, "0" * 64, OnnxModel())
    settings = BackendSettings(device=device, allows_fallback=allows_fallback)
    try:
        with as_file(files("agent.workbench.doctor") / model.path) as path:
            backend, runs_on = open_backend([model], lambda file: _model_to_open(path), settings)
        answer, milliseconds = _measured(backend)
    except Refusal as refusal:
        return Outcome(reason=str(refusal).rstrip("."))
    if abs(answer - 1) > TOLERANCE:
        return Outcome(reason=f"it answers {answer} where 1 is right; update driver and runtime")
    return Outcome(f"{backend.runtime} on {backend.device}", milliseconds, reason=runs_on.because)


def _model_to_open(path: Path) -> ModelToOpen:
    return ModelToOpen(path, "image", SHAPE, "float32", ("score",), path.stat().st_size)


def _measured(backend: Backend) -> tuple[float, float]:
    """The answer to ones, and the median time of a run in milliseconds."""
    image, times = np.ones(SHAPE, np.float32), []
    for _ in range(RUNS):
        began = time.perf_counter()
        answer = backend.run({"image": image})["score"]
        times.append(time.perf_counter() - began)
    return float(answer.max()), statistics.median(times) * 1000


if __name__ == "__main__":
    print(json.dumps(asdict(run_trial(cast(WantedDevice, sys.argv[1]), sys.argv[2:] == ["allow"]))))
