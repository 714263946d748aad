"""The figures, against values of the specification and against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agent.images.detection import Region
from agent.workbench.evaluation.metrics import Counts, ImageMetrics, image_metrics
from agent.workbench.evaluation.pixel_metrics import PixelMetrics, masks_of_labels, masks_of_regions


def metrics(truth: list[int], scores: list[float], threshold: float = 0.5) -> ImageMetrics:
    values = np.array(scores)
    return image_metrics(np.array(truth, np.bool_), values >= threshold, values)


def by_ranks(truth: np.ndarray, scores: np.ndarray) -> float:
    """ROC AUC as the share of pairs in which the anomalous image scores higher, ties half."""
    pairs = scores[truth][:, None] - scores[~truth][None]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def by_steps(truth: np.ndarray, scores: np.ndarray) -> float:
    """Average precision as the sum of (R_n - R_n-1) P_n over the scores from the highest down."""
    total, recall_before = 0.0, 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        called = scores >= score
        recall = (truth & called).sum() / truth.sum()
        total += (recall - recall_before) * (truth & called).sum() / called.sum()
        recall_before = recall
    return float(total)


@pytest.mark.parametrize(
    ("found", "wrongly", "missed", "figure", "value"),
    [
        (85, 15, 0, "precision", 0.85),
        (40, 0, 60, "recall", 0.40),
        (90, 0, 10, "recall", 0.90),
        (90, 10, 0, "f1", 0.947),  # precision 0.9, recall 1.0
        (30, 70, 0, "f1", 0.46),  # 0.30, 1.0
        (19, 1, 76, "f1", 0.33),  # 0.95, 0.20
    ],
)
def test_the_values_of_the_specification(found: int, wrongly: int, missed: int, figure: str, value: float) -> None:
    assert getattr(Counts(found, wrongly, missed), figure) == pytest.approx(value, abs=0.005 if value < 0.5 else 0.0005)


def test_figures_without_a_denominator_are_0() -> None:
    nothing = Counts(0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_figures_are_what_their_formulas_say_ties_included(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random(60) < 0.4
    scores = np.round(random.random(60) * 0.6 + truth * 0.3, 1)  # one decimal: many ties
    got = image_metrics(truth, scores >= 0.5, scores)
    assert got.roc_auc == pytest.approx(by_ranks(truth, scores), abs=1e-12)
    assert got.average_precision == pytest.approx(by_steps(truth, scores), abs=1e-12)


def test_verdicts_are_counted_as_they_were_given_not_by_the_score() -> None:
    truth, verdicts = np.array([True, True, False, False, False]), np.array([True, False, True, False, False])
    got = image_metrics(truth, verdicts, np.array([0.1, 0.9, 0.1, 0.9, 0.9]))
    assert (got.counts, got.true_negatives) == (Counts(1, 1, 1), 2)


def test_scores_that_tell_nothing_have_half_the_area() -> None:
    assert metrics([0, 1, 0, 1], [0.3] * 4).roc_auc == 0.5


def test_what_cannot_be_told_is_0_with_a_note() -> None:
    only_normal = metrics([0, 0], [0.1, 0.2])
    assert (only_normal.roc_auc, only_normal.average_precision, only_normal.counts.recall) == (0, 0, 0)
    assert [note.split(":")[0] for note in only_normal.notes] == [
        "No image was called anomalous",
        "No image is anomalous",
    ]
    only_anomalous = metrics([1, 1], [0.8, 0.9])
    assert (only_anomalous.roc_auc, only_anomalous.average_precision) == (0, 1)
    assert [note.split(":")[0] for note in only_anomalous.notes] == ["No image is normal"]
    assert metrics([0, 1], [0.1, 0.9]).notes == []


def mask(*pixels: int) -> np.ndarray:
    """A mask of one row."""
    return np.array([pixels], np.bool_)


def test_pixels_are_summed_over_images_and_overlaps_averaged_over_those_that_have_the_type() -> None:
    pixels = PixelMetrics()
    pixels.add({"scratch": mask(1, 1, 1, 0)}, {"scratch": mask(0, 1, 1, 1)})  # 2 of 4 shared
    pixels.add({"scratch": mask(1, 0, 0, 0)}, {})  # missed: 0
    pixels.add({}, {"dent": mask(0, 0, 1, 1)})  # nothing of scratch here: does not count for it
    pixels.add({"dent": mask(0, 0, 1, 1)}, {"dent": mask(0, 0, 1, 1)})
    dent, scratch = pixels.classes
    assert (scratch.name, scratch.counts, scratch.images) == ("scratch", Counts(2, 1, 2), 2)
    assert scratch.average_iou == pytest.approx((2 / 4 + 0) / 2)
    assert scratch.counts.precision == pytest.approx(2 / 3) and scratch.counts.recall == pytest.approx(2 / 4)
    assert (dent.name, dent.counts, dent.average_iou) == ("dent", Counts(2, 2, 0), 0.5)
    assert pixels.notes == []


def test_a_type_that_is_never_found_or_never_drawn_has_a_note() -> None:
    pixels = PixelMetrics()
    pixels.add({"scratch": mask(1, 0)}, {"dent": mask(0, 1)})
    assert [one.average_iou for one in pixels.classes] == [0, 0]
    assert [note.partition(":")[0] for note in pixels.notes] == [
        "Nothing of the type 'dent' is drawn in the truth",
        "Nothing of the type 'scratch' was found",
    ]


@pytest.mark.parametrize("model_tells_none", [True, False])
def test_where_one_side_tells_no_types_all_are_one(model_tells_none: bool) -> None:
    told = [{"scratch": mask(1, 0, 0, 0), "dent": mask(0, 1, 0, 0)}, {"dent": mask(0, 0, 1, 1)}]
    plain = [{"anomaly": mask(1, 1, 0, 0)}, {"anomaly": mask(0, 1, 1, 0)}]
    pixels = PixelMetrics()
    for truth, predicted in zip(told, plain, strict=True):
        pixels.add(*((truth, predicted) if model_tells_none else (predicted, truth)))
    (every,) = pixels.classes
    assert every.name == "anomaly"
    assert every.average_iou == pytest.approx((1 + 1 / 3) / 2)
    assert pixels.notes == [
        f"The {'model' if model_tells_none else 'truth'} tells no types of anomalies: "
        "whatever it marks is compared with dent, scratch."
    ]


def test_the_only_type_of_one_side_names_what_the_other_calls_anomaly() -> None:
    pixels = PixelMetrics()
    pixels.add({"cracked": mask(1, 0)}, {"anomaly": mask(1, 0)})
    assert [(one.name, one.average_iou) for one in pixels.classes] == [("cracked", 1)]


def test_without_a_drawn_anomaly_nothing_is_said_of_pixels() -> None:
    pixels = PixelMetrics()
    pixels.add({}, {"anomaly": mask(1, 0)})
    assert pixels.classes == []
    assert "nothing is said of pixels" in pixels.notes[0]
    assert PixelMetrics().notes == []


def test_masks_of_truths_and_answers_are_told_apart_by_type() -> None:
    labels = np.array([[0, 2, 2, 0]], np.uint8)
    assert {
        name: where.tolist() for name, where in masks_of_labels(labels, ["background", "dent", "chip"]).items()
    } == {"chip": [[False, True, True, False]]}
    painted = np.full((1, 4, 3), 255, np.uint8)
    painted[0, 1] = (0x23, 0xA4, 0x36)
    painted[0, 2] = (0x23, 0xA4, 0x37)
    regions = [Region("background", 0.5, "#FFFFFF"), Region("dent", 0.25, "#23A436"), Region("chip", 0.25, "#23A437")]
    assert {name: where.tolist() for name, where in masks_of_regions(painted, regions).items()} == {
        "dent": [[False, True, False, False]],
        "chip": [[False, False, True, False]],
    }
