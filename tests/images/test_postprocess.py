"""From a model's outputs to score, verdict, confidence and labels."""

import dataclasses
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.errors import AnswerNotFinite, ModelDoesNotFit
from agent.images.inspected import Inspected
from agent.images.placement import Axis, Placement
from agent.images.postprocess import Answer, calibrate, decide, image_score, pixel_labels
from agent.packages.manifest import (
    Boxes,
    Cover,
    Decision,
    GraphPreprocessing,
    Identity,
    ImageSize,
    Label,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
    NoCalibration,
    Outputs,
)

LABELS = ["background", "dent", "scratch"]


def manifest(*, labels=LABELS, pixel_threshold=0.5, calibration=None, **outputs):
    return Manifest(
        format_version=1,
        model=Identity("tiny", "1.0.0"),
        task="segmentation",
        image=ImageSize(64, 64),
        preprocessing=GraphPreprocessing(tensor="x"),
        outputs=Outputs(**outputs),
        decision=Decision(0.5, pixel_threshold=pixel_threshold, calibration=calibration or NoCalibration()),
        labels=[Label(name) for name in labels],
        files=[],
        self_test=[],
    )


def f32(values):
    return np.array(values, np.float32)


def answer(outputs, tensors, width=64, height=64, inspected=None, placement=None, **fields):
    """Of a model that takes width x height images as they are, unless `placement` says otherwise."""
    return Answer(
        {name: f32(values) for name, values in tensors.items()},
        manifest(**outputs, **fields),
        placement or Placement(Axis(width, width, 0, width), Axis(height, height, 0, height)),
        None if inspected is None else Inspected(inspected),
    )


def score(outputs, tensors, inspected=None, **fields):
    height, width = (64, 64) if inspected is None else inspected.shape
    return image_score(answer(outputs, tensors, width, height, inspected, **fields))


MAP = [[0.1, 0.2], [0.9, 0.3]]


# --- where the score comes from


@pytest.mark.parametrize("values", [0.3, [0.3], [[0.3]], [[[[0.3]]]]])
def test_a_named_score_is_the_score_whatever_its_shape_and_whatever_else_there_is(values):
    outputs = {"score": "s", "class_scores": "c", "normal_class_ids": [0], "anomaly_map": "m"}
    tensors = {"s": values, "c": [[0.0, 1.0]], "m": MAP}
    assert score(outputs, tensors) == pytest.approx(0.3)
    assert manifest(**outputs).outputs.tensors == ("s", "c", "m")


@pytest.mark.parametrize("values", [[0.3, 0.9], [[0.3], [0.9]], [MAP]])
def test_a_score_of_several_numbers_is_an_error(values):
    with pytest.raises(ModelDoesNotFit, match=r"'s' has the shape .*; a score is one number"):
        score({"score": "s"}, {"s": values})


@pytest.mark.parametrize(
    ("normal", "expected"), [([0], 0.8), ([1], 0.5), ([2], 0.7), ([0, 2], 0.5), ([2, 0], 0.5), ([0, 1, 2], 0)]
)
@pytest.mark.parametrize("batch", [True, False])
def test_class_scores_add_up_over_the_classes_that_are_not_normal(normal, expected, batch):
    values = [0.2, 0.5, 0.3]
    outputs = {"class_scores": "c", "normal_class_ids": normal}
    assert score(outputs, {"c": [values] if batch else values}) == pytest.approx(expected, abs=1e-6)


def test_a_normal_class_named_twice_counts_once():
    assert score({"class_scores": "c", "normal_class_ids": [0, 0]}, {"c": [[0.3, 0.7]]}) == pytest.approx(0.7)


def test_a_normal_class_that_the_model_does_not_have_is_an_error():
    with pytest.raises(ModelDoesNotFit, match=r"'c' has 2 classes; class 2 is none of them\."):
        score({"class_scores": "c", "normal_class_ids": [0, 2]}, {"c": [[0.3, 0.7]]})


def test_class_scores_are_activated_as_the_package_says():
    outputs = {"class_scores": "c", "normal_class_ids": [0]}
    logits = {"c": [[2.0, 1.0, -1.0]]}
    exponentials = [math.exp(value) for value in (2, 1, -1)]
    softmax = (exponentials[1] + exponentials[2]) / sum(exponentials)
    assert score({**outputs, "class_activation": "softmax"}, logits) == pytest.approx(softmax, abs=1e-6)
    two = {"c": [[2.0, -1.0]]}
    assert score({**outputs, "class_activation": "sigmoid"}, two) == pytest.approx(1 / (1 + math.e), abs=1e-6)


def test_class_scores_of_half_precision_are_activated_in_single_precision():
    outputs = {"class_scores": "c", "normal_class_ids": [0], "class_activation": "softmax"}
    half = dataclasses.replace(answer(outputs, {}), tensors={"c": np.array([[1.5, 1.25, 0.5, 0.25]], np.float16)})
    exponentials = [math.exp(value) for value in (1.5, 1.25, 0.5, 0.25)]  # all of them exact in half precision
    assert image_score(half) == pytest.approx(sum(exponentials[1:]) / sum(exponentials), abs=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_large_logits_do_not_overflow(activation):
    outputs = {"class_scores": "c", "normal_class_ids": [0], "class_activation": activation}
    assert score(outputs, {"c": [[-1e30, 1e30]]}) == pytest.approx(1)
    assert score(outputs, {"c": [[1e30, -1e30]]}) == pytest.approx(0)


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (1, 1, 2, 2)])
def test_without_a_score_the_maximum_of_the_map_is_taken(shape):
    assert score({"anomaly_map": "m"}, {"m": np.reshape(MAP, shape)}) == pytest.approx(0.9)


def test_ignored_pixels_are_left_out_of_the_maximum():
    inspected = np.array([[True, True], [False, True]])
    assert score({"anomaly_map": "m"}, {"m": MAP}, inspected) == pytest.approx(0.3)
    assert score({"anomaly_map": "m"}, {"m": MAP}, np.zeros((2, 2), bool)) == 0
    larger = np.ones((8, 8), bool)
    larger[3:, :5] = False  # all that the 0.9 reaches in full
    assert 0.3 <= score({"anomaly_map": "m"}, {"m": MAP}, larger) < 0.7


def test_the_class_masks_score_is_the_highest_probability_of_any_anomaly():
    logits = f32([[[1, 5]], [[2, 0]], [[3, 0]]])  # three channels, one row of two pixels
    exponentials = np.exp(logits[:, 0, 0])
    expected = exponentials[1:].sum() / exponentials.sum()
    outputs = {"class_mask": "m", "mask_activation": "softmax"}
    assert score(outputs, {"m": logits[None]}) == pytest.approx(expected, abs=1e-6)
    only_second = np.array([[False, True]])
    exponentials = np.exp(logits[:, 0, 1])
    assert score(outputs, {"m": logits}, only_second) == pytest.approx(
        1 - exponentials[0] / exponentials.sum(), abs=1e-6
    )


def test_channels_that_paint_background_do_not_count_as_anomaly():
    outputs = {"class_mask": "m", "mask_labels": ["dent", "background", "background"]}
    assert score(outputs, {"m": [[[0.1]], [[0.7]], [[0.2]]]}) == pytest.approx(0.1)


def test_the_class_masks_mean_is_over_all_its_channels_and_pixels():
    channels = [[[0.9, 0.8]], [[0.1, 0.2]], [[0.0, 0.3]]]
    outputs = {"class_mask": "m", "mask_score": "mean"}
    assert score(outputs, {"m": channels}) == pytest.approx(2.3 / 6, abs=1e-6)
    painting = {**outputs, "mask_labels": ["background", "background", "dent"]}
    assert score(painting, {"m": channels}) == pytest.approx(2.3 / 6, abs=1e-6)
    assert score({**outputs, "mask_score": "maximum"}, {"m": channels}) == pytest.approx(0.5, abs=1e-6)


def test_the_class_masks_mean_is_of_probabilities():
    logits = f32([[[2.0]], [[1.0]], [[0.0]]])
    outputs = {"class_mask": "m", "mask_score": "mean", "mask_activation": "sigmoid"}
    expected = sum(1 / (1 + math.exp(-logit)) for logit in (2.0, 1.0, 0.0)) / 3
    assert score(outputs, {"m": logits}) == pytest.approx(expected, abs=1e-6)


def test_ignored_pixels_are_left_out_of_the_mean():
    channels = [[[0.0, 0.0]], [[0.1, 0.8]], [[0.1, 0.0]]]
    outputs = {"class_mask": "m", "mask_score": "mean"}
    assert score(outputs, {"m": channels}, np.array([[True, False]])) == pytest.approx(0.2 / 3, abs=1e-6)
    assert score(outputs, {"m": channels}, np.array([[False, False]])) == 0


def test_a_bias_of_the_channels_does_not_reach_the_score():
    outputs = {"class_mask": "m", "mask_bias": [0, 0.5, 0]}
    assert score(outputs, {"m": [[[0.6]], [[0.3]], [[0.1]]]}) == pytest.approx(0.4, abs=1e-6)


# --- which part of the image the map covers

LETTERBOXED = Placement(Axis(16, 8, 0, 8), Axis(8, 8, 2, 4))
"""A 16 x 8 image in a tensor of 8 x 8: two rows of padding above and below."""
CROPPED = Placement(Axis(16, 8, -4, 16), Axis(8, 8, 0, 8))
"""The middle 8 x 8 of a 16 x 8 image."""


def test_what_a_map_shows_on_the_padding_makes_no_score():
    values = np.full((8, 8), 0.1, np.float32)
    values[:2], values[6:] = 0.9, 0.8
    assert image_score(answer({"anomaly_map": "m"}, {"m": values}, placement=LETTERBOXED)) == pytest.approx(0.1)
    values[2, 0] = 0.3
    assert image_score(answer({"anomaly_map": "m"}, {"m": values}, placement=LETTERBOXED)) == pytest.approx(0.3)


@pytest.mark.parametrize(("first_row", "reached"), [(0.0, []), (1.0, [0, 1, 2])])
def test_padding_is_cut_off_a_map_before_it_is_resized(first_row, reached):
    """The image's first row of cells becomes 1, 0.75, 0.25, 0; beside 1 on the padding a 0 would become 0.25."""
    values = np.zeros((8, 8), np.float32)
    values[:2], values[2] = 1.0, first_row
    given = answer({"anomaly_map": "m"}, {"m": values}, placement=LETTERBOXED, pixel_threshold=0.2)
    assert np.flatnonzero(pixel_labels(given).all(axis=1)).tolist() == reached
    assert pixel_labels(given).sum() == 16 * len(reached)


def test_ignored_pixels_make_no_score_under_a_letterbox():
    values = np.full((8, 8), 0.9, np.float32)
    values[2:6, 4:] = 0.2  # the image's right half
    inspected = np.zeros((8, 16), bool)
    inspected[:, 9:] = True
    given = answer({"anomaly_map": "m"}, {"m": values}, inspected=inspected, placement=LETTERBOXED)
    assert image_score(given) == pytest.approx(0.2)
    assert not pixel_labels(given)[:, :9].any()


def test_a_crop_covers_the_middle_and_the_rest_is_background():
    labels = pixel_labels(answer({"anomaly_map": "m"}, {"m": np.ones((8, 8))}, placement=CROPPED))
    expected = np.zeros((8, 16), int)
    expected[:, 4:12] = 1
    np.testing.assert_array_equal(labels, expected)


def test_ignored_pixels_make_no_score_under_a_crop():
    values = np.full((8, 8), 0.2, np.float32)
    values[:, :2] = 0.9  # columns 4 and 5 of the image
    inspected = np.ones((8, 16), bool)
    inspected[:, 4:6] = False
    given = answer({"anomaly_map": "m"}, {"m": values}, inspected=inspected, placement=CROPPED)
    assert image_score(given) == pytest.approx(0.2)
    inspected[:, 5] = True
    assert image_score(given) == pytest.approx(0.9)
    inspected[:, 4:12] = False  # nothing that the model saw is left
    assert image_score(given) == 0


QUARTER = Cover(x=0.5, y=0.0, width=0.5, height=0.5)


def test_a_map_of_a_part_is_pasted_there():
    outputs = {"anomaly_map": "m", "map_covers": QUARTER}
    labels = labels_of(outputs, {"m": np.ones((2, 2))}, 8, 8)
    assert np.argwhere(labels).min(axis=0).tolist() == [0, 4]
    assert labels.sum() == 16
    assert labels[:4, 4:].all()


def test_a_class_mask_of_a_part_is_pasted_there():
    by_pixel = np.array([[1, 2], [0, 1]])
    channels = np.stack([by_pixel == index for index in range(3)])
    labels = labels_of({"class_mask": "m", "map_covers": QUARTER}, {"m": channels}, 8, 8)
    np.testing.assert_array_equal(labels[:4, 4:], np.kron(by_pixel, np.ones((2, 2), int)))
    assert not labels[4:].any()
    assert not labels[:, :4].any()


def test_a_class_mask_under_a_letterbox_is_cut_and_resized_to_the_nearest_neighbour():
    by_pixel = np.full((8, 8), 1)
    by_pixel[2:6] = np.arange(8) % 3
    channels = np.stack([by_pixel == index for index in range(3)])
    labels = pixel_labels(answer({"class_mask": "m"}, {"m": channels}, placement=LETTERBOXED))
    np.testing.assert_array_equal(labels, np.kron(by_pixel[2:6], np.ones((2, 2), int)))


@pytest.mark.parametrize("ignores", [False, True])
@pytest.mark.parametrize("output", ["anomaly_map", "class_mask"])
def test_a_map_of_nothing_but_padding_makes_no_anomaly(output, ignores):
    inspected = np.eye(8, 16, dtype=bool) if ignores else None
    values = np.ones((8, 8)) if output == "anomaly_map" else np.stack([np.zeros((8, 8)), *[np.ones((8, 8))] * 2])
    outputs = {output: "m", "map_covers": Cover(x=0, y=0, width=1, height=0.25)}
    nowhere = answer(outputs, {"m": values}, inspected=inspected, placement=LETTERBOXED)
    assert image_score(nowhere) == 0
    assert pixel_labels(nowhere).shape == (8, 16)
    assert not pixel_labels(nowhere).any()


def test_as_many_cells_as_pixels_are_resized_where_they_lie_on_padding_in_part():
    """4 pixels lie on 6 of 8 tensor pixels, so on 3 of 4 cells: the outer ones are only half on the image."""
    placement = Placement(Axis(4, 8, 1, 6), Axis(4, 8, 1, 6))
    values = np.zeros((4, 4))
    values[:, 0] = 1  # 0.625 in the middle of the first column of pixels
    outputs = answer({"anomaly_map": "m"}, {"m": values}, placement=placement, pixel_threshold=0.7)
    assert not pixel_labels(outputs).any()
    outputs = answer({"anomaly_map": "m"}, {"m": values}, placement=placement, pixel_threshold=0.6)
    assert pixel_labels(outputs)[:, 0].all()


def test_ignored_pixels_make_no_score_of_a_map_of_a_part():
    outputs = {"anomaly_map": "m", "map_covers": QUARTER}
    inspected = np.ones((8, 8), bool)
    inspected[:, 4:6] = False
    values = [[0.9, 0.9, 0.1, 0.1]] * 4
    assert score(outputs, {"m": values}, inspected) == pytest.approx(0.1)
    assert score(outputs, {"m": values}, ~inspected) == pytest.approx(0.9)


# --- boxes


def boxes_of(*rows, labels=("dent", "background")):
    """Outputs and tensors of boxes (left, top, right, bottom, score, class) in a 64 x 64 tensor."""
    return {"boxes": Boxes("b", "rows", list(labels))}, {"b": [rows]}


def test_the_score_is_the_best_boxs_of_a_class_that_is_not_normal():
    outputs, tensors = boxes_of((0, 0, 9, 9, 0.3, 0), (9, 9, 30, 30, 0.6, 0), (0, 0, 60, 60, 0.9, 1))
    assert score(outputs, tensors) == pytest.approx(0.6)
    assert score(outputs, tensors, calibration=LinearCalibration(0.5, 2.0)) == pytest.approx(0.55)


def test_where_there_is_no_box_the_score_is_that_of_0():
    outputs, tensors = boxes_of((0, 0, 60, 60, 0.9, 1))
    assert score(outputs, tensors) == 0
    assert score(outputs, tensors, calibration=LinearCalibration(-0.1, 1.0)) == pytest.approx(0.6)


def test_ignored_pixels_make_no_score_of_boxes():
    outputs, tensors = boxes_of((0, 0, 9, 9, 0.9, 0), (20, 20, 30, 30, 0.3, 0))
    inspected = np.ones((64, 64), bool)
    inspected[:15] = False
    assert score(outputs, tensors, inspected) == pytest.approx(0.3)
    assert score(outputs, tensors, ~inspected) == pytest.approx(0.9)


@pytest.mark.parametrize(("raw", "paints"), [(0.49996, True), (0.49994, False), (0.6, True), (0.1, False)])
def test_boxes_that_reach_the_threshold_on_4_decimals_paint(raw, paints):
    outputs, tensors = boxes_of((2, 3, 10, 5, raw, 0), (0, 0, 64, 64, 0.9, 1))
    labels = labels_of(outputs, tensors, 64, 64)
    assert labels.sum() == (16 if paints else 0)
    assert labels[3:5, 2:10].all() == paints
    assert decide(score(outputs, tensors), Decision(0.5), mask_shows_anomaly=False)[0] == paints


def test_a_boxs_score_is_calibrated_before_it_is_compared():
    outputs, tensors = boxes_of((2, 3, 10, 5, 0.3, 0), (20, 20, 24, 24, 0.2, 0))
    labels = labels_of(outputs, tensors, 64, 64, calibration=LinearCalibration(0.25, 1.0))
    assert labels.sum() == 16
    assert labels[3:5, 2:10].all()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_box_is_painted_if_and_only_if_it_makes_the_image_anomalous(raw, threshold):
    outputs, tensors = boxes_of((2, 3, 10, 5, raw, 0))
    given = answer(outputs, tensors)
    given = dataclasses.replace(
        given, manifest=msgspec.structs.replace(given.manifest, decision=Decision(threshold=threshold))
    )
    is_anomalous = decide(image_score(given), given.manifest.decision, mask_shows_anomaly=False)[0]
    drawn = np.float32(raw) > 0  # a row without a score only fills the tensor
    assert pixel_labels(given).any() == (is_anomalous and drawn)


def test_ignored_pixels_are_not_painted_by_boxes():
    outputs, tensors = boxes_of((0, 0, 20, 20, 0.9, 0))
    inspected = np.ones((64, 64), bool)
    inspected[:15] = False
    labels = pixel_labels(answer(outputs, tensors, inspected=inspected))
    assert np.argwhere(labels).min(axis=0).tolist() == [15, 0]
    assert labels.sum() == 5 * 20


def test_boxes_without_extent_paint_a_pixel_each():
    anchors = np.array([[[10.5, 30.5], [10.5, 30.5], [0, 0], [0, 0], [0.9, 0.8]]])  # x, y, width, height, score
    labels = labels_of({"boxes": Boxes("b", "anchors", ["dent"])}, {"b": anchors}, 64, 64)
    assert np.argwhere(labels).tolist() == [[11, 11], [31, 31]]  # halves are rounded up


def test_labels_of_boxes_are_found_by_name():
    outputs, tensors = boxes_of((0, 0, 8, 8, 0.9, 0), (8, 8, 16, 16, 0.9, 1), labels=("scratch", "dent"))
    labels = labels_of(outputs, tensors, 64, 64)
    assert (labels[0, 0], labels[8, 8]) == (2, 1)


# --- calibration


def test_many_scores_are_calibrated_at_once():
    values = np.array([0.0, 15.0, 20.0, 1e300])
    assert calibrate(values, LinearCalibration(20, 10)).tolist() == [0, 0, 0.5, 1]
    assert calibrate(values, LogisticCalibration(-1, 20)).tolist() == pytest.approx([0, 0.0066929, 0.5, 1], abs=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_linear_calibration_is_anomalibs_min_max_normalisation(raw, center, span):
    expected = np.clip((raw - center) / span + 0.5, 0, 1)
    assert calibrate(raw, LinearCalibration(center, span)) == pytest.approx(expected)


def test_linear_calibration_puts_the_center_on_one_half_and_clips():
    calibration = LinearCalibration(center=20, range=10)
    assert [calibrate(raw, calibration) for raw in (0, 15, 18, 20, 22, 25, 99)] == pytest.approx(
        [0, 0, 0.3, 0.5, 0.7, 1, 1]
    )


@pytest.mark.parametrize("maximum", [0.5, 1.0, 4.0])
def test_logistic_calibration_divides_by_a_maximum_above_1_only(maximum):
    x = 0.8 / 4 if maximum == 4 else 0.8
    expected = 1 / (1 + math.exp(-10 * x + 3))
    assert calibrate(0.8, LogisticCalibration(a=-10, b=3, maximum=maximum)) == pytest.approx(expected)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_calibrated_scores_are_in_0_to_1_however_wild_the_numbers(raw, a, b):
    assert 0 <= calibrate(raw, LogisticCalibration(a, b)) <= 1
    assert 0 <= calibrate(raw, LinearCalibration(a, abs(b) or 1.0)) <= 1
    assert 0 <= calibrate(raw, NoCalibration()) <= 1


def test_the_score_is_calibrated_wherever_it_comes_from():
    calibration = LinearCalibration(center=10, range=20)
    for outputs, tensors in (
        ({"score": "s"}, {"s": [14]}),
        ({"anomaly_map": "m"}, {"m": [[3, 14]]}),
        ({"class_scores": "c", "normal_class_ids": [0]}, {"c": [[99, 14]]}),
        ({"class_mask": "k"}, {"k": [[[0]], [[14]], [[0]]]}),
        boxes_of((0, 0, 9, 9, 14, 0)),
    ):
        assert score(outputs, tensors, calibration=calibration) == pytest.approx(0.7)


# --- verdict


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (0.5, 0.5, (True, 0.5, 0.5, 0.5)),
        (0.499951, 0.5, (True, 0.5, 0.5, 0.5)),  # rounded up to the threshold
        (0.499949, 0.5, (False, 0.5001, 0.4999, 0.5)),
        (0.5, 0.500049, (True, 0.5, 0.5, 0.5)),  # the threshold is rounded too
        (0.5, 0.500051, (False, 0.5, 0.5, 0.5001)),
        (0.83339, 0.7, (True, 0.8334, 0.8334, 0.7)),
        (0.12341, 0.7, (False, 0.8766, 0.1234, 0.7)),
        (0.0, 0.0, (True, 0.0, 0.0, 0.0)),
        (1.0, 1.0, (True, 1.0, 1.0, 1.0)),
    ],
)
def test_score_and_threshold_are_compared_after_rounding_to_4_decimals(score, threshold, expected):
    assert decide(score, Decision(threshold), mask_shows_anomaly=False) == expected


@given(st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_what_is_sent_agrees_with_itself(score, threshold, mask):
    is_anomalous, confidence, sent_score, sent_threshold = decide(score, Decision(threshold), mask)
    assert is_anomalous == (sent_score >= sent_threshold)
    assert confidence == pytest.approx(sent_score if is_anomalous else 1 - sent_score)
    for value in (confidence, sent_score, sent_threshold):
        assert 0 <= value <= 1
        assert round(value, 4) == value


@pytest.mark.parametrize(
    ("combination", "verdicts"),
    [  # (by score, by mask): neither, mask only, score only, both
        ("class", [False, False, True, True]),
        ("mask", [False, True, False, True]),
        ("class and mask", [False, False, False, True]),
        ("class or mask", [False, True, True, True]),
    ],
)
def test_class_head_and_mask_head_combine_as_the_package_says_and_confidence_follows(combination, verdicts):
    cases = [(0.2, False), (0.2, True), (0.8, False), (0.8, True)]
    for (score, mask), expected in zip(cases, verdicts, strict=True):
        is_anomalous, confidence, sent, _ = decide(score, Decision(0.5, combination=combination), mask)
        assert is_anomalous is expected
        assert sent == score
        assert confidence == pytest.approx(score if expected else 1 - score)


# --- masks


def labels_of(outputs, tensors, width, height, **fields):
    labels = pixel_labels(answer(outputs, tensors, width, height, **fields))
    assert labels.dtype == np.uint8
    assert labels.shape == (height, width)
    return labels


def test_a_map_of_the_images_size_is_compared_pixel_by_pixel():
    values = [[0.49, 0.5, 0.51], [0, 1, -1]]
    assert labels_of({"anomaly_map": "m"}, {"m": values}, 3, 2).tolist() == [[0, 1, 1], [0, 1, 0]]


def test_a_map_is_resized_bilinearly_and_then_compared():
    # Half-pixel centres: 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1. (Comparing first would give four of each.)
    labels = labels_of({"anomaly_map": "m"}, {"m": [[0, 1]]}, 8, 1, pixel_threshold=0.3)
    assert labels.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]
    assert labels_of({"anomaly_map": "m"}, {"m": [[0, 1]]}, 8, 1, pixel_threshold=0.9).sum() == 2


def test_a_resized_map_is_the_references():
    values = np.random.default_rng(3).random((14, 20)).astype(np.float32)
    expected = np.asarray(Image.fromarray(values).resize((96, 64), Image.Resampling.BILINEAR)) >= 0.6
    np.testing.assert_array_equal(
        labels_of({"anomaly_map": "m"}, {"m": values[None, None]}, 96, 64, pixel_threshold=0.6), expected
    )


@pytest.mark.parametrize(("threshold", "expected"), [(0.9, 1), (0.9001, 0)])
def test_the_largest_value_of_the_map_is_reached_exactly_or_not_at_all(threshold, expected):
    labels = labels_of({"anomaly_map": "m"}, {"m": MAP}, 2, 2, pixel_threshold=threshold)
    assert labels.max() == expected


def test_the_largest_channel_paints_its_label():
    channels = [[[0.9, 0.1, 0.1]], [[0.1, 0.8, 0.2]], [[0.0, 0.1, 0.7]]]
    assert labels_of({"class_mask": "m"}, {"m": [channels]}, 3, 1).tolist() == [[0, 1, 2]]
    outputs = {"class_mask": "m", "mask_labels": ["scratch", "background", "dent"]}
    assert labels_of(outputs, {"m": channels}, 3, 1).tolist() == [[2, 0, 1]]


def test_several_channels_may_paint_one_label():
    channels = np.eye(4, dtype=np.float32)[:, None, :]
    outputs = {"class_mask": "m", "mask_labels": ["background", "dent", "background", "scratch"]}
    assert labels_of(outputs, {"m": channels}, 4, 1).tolist() == [[0, 1, 0, 2]]


def test_a_bias_is_added_to_the_channels_before_the_largest_decides():
    channels = [[[0.6, 0.6]], [[0.3, 0.1]], [[0.1, 0.3]]]
    assert labels_of({"class_mask": "m"}, {"m": channels}, 2, 1).tolist() == [[0, 0]]
    assert labels_of({"class_mask": "m", "mask_bias": [0, 0.4, 0]}, {"m": channels}, 2, 1).tolist() == [[1, 0]]
    assert labels_of({"class_mask": "m", "mask_bias": [-0.4, 0, 0]}, {"m": channels}, 2, 1).tolist() == [[1, 2]]


def test_a_class_mask_is_resized_to_the_nearest_neighbour():
    by_pixel = np.array([[0, 2], [2, 1]])
    channels = np.stack([by_pixel == index for index in range(3)])
    labels = labels_of({"class_mask": "m"}, {"m": channels[None]}, 10, 6)
    np.testing.assert_array_equal(labels, np.kron(by_pixel, np.ones((3, 5), int)))  # no 1 between 0 and 2


# --- outputs that cannot be used


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("outputs", "shape"),
    [
        ({"score": "out"}, (1,)),
        ({"class_scores": "out", "normal_class_ids": [0], "class_activation": "softmax"}, (1, 3)),
        ({"anomaly_map": "out"}, (1, 1, 4, 4)),
        ({"class_mask": "out"}, (1, 3, 4, 4)),
    ],
)
def test_a_value_that_is_not_finite_is_no_answer(outputs, shape, value):
    values = np.full(shape, 0.4, np.float32)
    values.flat[-1] = value
    sentence = r"""The model's output "out" for this image is not a finite number; there is no verdict\."""
    with pytest.raises(AnswerNotFinite, match=sentence):
        score(outputs, {"out": values})
    if "score" not in outputs and "class_scores" not in outputs:
        with pytest.raises(AnswerNotFinite, match=sentence):
            labels_of(outputs, {"out": values}, 8, 8)


@pytest.mark.parametrize(
    ("outputs", "shape", "expected"),
    [
        ({"anomaly_map": "out"}, (16,), "'out' has the shape (16,); an anomaly map is (1, 1, h, w)"),
        ({"anomaly_map": "out"}, (2, 1, 4, 4), "'out' has the shape (2, 1, 4, 4); an anomaly map is"),
        ({"anomaly_map": "out"}, (1, 3, 4, 4), "'out' has the shape (1, 3, 4, 4); an anomaly map is"),
        ({"class_mask": "out"}, (1, 2, 4, 4), "'out' has the shape (1, 2, 4, 4); the manifest labels 3 channels"),
        ({"class_mask": "out"}, (1, 4, 4, 3), "'out' has the shape (1, 4, 4, 3); the manifest labels 3 channels"),
        ({"class_mask": "out"}, (4, 4), "'out' has the shape (4, 4); the manifest labels 3 channels"),
        ({"class_mask": "out"}, (2, 3, 4, 4), "'out' has the shape (2, 3, 4, 4); the manifest labels 3 channels"),
        ({"anomaly_map": "out"}, (0, 4), "'out' is empty"),
        ({"score": "out"}, (0,), "'out' is empty"),
    ],
)
def test_an_output_of_another_shape_does_not_fit(outputs, shape, expected):
    with pytest.raises(ModelDoesNotFit) as refusal:
        score(outputs, {"out": np.zeros(shape)})
    assert expected in str(refusal.value)


def test_every_output_is_read_once_though_it_means_two_things():
    outputs = msgspec.structs.replace(manifest(anomaly_map="m").outputs, score="m")
    assert outputs.tensors == ("m",)


def test_large_class_scores_add_up_to_an_anomaly_and_not_to_nothing():
    """As float32 their sum is infinite, and infinity less infinity is no number."""
    scores = np.array([[3e38, 3e38, 3e38, 3e38]], np.float32)
    assert score({"class_scores": "scores", "normal_class_ids": [0, 1]}, {"scores": scores}) == 1.0
