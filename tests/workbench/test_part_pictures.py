"""Pictures of parts, with the truth about them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.workbench.part_pictures import Defect, draw_part

EVERY_DEFECT = pytest.mark.parametrize("defect", list(Defect))
SEEDS = range(500, 506)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int_]:
    """Per pixel, the largest difference over the channels."""
    return np.abs(one.astype(int) - other).max(axis=2)


@pytest.mark.parametrize("defect", [None, *Defect])
def test_the_same_seed_draws_the_same_picture(defect: Defect | None) -> None:
    first, second = draw_part(7, defect), draw_part(7, defect)
    assert (first.pixels == second.pixels).all()
    assert (first.mask == second.mask).all()


def test_another_seed_draws_another_picture() -> None:
    assert difference(draw_part(1).pixels, draw_part(2).pixels).mean() > 2


def test_a_good_part_has_an_empty_mask() -> None:
    picture = draw_part(3)
    assert picture.defect is None
    assert not picture.mask.any()


@EVERY_DEFECT
def test_a_defect_is_named_and_covers_a_realistic_share_of_the_picture(defect: Defect) -> None:
    shares = [draw_part(seed, defect).mask.mean() for seed in SEEDS]
    assert draw_part(SEEDS[0], defect).defect == defect.value
    assert min(shares) > 0.001
    assert max(shares) < 0.04


@EVERY_DEFECT
@pytest.mark.parametrize("seed", SEEDS)
def test_pictures_of_one_seed_differ_where_the_mask_says_and_visibly(defect: Defect, seed: int) -> None:
    good, bad = draw_part(seed), draw_part(seed, defect)
    changed = difference(good.pixels, bad.pixels)
    assert changed[bad.mask].sum() > 0.95 * changed.sum()
    assert (changed[bad.mask] > 12).mean() > 0.3


def test_the_kinds_of_defect_look_different() -> None:
    pictures = [draw_part(11, defect).pixels for defect in Defect]
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            assert (difference(one, other) > 20).sum() > 300


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (481, 353), (1280, 960)])
@pytest.mark.parametrize("defect", [None, Defect.CHIP])
def test_pictures_come_in_the_size_asked_for(size: tuple[int, int], defect: Defect | None) -> None:
    width, height = size
    picture = draw_part(5, defect, width, height)
    assert picture.pixels.shape == (height, width, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.mask.shape == (height, width)
    assert picture.mask.dtype == np.bool_
    assert picture.mask.any() == (defect is not None)


def test_a_picture_is_exposed_like_a_photograph() -> None:
    pixels = draw_part(8).pixels
    assert 50 < pixels.mean() < 130
    assert (pixels == 255).all(axis=2).mean() < 0.01
    assert pixels.std() > 25
