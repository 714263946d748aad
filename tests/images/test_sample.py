"""Sampling as OpenCV does it, against formulas written out pixel by pixel."""

import math

import numpy as np
import pytest

from agent.images.sample import sample

SIZES = [(32, 24), (45, 35), (200, 10), (7, 160), (1, 1), (90, 70)]


def linear(distance):
    return max(0.0, 1 - abs(distance))


def cubic(distance):
    """Keys' kernel with a = -0.75, as OpenCV documents INTER_CUBIC."""
    distance, a = abs(distance), -0.75
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return 0.0


def matrix(source, wanted, kernel):
    """What each of `wanted` pixels takes from each of `source`; beyond the edge its pixel is repeated."""
    weights = np.zeros((wanted, source))
    for index in range(wanted):
        position = (index + 0.5) * source / wanted - 0.5
        for neighbour in range(math.floor(position) - 1, math.floor(position) + 3):
            weights[index, min(max(neighbour, 0), source - 1)] += kernel(position - neighbour)
    return weights


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


@pytest.mark.parametrize(("interpolation", "kernel"), [("bilinear", linear), ("bicubic", cubic)])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_are_the_formulas_rounded(pixels, width, height, interpolation, kernel):
    down, across = matrix(70, height, kernel), matrix(90, width, kernel)
    expected = np.einsum("yh,xw,hwc->yxc", down, across, pixels.astype(np.float64)).clip(0, 255)
    sampled = sample(pixels, width, height, interpolation)
    assert sampled.dtype == np.uint8
    # Half a level for rounding, and a float32's last digits: no pixel is off by more.
    assert np.abs(sampled - expected).max() <= 0.5 + 1e-3


def test_only_the_nearest_pixels_count_however_much_the_image_shrinks():
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[49:51, 49:51] = 255
    assert (sample(pixels, 1, 1, "bilinear") == 255).all()
    pixels[:] = 255
    pixels[49:51, 49:51] = 0
    assert (sample(pixels, 1, 1, "bilinear") == 0).all()


def test_halves_are_rounded_up():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = 1
    assert (sample(pixels, 1, 1, "bilinear") == 1).all()


def test_bicubic_overshoots_at_an_edge_and_stays_a_byte():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    sampled = sample(pixels, 80, 8, "bicubic")[0, :, 0]
    assert sampled[30] == 0  # below black without the clip: 255 once wrapped around
    assert sampled[49] == 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("threads", [2, 3])
def test_bands_on_several_threads_give_the_pixels_of_one_go(interpolation, threads):
    pixels = np.random.default_rng(3).integers(0, 256, (500, 700, 3), np.uint8)
    for width, height in ((640, 457), (333, 601)):
        np.testing.assert_array_equal(
            sample(pixels, width, height, interpolation, threads), sample(pixels, width, height, interpolation)
        )
