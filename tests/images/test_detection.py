"""Colours, areas and the painted mask."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images.detection import paint_mask, regions_of, rgb
from agent.packages.palette import PALETTE, color_of

ORIGINAL = [
    "#FFFFFF",
    "#23A436",
    "#14A3B3",
    "#F76902",
    "#9380FF",
    "#BD10E0",
    "#467CE6",
    "#A09308",
    "#0094BD",
    "#CC7700",
]
GENERATED = {10: "#F28585", 11: "#00B234", 12: "#52008C", 13: "#D9C436", 14: "#1F8599", 15: "#660A3C", 99: "#660A0D"}
COLORS = [color_of(index) for index in range(100)]
NAMES = ["background", "dent", "scratch", "stain"]


def distance(one, other):
    """Of two colours, in RGB."""
    return float(np.linalg.norm(np.subtract(rgb(one), rgb(other))))


def test_the_first_ten_colours_are_the_original_services():
    assert COLORS[:10] == ORIGINAL


def test_a_hundred_labels_have_a_hundred_colours_written_alike():
    assert len(set(COLORS)) == 100
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in COLORS)


def test_no_colour_is_near_the_background():
    assert min(distance(color, PALETTE[0]) for color in COLORS[1:]) > 100


def test_generated_colours_keep_apart_from_the_palette_and_from_each_other():
    assert min(distance(one, other) for one in COLORS[10:] for other in PALETTE) > 20
    assert min(distance(one, other) for one, other in itertools.combinations(COLORS, 2)) > 20
    # At most 20 labels show in one mask: none is nearer to another than the palette's own nearest two.
    nearest_of_palette = min(distance(one, other) for one, other in itertools.combinations(PALETTE, 2))
    assert min(distance(one, other) for one, other in itertools.combinations(COLORS[:21], 2)) >= nearest_of_palette


def test_generated_colours_never_change():
    assert {index: COLORS[index] for index in GENERATED} == GENERATED  # clients may keep legends


def test_background_comes_first_even_without_a_pixel_and_types_without_pixels_are_left_out():
    labels = np.array([[2, 2, 2, 3]], np.uint8)
    assert [(r.name, r.area, r.color) for r in regions_of(labels, NAMES, COLORS[:4])] == [
        ("background", 0.0, "#FFFFFF"),
        ("scratch", 0.75, "#14A3B3"),
        ("stain", 0.25, "#F76902"),
    ]


def test_an_image_without_anomaly_is_all_background():
    assert [(r.name, r.area) for r in regions_of(np.zeros((4, 4), np.uint8), NAMES, COLORS[:4])] == [
        ("background", 1.0)
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_areas_are_fractions_of_all_pixels_in_the_order_of_the_labels(values):
    regions = regions_of(np.array([values], np.uint8), NAMES, COLORS[:4])
    assert sum(region.area for region in regions) == pytest.approx(1)
    for region in regions:
        assert region.area == pytest.approx(values.count(NAMES.index(region.name)) / len(values))
    assert [region.name for region in regions] == sorted((r.name for r in regions), key=NAMES.index)


def test_the_mask_holds_each_labels_colour_as_rgb_bytes():
    labels = np.array([[0, 1], [2, 3], [99, 0]], np.uint8)
    buffer = bytearray(18)
    paint_mask(labels, COLORS, np.frombuffer(buffer, np.uint8).reshape(3, 2, 3))
    expected = "".join(COLORS[label] for label in labels.ravel()).replace("#", "")
    assert buffer.hex().upper() == expected
