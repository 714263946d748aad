"""Where the image lies in the tensor, and what a map covers of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images.placement import Axis, Placement, map_cover, placement_of
from agent.packages.manifest import AgentPreprocessing, Cover, GraphPreprocessing, Rectangle

REGION = Rectangle(x=10, y=20, width=100, height=80)
sides = st.integers(64, 4096)


def agent(resize, width=640, height=640, **fields):
    return AgentPreprocessing(tensor="x", width=width, height=height, resize=resize, **fields)


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (GraphPreprocessing(tensor="x"), Placement(Axis(1280, 1280, 0, 1280), Axis(960, 960, 0, 960))),
        (
            GraphPreprocessing(tensor="x", region_of_interest=REGION),
            Placement(Axis(100, 100, 0, 100), Axis(80, 80, 0, 80)),
        ),
        (agent("stretch", 256, 128), Placement(Axis(1280, 256, 0, 256), Axis(960, 128, 0, 128))),
        (agent("letterbox"), Placement(Axis(1280, 640, 0, 640), Axis(960, 640, 80, 480))),
        (
            agent("letterbox", region_of_interest=REGION),
            Placement(Axis(100, 640, 0, 640), Axis(80, 640, 64, 512)),
        ),
        (agent("crop", 224, 224, shorter_side=256), Placement(Axis(1280, 224, -58, 341), Axis(960, 224, -16, 256))),
        (agent("crop", 224, 224), Placement(Axis(1280, 224, -37, 298), Axis(960, 224, 0, 224))),
    ],
)
def test_the_inspected_part_lies_where_its_preprocessing_puts_it(preprocessing, expected):
    assert placement_of(preprocessing, 1280, 960) == expected


@given(sides, sides, st.integers(8, 1280), st.integers(8, 1280))
def test_letterbox_is_ultralytics_arithmetic(width, height, plane_width, plane_height):
    ratio = min(plane_width / width, plane_height / height)
    unpadded = max(1, round(width * ratio)), max(1, round(height * ratio))
    left = round((plane_width - unpadded[0]) / 2 - 0.1)
    top = round((plane_height - unpadded[1]) / 2 - 0.1)
    placement = placement_of(agent("letterbox", plane_width, plane_height), width, height)
    assert (placement.across.start, placement.across.size) == (left, unpadded[0])
    assert (placement.down.start, placement.down.size) == (top, unpadded[1])
    for axis in (placement.across, placement.down):
        assert axis.start >= 0
        assert axis.start + axis.size <= axis.plane


@given(sides, sides, st.integers(8, 512), st.integers(0, 200))
def test_crop_is_torchvisions_arithmetic(width, height, side, more):
    shorter = side + more
    longer = int(shorter * max(width, height) / min(width, height))
    size = (longer, shorter) if width > height else (shorter, longer)
    placement = placement_of(agent("crop", side, side, shorter_side=shorter), width, height)
    assert (placement.across.size, placement.down.size) == size
    assert -placement.across.start == round((size[0] - side) / 2.0)
    assert -placement.down.start == round((size[1] - side) / 2.0)


@given(sides, sides, st.integers(8, 512), st.integers(8, 512))
def test_a_crop_without_a_shorter_side_is_as_small_as_covers(width, height, plane_width, plane_height):
    placement = placement_of(agent("crop", plane_width, plane_height), width, height)
    sizes = placement.across.size, placement.down.size
    assert sizes[0] == plane_width or sizes[1] == plane_height
    for axis in (placement.across, placement.down):
        assert axis.start <= 0
        assert axis.start + axis.size >= axis.plane


@given(sides, st.integers(8, 640), st.integers(-300, 300), st.integers(8, 640), st.integers(-50, 5000))
def test_a_position_goes_to_the_tensor_and_back(length, plane, start, size, position):
    axis = Axis(length, plane, start, size)
    assert axis.to_image(axis.to_tensor(float(position))) == pytest.approx(position, abs=1e-6)


# --- what a map covers


@given(sides, sides, st.sampled_from(["stretch", "letterbox"]), st.integers(1, 300))
def test_a_map_of_the_whole_plane_covers_every_pixel(width, height, resize, cells):
    placement = placement_of(agent(resize), width, height)
    for covered, axis in zip(
        map_cover(placement, (cells, cells), None), (placement.across, placement.down), strict=True
    ):
        assert (covered.first, covered.end) == (0, axis.length)
        # The image's share of the plane is the pixels' share of the cells.
        assert covered.right - covered.left == pytest.approx(cells * axis.size / axis.plane, abs=1e-6)
        assert 0 <= covered.first_cell <= covered.first_cell + covered.left < covered.end_cell <= cells
        assert covered.first_cell + covered.right <= covered.end_cell


def test_cells_that_hold_nothing_but_padding_are_cut_off():
    across, down = map_cover(placement_of(agent("letterbox"), 1280, 960), (160, 160), None)
    assert (across.first_cell, across.end_cell) == (0, 160)
    assert (down.first_cell, down.end_cell) == (20, 140)  # 80 of 640 pixels, above and below
    assert (down.left, down.right) == (0, 120)


def test_a_cell_that_holds_some_padding_is_kept_and_the_pixels_begin_inside_it():
    _, down = map_cover(placement_of(agent("letterbox"), 1280, 960), (20, 20), None)
    assert (down.first_cell, down.end_cell, down.left, down.right) == (2, 18, 0.5, 15.5)


def test_a_floats_last_digit_makes_no_cell_of_padding_part_of_the_image():
    """The map covers 201.6 of 224 pixels, 28.8 a cell; the image begins where its second one does, and ends with six.

    In floats that is 0.9999999999999999 and 6.000000000000001 cells: both neighbours hold nothing but padding.
    """
    covered = Axis(length=64, plane=224, start=40, size=144).covered(7, begin=0.05, share=0.9)
    assert (covered.first_cell, covered.end_cell) == (1, 6)
    assert (covered.left, covered.right) == (0, 5)  # Pillow takes no part below 0 and none beyond the last cell


def test_of_a_crop_the_middle_of_the_image_is_covered():
    across, down = map_cover(placement_of(agent("crop", 224, 224, shorter_side=256), 1280, 960), (28, 56), None)
    assert (down.first, down.end) == (60, 900)  # 16 of 256 pixels above and below
    assert (across.first, across.end) == (218, 1059)  # 58 of 341 at the left, 59 at the right
    assert (across.first_cell, across.end_cell) == (0, 56)
    assert across.left == pytest.approx(0, abs=0.1)
    assert across.right == pytest.approx(56, abs=0.1)


def test_a_map_of_a_part_covers_that_part():
    placement = placement_of(agent("stretch", 256, 256), 1000, 500)
    across, down = map_cover(placement, (14, 28), Cover(x=0.0625, y=0.125, width=0.875, height=0.75))
    assert (across.first, across.end) == (62, 937)  # the edges, 62.5 and 937.5, are middles of pixels
    assert (down.first, down.end) == (62, 437)
    assert (across.first_cell, across.end_cell) == (0, 28)


@given(
    st.integers(64, 2000),
    st.integers(8, 300),
    st.integers(-200, 200),
    st.integers(8, 600),
    st.integers(1, 300),
    st.floats(0, 0.9),
    st.floats(0.01, 1),
)
def test_whatever_lies_wherever_pixels_and_cells_stay_inside(length, plane, start, size, cells, begin, share):
    covered = Axis(length, plane, start, size).covered(cells, begin, min(share, 1 - begin))
    assert 0 <= covered.first <= covered.end <= length
    assert 0 <= covered.first_cell <= covered.end_cell <= cells
    if covered.first < covered.end:
        assert 0 <= covered.left < covered.right <= covered.end_cell - covered.first_cell


def test_a_map_that_lies_on_the_padding_alone_covers_nothing():
    covered = Axis(100, 640, 80, 480).covered(10, 0.0, 0.1)
    assert (covered.first, covered.end, covered.first_cell, covered.end_cell) == (0, 0, 0, 0)


def test_many_positions_go_back_at_once():
    axis = Axis(960, 640, 80, 480)
    np.testing.assert_array_equal(axis.to_image(np.array([80.0, 320.0, 560.0])), [0, 480, 960])
