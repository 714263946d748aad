"""Resizing by area is the mean of what a new pixel covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.images.area import resize_by_area


def by_repeating(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float64]:
    """The same by brute force: enlarged to a common multiple, then the mean of whole blocks."""
    rows, columns = pixels.shape[:2]
    tall, wide = math.lcm(rows, height), math.lcm(columns, width)
    large = pixels.repeat(tall // rows, axis=0).repeat(wide // columns, axis=1)
    return large.reshape(height, tall // height, width, wide // width, 3).mean(axis=(1, 3))


@pytest.mark.parametrize(
    ("width", "height"), [(12, 9), (24, 18), (48, 36), (17, 13), (5, 7), (30, 40), (24, 36), (1, 1), (25, 19)]
)
def test_every_pixel_is_the_mean_of_what_it_covers(width: int, height: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (18, 24, 3), np.uint8)
    resized = resize_by_area(pixels, width, height)
    assert (resized.shape, resized.dtype) == ((height, width, 3), np.uint8)
    assert resized.flags.c_contiguous
    assert np.abs(resized - by_repeating(pixels, width, height)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("source", "wanted"), [(29, 7), (25, 11), (480, 29), (960, 85)])
def test_the_last_pixel_ends_where_the_image_does(source: int, wanted: int) -> None:
    assert wanted * (source / wanted) > source  # in floats
    pixels = np.zeros((source, source, 3), np.uint8)
    pixels[-1, -1] = 255
    expected = np.zeros((wanted, wanted, 3), np.uint8)
    expected[-1, -1] = round(255 * (wanted / source) ** 2)
    np.testing.assert_array_equal(resize_by_area(pixels, wanted, wanted), expected)


def test_even_images_stay_even() -> None:
    """Weights add up to one wherever the edges fall."""
    for side in range(1, 60):
        assert (resize_by_area(np.full((37, 41, 3), 255, np.uint8), side, side) == 255).all()
