"""Exports of Ultralytics as packages: what their metadata and heads say, and that the answers are its predictor's."""

import argparse

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from agent.commands.package import common
from agent.commands.package import ultralytics as command
from agent.errors import Refusal
from agent.workbench.errors import BadSource, SettingOutOfRange
from tests.support.graphs import answer, classifier, network, picture

NAMES = "{0: 'good', 1: 'dent', 2: 'scratch'}"
BOXES = np.array([[12, 24, 60, 48], [30, 30, 90, 66], [45, 45, 75, 75]])
"""Left, top, right, bottom in pixels of the 96 x 96 tensor; box i is of class i."""
GAINS = np.array([1.0, 0.75, 0.4])
"""Box i has the confidence GAINS[i] times the mean of channel i."""


def draft(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    common.add_arguments(parser)
    return command.draft(parser.parse_args([*map(str, words), "--component", "part"]))


def metadata(task, **others):
    return {"task": task, "names": NAMES, "imgsz": "[96, 96]", "stride": "32", "version": "8.4.0", **others}


def detector(file, layout="anchors", task="detect", channels=3, **others):
    """Three boxes whose confidences are means of the input's channels; for `segment` with two prototypes, of which the
    first is 1 in the left half and -1 in the right, and box i weighs them (1, 0), (-1, 0) and (1, 0)."""
    scored = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "row"], ["means"]),
        helper.make_node("Mul", ["means", "gains"], ["confidences"]),
    ]
    coefficients = np.array([[1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])[None]
    if layout == "anchors":
        center, size = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
        parts = {"boxes": np.concatenate([center, size], axis=1).T[None], "ones": np.eye(3)[None]}
        scored.append(helper.make_node("Mul", ["ones", "confidences"], ["scores"]))
        joined, axis = ["boxes", "scores"], 1
    else:
        parts = {"boxes": BOXES[None].astype(np.float32), "classes": np.arange(3.0).reshape(1, 3, 1)}
        scored.append(helper.make_node("Transpose", ["confidences"], ["scores"], perm=[0, 2, 1]))
        joined, axis, coefficients = ["boxes", "scores", "classes"], 2, coefficients.transpose(0, 2, 1)
    outputs = {"output0": None}
    if task == "segment":
        parts |= {"coefficients": coefficients}
        joined.append("coefficients")
        halves = np.repeat([[[1.0, -1.0]]], 2, axis=1).reshape(1, 1, 2, 2)
        parts |= {"halves": np.concatenate([halves, halves * 0], axis=1)}
        scored.append(helper.make_node("Identity", ["halves"], ["output1"]))
        outputs["output1"] = [1, 2, 2, 2]
    width = 2 if task == "segment" else 0
    outputs["output0"] = [1, 7 + width, 3] if layout == "anchors" else [1, 3, 6 + width]
    if channels == 1:
        scored.insert(1, helper.make_node("Concat", ["pooled"] * 3, ["three"], axis=1))
        scored[2].input[0] = "three"
    return network(
        file,
        [*scored, helper.make_node("Concat", joined, ["output0"], axis=axis)],
        outputs,
        shape=(1, channels, 96, 96),
        name="images",
        constants={"row": np.array([1, 1, 3]), "gains": GAINS, **parts},
        metadata=metadata(task, **others),
    )


def letterboxed(pixels):
    """A 96 x 72 image in the middle of 96 x 96, grey 114 above and below, /255."""
    plane = np.full((96, 96, 3), 114.0)
    plane[12:84] = pixels
    return plane / 255


def confidences(pixels):
    return letterboxed(pixels).mean(axis=(0, 1)) * GAINS


def areas_of(detection):
    return {region.name: region.area for region in detection.regions}


@pytest.mark.parametrize("layout", ["anchors", "rows"])
def test_a_detector_scores_by_its_surest_defect_and_paints_boxes(tmp_path, layout):
    photo = picture(width=96, height=72)
    made = draft(detector(tmp_path / "best.onnx", layout))
    assert made.outputs.boxes.layout == layout
    assert made.outputs.boxes.labels == ["background", "dent", "scratch"]
    detection = answer(made, photo, tmp_path)
    sure = confidences(photo)
    assert detection.score == pytest.approx(sure[1:].max(), abs=1e-4)
    assert sure[1] >= 0.25 > sure[2]
    assert areas_of(detection)["dent"] == pytest.approx(60 * 36 / (96 * 72))
    assert "scratch" not in areas_of(detection)


@pytest.mark.parametrize("layout", ["anchors", "rows"])
def test_a_segmenter_paints_the_instances_inside_their_boxes(tmp_path, layout):
    photo = picture(width=96, height=72)
    made = draft(detector(tmp_path / "best.onnx", layout, "segment"))
    assert made.outputs.boxes.prototypes == "output1"
    detection = answer(made, photo, tmp_path)
    assert detection.score == pytest.approx(confidences(photo)[1:].max(), abs=1e-4)
    # The dent's instance is the right half of the plane, from 48 on; its box ends at 90 and is 36 high.
    assert areas_of(detection)["dent"] == pytest.approx(42 * 36 / (96 * 72), abs=0.01)


def test_classes_may_paint_one_type_and_any_of_them_be_normal(tmp_path):
    file = detector(tmp_path / "best.onnx")
    made = draft(file, "--class", "good=damage", "--class", "dent=damage", "--normal", "scratch")
    assert made.outputs.boxes.labels == ["damage", "damage", "background"]
    assert [label.name for label in made.labels] == ["background", "damage"]
    assert draft(file, "--class", "good=damage").outputs.boxes.labels == ["damage", "dent", "scratch"]
    assert draft(file, "--class", "dent=background").outputs.boxes.labels == ["background", "background", "scratch"]


def test_a_detector_is_fed_as_ultralytics_feeds_it(tmp_path):
    made = draft(detector(tmp_path / "best.onnx")).preprocessing
    assert (made.resize, made.padding, made.interpolation, made.antialias) == ("letterbox", 114, "bilinear", False)
    assert (made.channels, made.scale, made.mean, made.std) == ("RGB", 1 / 255, [0, 0, 0], [1, 1, 1])


def test_boxes_count_from_a_quarter_on_unless_told_otherwise(tmp_path):
    file = detector(tmp_path / "best.onnx")
    assert draft(file).decision.threshold == 0.25
    assert draft(file, "--threshold", 0.6).decision.threshold == 0.6


def test_a_dynamic_export_gets_the_size_of_its_metadata(tmp_path):
    file = network(
        tmp_path / "best.onnx",
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Reshape", ["pooled", "row"], ["three"]),
            helper.make_node("Concat", ["boxes", "three"], ["output0"], axis=1),
        ],
        {"output0": ["batch", "rows", "anchors"]},
        shape=("batch", 3, "height", "width"),
        name="images",
        constants={"row": np.array([1, 3, 1]), "boxes": np.ones((1, 4, 1), np.float32)},
        metadata=metadata("detect", imgsz="[64, 96]"),
    )
    made = draft(file)
    assert (made.preprocessing.width, made.preprocessing.height) == (96, 64)
    assert made.outputs.boxes.layout == "anchors"


def test_a_grey_export_takes_rgb(tmp_path):
    photo = picture(width=96, height=72)
    made = draft(detector(tmp_path / "best.onnx", channels=1))
    grey = (letterboxed(photo) @ [0.299, 0.587, 0.114]).mean()
    assert answer(made, photo, tmp_path).score == pytest.approx(grey * 0.75, abs=1e-4)


def with_metadata(file, task, **others):
    """A classifier with the mean of each channel as its logits."""
    model = onnx.load(classifier(file, np.eye(3) * 4, np.zeros(3), "Softmax", shape=(1, 3, 96, 96)))
    helper.set_model_props(model, metadata(task, **others))
    onnx.save(model, file)
    return file


def test_a_classifier_is_fed_the_middle_of_the_image(tmp_path):
    photo = picture(width=192, height=240)
    made = draft(with_metadata(tmp_path / "best.onnx", "classify"))
    resized = np.asarray(Image.fromarray(photo).resize((96, 120), Image.Resampling.BILINEAR), np.float64)
    powers = np.exp(resized[12:108].mean(axis=(0, 1)) / 255 * 4)
    detection = answer(made, photo, tmp_path)
    assert detection.score == pytest.approx(1 - powers[0] / powers.sum(), abs=1e-4)
    assert (detection.mask, made.decision.threshold) == (None, 0.5)


@pytest.mark.parametrize(
    ("version", "antialias"), [("8.0.232", False), ("8.0.233", True), ("8.4.190", True), ("", True)]
)
def test_classifiers_before_8_0_233_were_resized_without_antialias(tmp_path, version, antialias):
    made = draft(with_metadata(tmp_path / "best.onnx", "classify", version=version))
    assert (made.preprocessing.resize, made.preprocessing.antialias) == ("crop", antialias)


def test_a_classifier_needs_a_normal_class(tmp_path):
    file = with_metadata(tmp_path / "best.onnx", "classify", names="{0: 'a', 1: 'b', 2: 'c'}")
    with pytest.raises(SettingOutOfRange, match=r"--normal is not given, but must be .* one of a, b, c"):
        draft(file)
    assert draft(file, "--normal", "b").outputs.normal_class_ids == [1]
    with pytest.raises(SettingOutOfRange, match="a classifier has no mask"):
        draft(file, "--normal", "b", "--class", "a=dent")


def test_a_semantic_model_paints_the_class_of_each_pixel(tmp_path):
    photo = picture(width=96, height=72)
    file = network(
        tmp_path / "best.onnx",
        [
            helper.make_node("ArgMax", ["images"], ["chosen"], axis=1, keepdims=0),
            helper.make_node("Cast", ["chosen"], ["output0"], to=TensorProto.UINT8),
        ],
        {"output0": [1, 96, 96]},
        shape=(1, 3, 96, 96),
        name="images",
        output_dtype=TensorProto.UINT8,
        metadata=metadata("semantic"),
    )
    detection = answer(draft(file), photo, tmp_path)
    chosen = photo.argmax(axis=-1)
    assert areas_of(detection) == pytest.approx(
        {"background": (chosen == 0).mean(), "dent": (chosen == 1).mean(), "scratch": (chosen == 2).mean()}
    )
    assert detection.score == 1


@pytest.mark.parametrize("task", ["pose", "obb", "depth"])
def test_tasks_without_anomalies_are_refused(tmp_path, task):
    with pytest.raises(BadSource, match=f"'{task}'.*Train one of detect, segment, semantic or classify"):
        draft(with_metadata(tmp_path / "best.onnx", task))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": "{0: 'a', 2: 'b'}"}, "does not name classes 0, 1, 2"),
        ({"names": "{0: 'a', 1: 'b', 2: __import__('os')}"}, "metadata 'names' cannot be read"),
        ({"names": "(" * 5000}, "metadata 'names' cannot be read"),
        ({"names": "{" + "0: 'a'," * 200_000 + "}"}, "metadata 'names' cannot be read"),
        ({"names": "{0: 'a', 1: 'b'}"}, "neither (1, 6, boxes) nor (1, boxes, 6)"),
        ({"imgsz": "['a', 'b']"}, "metadata 'imgsz' is no size"),
        ({"head": "RTDETRDecoder"}, "it is an RT-DETR"),
    ],
)
def test_metadata_that_cannot_be_trusted_are_refused(tmp_path, changes, sentence):
    file = detector(tmp_path / "best.onnx", **changes)
    with pytest.raises(BadSource) as refused:
        draft(file)
    assert sentence in str(refused.value)


def test_a_graph_without_metadata_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(BadSource, match=r"Export it again .* or use: edge-agent package onnx"):
        draft(classifier(tmp_path / "best.onnx", np.eye(3), np.zeros(3)))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--class", "hole=damage"], "CLASS=ANOMALY-TYPE of one of good, dent, scratch"),
        (["--class", "dent"], "CLASS=ANOMALY-TYPE, such as"),
        (["--normal", "hole"], "one of the classes good, dent, scratch"),
        (["--normal", "good", "--normal", "dent", "--class", "scratch=background"], "one has to be an anomaly"),
    ],
)
def test_an_option_that_does_not_fit_the_classes_is_refused(tmp_path, words, sentence):
    file = detector(tmp_path / "best.onnx")
    with pytest.raises(Refusal) as refused:
        draft(file, *words)
    assert sentence in str(refused.value)


def test_more_types_than_a_mask_can_show_have_to_be_merged(tmp_path):
    names = {index: f"type {index}" for index in range(120)}
    file = network(
        tmp_path / "best.onnx",
        [
            helper.make_node("ReduceMean", ["images", "all"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "ones"], ["output0"]),
        ],
        {"output0": [1, 124, 5]},
        shape=(1, 3, 96, 96),
        name="images",
        constants={"all": np.array([0, 1, 2, 3]), "ones": np.ones((1, 124, 5), np.float32)},
        metadata=metadata("detect", names=str(names)),
    )
    with pytest.raises(BadSource, match=r"120 anomaly types apart, and a mask has at most 99\. Give .* with --class"):
        draft(file)
    merged = [word for name in names.values() for word in ("--class", f"{name}=damage")]
    assert [label.name for label in draft(file, *merged).labels] == ["background", "damage"]
