"""A package's answers on one device, as JSON: a process of its own, so that no two runtimes share one.

python -m benchmarks.gpu_check.answers PACKAGE DEVICE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

import numpy as np

from agent.backends.base import BackendSettings, Device
from agent.packages.package import Package, read_package
from agent.pipeline import Pipeline

NOISE_IMAGES = 6


def answers(package: Package, device: Device) -> list[dict[str, object]]:
    """Of the package's self-test images, and of noise around various greys."""
    pipeline = Pipeline(package, BackendSettings(device=device))
    images = [package.self_test_pixels(test) for test in package.manifest.self_test]
    size, random = package.manifest.image, np.random.default_rng(0)
    for level in np.linspace(0, 255, NOISE_IMAGES):
        noise = random.normal(level, 30, (size.height, size.width, 3))
        images.append(noise.clip(0, 255).astype(np.uint8))
    found = []
    for image in images:
        detection = pipeline.detect(image)
        areas = {region.name: region.area for region in detection.regions}
        found.append({"score": detection.score, "is_anomalous": detection.is_anomalous, "areas": areas})
    return found


if __name__ == "__main__":
    print(json.dumps(answers(read_package(Path(sys.argv[1])), cast(Device, sys.argv[2]))))
