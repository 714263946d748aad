"""A model as an engineer makes one: `edge-agent fit` on a few pictures of good parts, here drawn and small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.support.checkout import ROOT

WIDTH, HEIGHT = 98, 66
"""Of the pictures. Rows of 294 bytes: GStreamer pads them to 296."""


def plate(seed: int, scratched: bool = False) -> NDArray[np.uint8]:
    """A bright plate on dark ground with sensor noise, (HEIGHT, WIDTH, 3) RGB."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (50, 55, 60))
    x, y = WIDTH / 2 + rng.uniform(-3, 3), HEIGHT / 2 + rng.uniform(-3, 3)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x - 30, y - 20, x + 30, y + 20), fill=(180, 175, 160))
    if scratched:
        draw.line((x - 15, y - 10, x + 10, y + 8), fill=(20, 20, 90), width=5)
    noisy = np.asarray(picture) + rng.normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def fit_plates(folder: Path) -> Path:
    """The package of a model of such plates, made in `folder`."""
    good, package = folder / "good", folder / "plates-1.0.0"
    good.mkdir()
    for seed in range(12):
        Image.fromarray(plate(seed)).save(good / f"{seed:02}.png")
    command = [sys.executable, "-m", "agent", "fit", good, "--name", "plates", "--size", "80", "--output", package]
    fitted = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert fitted.returncode == 0, fitted.stderr
    return package
