"""What boxes paint: the best on top, overlaps once, instances inside their boxes."""

import numpy as np
import pytest
from PIL import Image

from agent.images.box_painting import MOST_PAINTED, paint_boxes
from agent.images.boxes import Detections
from agent.images.placement import Axis, Placement
from agent.packages.manifest import Boxes

NAMES = ["background", "dent", "scratch"]
PLAIN = Placement(Axis(40, 40, 0, 40), Axis(30, 30, 0, 30))


def painted(found, layout="anchors", classes=("dent", "scratch"), placement=PLAIN, prototypes=None):
    """`found`: (box, score, class) or (box, score, class, coefficients); boxes may reach outside the image."""
    count = 0 if prototypes is None else len(prototypes)
    corners = np.array([one[0] for one in found], np.float64).reshape(-1, 4)
    inside = np.clip(corners, 0, (placement.width, placement.height) * 2).astype(np.intp)
    detections = Detections(
        corners,
        inside,
        np.array([one[1] for one in found], np.float64),
        np.array([one[2] for one in found], np.intp),
        np.array([one[3] if count else () for one in found], np.float32).reshape(len(found), count),
        prototypes,
    )
    labels = paint_boxes(detections, Boxes("boxes", layout, list(classes)), NAMES, placement)
    assert (labels.dtype, labels.shape) == (np.uint8, (placement.height, placement.width))
    return labels


def test_no_box_is_all_background():
    assert not painted([]).any()


def test_a_box_is_filled_with_the_label_of_its_class():
    labels = painted([((5, 10, 15, 30), 0.5, 0), ((20, 0, 40, 5), 0.6, 1)], classes=("scratch", "dent"))
    expected = np.zeros((30, 40), int)
    expected[10:30, 5:15], expected[0:5, 20:40] = 2, 1
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("layout", ["anchors", "rows"])
def test_better_boxes_lie_on_top(order, layout):
    labels = painted([((0, 0, 20, 20), 0.9, 0), ((10, 10, 30, 30), 0.6, 1)][::order], layout)
    assert (labels[10:20, 10:20] == 1).all()
    assert (labels == 2).sum() == 300


def test_of_boxes_of_a_class_that_overlap_only_the_best_paints():
    better, worse = ((0, 0, 20, 20), 0.9, 0), ((1, 0, 21, 20), 0.6, 0)
    assert not painted([worse, better])[:, 20].any()
    assert painted([worse, (*better[:2], 1)])[:, 20].any()  # another class
    assert painted([worse, better], "rows")[:, 20].any()  # the graph has suppressed overlaps itself


@pytest.mark.parametrize(("shift", "paints"), [(3, False), (4, True)])
def test_overlap_is_intersection_over_union_above_seven_tenths(shift, paints):
    """20 wide: 17 / 23 is 0.74, 16 / 24 is 0.67."""
    labels = painted([((0, 0, 20, 20), 0.9, 0), ((shift, 0, 20 + shift, 20), 0.6, 0)])
    assert labels[:, 20].any() == paints


def test_overlap_counts_what_lies_outside_the_image_too():
    """Inside it the two share all there is of the smaller."""
    labels = painted([((-100, 0, 20, 20), 0.9, 0), ((-10, 0, 21, 20), 0.6, 0)])
    assert labels[:, 20].any()


def test_a_suppressed_box_suppresses_none():
    chain = [((0, 0, 20, 20), 0.9, 0), ((3, 0, 23, 20), 0.8, 0), ((6, 0, 26, 20), 0.7, 0)]
    assert painted(chain)[0].nonzero()[0].tolist() == list(range(26))
    assert painted(chain[1:])[0].nonzero()[0].tolist() == list(range(3, 23))


@pytest.mark.parametrize("layout", ["anchors", "rows"])
def test_only_the_best_boxes_paint(layout):
    boxes = [((x, y, x + 1, y + 1), 1 - (30 * x + y) / 2000, 0) for x in range(40) for y in range(30)]
    labels = painted(boxes[::-1], layout)
    assert labels.sum() == MOST_PAINTED == 300
    assert labels[:, :10].all()


# --- instances


def logits_as_prototypes(logits):
    """Two prototypes whose sum, weighted 2 and -1, is `logits`."""
    noise = np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)
    return np.stack([(logits + noise) / 2, noise]).astype(np.float32)


def reference(logits, plane, placement, box):
    """The whole plane upsampled bilinearly to `plane` (width, height) times 1; then cut to the image, then the box."""
    upsampled = np.asarray(Image.fromarray(logits).resize(plane, Image.Resampling.BILINEAR)) > 0
    left, top = placement.across.start, placement.down.start
    image = upsampled[top : top + placement.down.size, left : left + placement.across.size]
    inside = np.zeros_like(image)
    inside[box[1] : box[3], box[0] : box[2]] = True
    return image & inside


@pytest.mark.parametrize(
    ("plane", "placement"),
    [
        ((40, 40), Placement(Axis(40, 40, 0, 40), Axis(40, 40, 0, 40))),
        ((40, 40), Placement(Axis(40, 40, 0, 40), Axis(24, 40, 8, 24))),  # letterbox
    ],
)
@pytest.mark.parametrize("box", [(0, 0, 40, 24), (7, 3, 30, 19), (39, 23, 40, 24), (0, 10, 1, 11)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_an_instance_is_where_the_upsampled_sum_of_prototypes_is_above_0_inside_the_box(plane, placement, box, dtype):
    smooth = np.random.default_rng(0).normal(size=(10, 10)).astype(np.float32)
    prototypes = logits_as_prototypes(smooth).astype(dtype)
    labels = painted([(box, 0.9, 0, (2, -1))], placement=placement, prototypes=prototypes)
    exact = 2 * prototypes[0].astype(np.float32) - prototypes[1]
    expected = reference(exact, plane, placement, box)
    assert expected.any() or box[2] - box[0] == 1
    np.testing.assert_array_equal(labels, expected)


def test_an_instance_has_the_images_resolution():
    """4 x 4 cells under 40 x 40 pixels: the diagonal is a diagonal, and no staircase of cells."""
    at = np.arange(4, dtype=np.float32)
    logits = at[None, :] - at[:, None] - np.float32(0.05)  # half a pixel: none lies on the border
    placement = Placement(Axis(40, 16, 0, 16), Axis(40, 16, 0, 16))
    labels = painted([((0, 0, 40, 40), 0.9, 0, (1,))], placement=placement, prototypes=logits[None])
    inner = slice(5, 35)  # beyond the outer cells' middles their values go on
    rows, columns = np.mgrid[0:40, 0:40]
    np.testing.assert_array_equal(labels[inner, inner], (columns > rows)[inner, inner])


def test_where_two_instances_boxes_meet_only_pixels_of_the_better_instance_cover_the_other():
    left_half = np.where(np.arange(40) < 20, 1.0, -1.0).astype(np.float32)
    prototypes = np.stack([np.tile(left_half, (30, 1)), np.ones((30, 40), np.float32)])
    labels = painted([((0, 0, 40, 30), 0.9, 0, (1, 0)), ((0, 0, 40, 30), 0.6, 1, (0, 1))], prototypes=prototypes)
    assert (labels[:, :20] == 1).all()
    assert (labels[:, 20:] == 2).all()


def test_an_image_smaller_than_the_prototypes_gets_its_instance_too():
    placement = Placement(Axis(10, 80, 0, 80), Axis(10, 80, 0, 80))
    logits = np.full((80, 80), -1.0, np.float32)
    logits[:, 40:] = 1.0
    labels = painted([((2, 2, 9, 9), 0.9, 0, (1,))], placement=placement, prototypes=logits[None])
    expected = np.zeros((10, 10), int)
    expected[2:9, 5:9] = 1
    np.testing.assert_array_equal(labels, expected)


def test_of_an_image_smaller_than_the_prototypes_a_box_shows_the_pixels_of_the_whole():
    """Each pixel is made of 16 x 16 cells, and many of those at the edges of the box lie beyond it."""
    placement = Placement(Axis(10, 80, 0, 80), Axis(10, 80, 0, 80))
    logits = np.random.default_rng(4).normal(size=(80, 80)).astype(np.float32)
    whole = np.asarray(Image.fromarray(logits).resize((10, 10), Image.Resampling.BILINEAR)) > 0
    for left, top in np.ndindex(7, 7):
        labels = painted([((left, top, left + 3, top + 3), 0.9, 0, (1,))], placement=placement, prototypes=logits[None])
        inside = np.s_[top : top + 3, left : left + 3]
        np.testing.assert_array_equal(labels[inside], whole[inside])
