"""Small changes that a good image would also stand: turned, shifted, brighter or darker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LARGEST_TURN = 3.0
"""Degrees, to either side."""
LARGEST_SHIFT = 0.02
"""Share of the side, to either side."""
LARGEST_BRIGHTENING = 0.04
"""Share of the intensity, up or down."""
MARGIN = 0.08
"""Share of the longer side by which edges are repeated outwards, so that no black corner becomes normal."""


def augmented(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A changed copy of `pixels` (height, width, 3), RGB, of the same size."""
    height, width = pixels.shape[:2]
    turn = np.deg2rad(rng.uniform(-LARGEST_TURN, LARGEST_TURN))
    shift_x = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT) * width
    shift_y = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT) * height
    gain = 1 + rng.uniform(-LARGEST_BRIGHTENING, LARGEST_BRIGHTENING)

    margin = int(MARGIN * max(height, width))
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    size = (width + 2 * margin, height + 2 * margin)
    centre_x, centre_y = size[0] / 2, size[1] / 2
    cos, sin = np.cos(turn), np.sin(turn)
    # Pillow's affine coefficients lead from the new pixel to the old one; the centre stays, then the shift is added.
    coefficients = (
        cos,
        sin,
        centre_x - cos * centre_x - sin * centre_y + shift_x,
        -sin,
        cos,
        centre_y + sin * centre_x - cos * centre_y + shift_y,
    )
    turned = Image.fromarray(padded).transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    inner = np.asarray(turned)[margin : margin + height, margin : margin + width]
    return np.clip(inner * gain, 0, 255).astype(np.uint8)
