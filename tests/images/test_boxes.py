"""Boxes out of a detector's tensors: both layouts, where they lie in the image, which of them count."""

import math

import numpy as np
import pytest

from agent.errors import AnswerNotFinite, ModelDoesNotFit
from agent.images.boxes import detections
from agent.images.inspected import Inspected
from agent.images.placement import Axis, Placement
from agent.packages.manifest import Boxes

LABELS = ["background", "dent", "scratch"]
PLAIN = Placement(Axis(100, 100, 0, 100), Axis(80, 80, 0, 80))
"""A 100 x 80 image that is the tensor itself."""
LETTERBOXED = Placement(Axis(200, 100, 0, 100), Axis(100, 100, 25, 50))
"""A 200 x 100 image at half its size in 100 x 100, 25 rows of padding above and below."""
CROPPED = Placement(Axis(100, 80, -10, 100), Axis(80, 80, 0, 80))


def anchors(*columns):
    """(1, values, N) of N columns."""
    return {"boxes": np.array(columns, np.float32).T[None]}


def rows(*values):
    return {"boxes": np.array(values, np.float32)[None]}


def found(tensors, layout="anchors", placement=PLAIN, inspected=None, labels=LABELS, prototypes=None):
    return detections(
        tensors,
        Boxes("boxes", layout, labels, prototypes),
        placement,
        None if inspected is None else Inspected(inspected),
    )


def test_an_anchor_holds_middle_and_size_and_its_best_anomalous_class_counts():
    detected = found(anchors((50, 40, 20, 10, 0.9, 0.2, 0.3), (10, 20, 10, 20, 0.1, 0.7, 0.6)))
    assert detected.pixels.tolist() == [[40, 35, 60, 45], [5, 10, 15, 30]]
    assert detected.scores == pytest.approx([0.3, 0.7], abs=1e-6)
    assert detected.classes.tolist() == [2, 1]


def test_a_row_holds_corners_score_and_class_and_background_does_not_count():
    detected = found(rows((40, 35, 60, 45, 0.3, 2), (0, 0, 9, 9, 0.8, 0), (5, 10, 15, 30, 0.7, 1)), "rows")
    assert detected.pixels.tolist() == [[40, 35, 60, 45], [5, 10, 15, 30]]
    assert detected.scores == pytest.approx([0.3, 0.7], abs=1e-6)
    assert detected.classes.tolist() == [2, 1]


def test_half_precision_is_read_too():
    tensors = {"boxes": anchors((50, 40, 20, 10, 0.5, 0.25, 0.75))["boxes"].astype(np.float16)}
    detected = found(tensors)
    assert (detected.pixels.tolist(), detected.scores.tolist()) == ([[40, 35, 60, 45]], [0.75])


def test_rows_that_only_fill_the_tensor_are_no_boxes():
    assert found(rows((0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, -1)), "rows").scores.size == 0


@pytest.mark.parametrize("coefficients", [0, 4])
def test_a_graph_that_finds_nothing_may_answer_no_rows_at_all(coefficients):
    tensors = {"boxes": np.zeros((1, 0, 6 + coefficients), np.float32), "p": np.zeros((1, 4, 8, 8), np.float32)}
    assert found(tensors, "rows", prototypes="p" if coefficients else None).scores.size == 0


# --- where they lie in the image


def test_a_letterbox_is_undone():
    detected = found(anchors((50, 50, 20, 10, 0, 1, 0)), placement=LETTERBOXED)
    assert detected.pixels.tolist() == [[80, 40, 120, 60]]


def test_a_crop_is_undone_and_what_was_not_seen_is_not_painted():
    detected = found(anchors((40, 40, 20, 10, 0, 1, 0), (0, 10, 20, 10, 0, 1, 0)), placement=CROPPED)
    assert detected.pixels.tolist() == [[40, 35, 60, 45], [10, 5, 20, 15]]


def test_boxes_are_cut_off_at_the_images_edge_and_those_beside_it_do_not_count():
    inside = (0, 50, 400, 400, 0, 0.3, 0)
    on_padding = (50, 10, 20, 20, 0, 0.9, 0)
    beside = (500, 50, 20, 20, 0, 0.9, 0)
    detected = found(anchors(on_padding, inside, beside), placement=LETTERBOXED)
    assert detected.pixels.tolist() == [[0, 0, 200, 100]]
    assert detected.scores == pytest.approx([0.3])


def test_edges_go_to_the_nearest_border_and_no_box_vanishes():
    detected = found(rows((10.4, 10.6, 20.4, 20.6, 1, 1), (30.1, 30.1, 30.2, 30.2, 1, 1)), "rows")
    assert detected.pixels.tolist() == [[10, 11, 20, 21], [30, 30, 31, 31]]


def test_a_box_as_far_away_as_a_float_goes_is_cut_off_like_any():
    far = 3e38
    around, beside = (0, 0, far, far, 0, 1, 0), (far, far, far, far, 0, 1, 0)
    assert found(anchors(around, beside)).pixels.tolist() == [[0, 0, 100, 80]]


def test_boxes_on_nothing_but_ignored_pixels_do_not_count():
    inspected = np.zeros((80, 100), bool)
    inspected[:, 50:] = True
    detected = found(
        anchors((20, 20, 10, 10, 0, 0.9, 0), (50, 20, 10, 10, 0, 0.4, 0), (80, 20, 10, 10, 0, 0.3, 0)),
        inspected=inspected,
    )
    assert detected.scores == pytest.approx([0.4, 0.3])


# --- what cannot be used


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 5])
def test_a_value_that_is_not_finite_is_no_answer(value, place):
    column, row = [50, 40, 20, 10, 0.9, 0.2, 0.3], [40, 35, 60, 45, 0.3, 2]
    column[place] = row[place] = value
    with pytest.raises(AnswerNotFinite, match='"boxes"'):
        found(anchors(column))
    with pytest.raises(AnswerNotFinite, match='"boxes"'):
        found(rows(row), "rows")
    with pytest.raises(AnswerNotFinite, match='"p"'):
        found({**anchors([0] * 11), "p": np.full((1, 4, 2, 2), value)}, prototypes="p")


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        (
            "anchors",
            (1, 8, 20),
            "'boxes' has the shape (1, 8, 20); anchors with 3 classes and 0 coefficients are",
        ),
        ("anchors", (1, 20, 7), "'boxes' has the shape (1, 20, 7); anchors with 3 classes"),
        ("anchors", (7, 20), "'boxes' has the shape (7, 20); anchors with 3 classes"),
        ("anchors", (2, 7, 20), "'boxes' has the shape (2, 7, 20); anchors with 3 classes"),
        ("anchors", (1, 7, 0), "'boxes' is empty"),
        ("rows", (1, 20, 7), "'boxes' has the shape (1, 20, 7); rows with 0 coefficients are (1, N, 6)"),
        ("rows", (20, 6), "'boxes' has the shape (20, 6); rows with"),
        ("rows", (2, 20, 6), "'boxes' has the shape (2, 20, 6); rows with"),
    ],
)
def test_a_tensor_of_another_shape_does_not_fit(layout, shape, expected):
    with pytest.raises(ModelDoesNotFit) as refusal:
        found({"boxes": np.zeros(shape, np.float32)}, layout)
    assert expected in str(refusal.value)


@pytest.mark.parametrize("shape", [(4, 8, 8), (2, 4, 8, 8), (1, 0, 8, 8)])
def test_prototypes_of_another_shape_do_not_fit(shape):
    with pytest.raises(ModelDoesNotFit, match="'p' "):
        found({**anchors([0] * 11), "p": np.zeros(shape, np.float32)}, prototypes="p")


def test_there_is_a_coefficient_for_each_prototype():
    tensors = {**anchors([50, 40, 20, 10, 0, 1, 0, 5, 6]), "p": np.zeros((1, 2, 8, 8), np.float32)}
    assert found(tensors, prototypes="p").coefficients.tolist() == [[5, 6]]
    tensors["p"] = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(ModelDoesNotFit, match=r"anchors with 3 classes and 3 coefficients are \(1, 10, N\)"):
        found(tensors, prototypes="p")


@pytest.mark.parametrize("unknown", [-1, 3, 1e30])
def test_a_class_that_the_manifest_does_not_label_is_an_error(unknown):
    with pytest.raises(ModelDoesNotFit, match=r"holds a box of class -?[0-9e+]+; the manifest labels 3 classes\."):
        found(rows((0, 0, 9, 9, 0.1, unknown)), "rows")


def test_a_class_between_two_is_the_nearer_one():
    assert found(rows((0, 0, 9, 9, 1, 1.4), (0, 0, 9, 9, 1, 2.49)), "rows").classes.tolist() == [1, 2]
