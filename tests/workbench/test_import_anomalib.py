"""Exports of every version of anomalib, packaged and served, answer what anomalib's own arithmetic answers."""

import argparse
import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from agent.backends.base import BackendSettings
from agent.commands.package import anomalib as command
from agent.packages.manifest import AgentPreprocessing, Cover, GraphPreprocessing, Identity, ImageSize
from agent.pipeline import Pipeline
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.anomalib.decision import Choices
from agent.workbench.importers.anomalib.importer import draft_of
from agent.workbench.packaging.writer import Evidence, write_package
from tests.support.anomalib_exports import (
    MEAN,
    STD,
    Spec,
    export_0,
    export_1,
    export_2,
    export_2_7,
    normalised,
    raw_map,
    raw_score,
)

SIZE = (80, 64)
NORMALIZE = {
    "__class_fullname__": "Normalize",
    "mean": MEAN.tolist(),
    "std": STD.tolist(),
    "max_pixel_value": 255.0,
}
RESIZE = {"__class_fullname__": "Resize", "height": SIZE[1], "width": SIZE[0], "interpolation": 1}
TO_TENSOR = {"__class_fullname__": "ToTensorV2", "transpose_mask": False}


def photograph(seed, brightness, size=SIZE):
    """Noise around a brightness, with a gradient over it; uint8 (height, width, 3)."""
    width, height = size
    rng = np.random.default_rng(seed)
    slope = np.linspace(-30, 30, width)[None, :, None]
    return np.clip(rng.normal(brightness, 12, (height, width, 3)) + slope, 0, 255).astype(np.uint8)


def photographs(size=SIZE):
    """From far below the range of the scores to far above it."""
    return [photograph(seed, brightness, size) for seed, brightness in enumerate((0, 60, 90, 105, 120, 150, 180, 250))]


@pytest.fixture
def serve(tmp_path):
    """The pipeline of the package of an export."""

    def _serve(export, choices=Choices(), size=SIZE):  # noqa: B008 (frozen)
        draft = draft_of(export, choices)
        evidence = Evidence([("usual", photograph(0, 100, size))])
        package = write_package(
            draft, Identity("bolts", "1.0.0"), ImageSize(*size), lambda answer: evidence, tmp_path / "package"
        )
        return Pipeline(package, BackendSettings(threads=1))

    return _serve


def painted(detection):
    """Where the mask is not background: bool, (height, width)."""
    return (detection.mask != 255).any(axis=2)


def assert_answers_as_anomalib(pipeline, spec, is_above=np.greater):
    """Scores, verdicts and masks at several images, the clipped ends of the scale among them."""
    seen = []
    for pixels in photographs():
        score = normalised(raw_score(pixels, spec), spec.threshold, spec.range)
        detection = pipeline.detect(pixels)
        assert detection.score == pytest.approx(score, abs=1e-4)
        assert detection.is_anomalous == is_above(score, 1 - spec.sensitivity)
        if detection.mask is not None:
            plane = normalised(raw_map(pixels, spec), spec.pixel_threshold, spec.pixel_range)
            np.testing.assert_array_equal(painted(detection), is_above(plane, 1 - spec.pixel_sensitivity))
        seen.append(detection.score)
    assert min(seen) == 0
    assert max(seen) == 1
    assert len(set(seen)) > 4


@pytest.mark.parametrize("export", [export_2, export_2_7], ids=["2.0-2.6", "2.7"])
@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(sensitivity=0.7, pixel_sensitivity=0.35),
        Spec(flat_score=True, own_score=True),
        Spec(own_score=True),
        Spec(batch=2, flat_score=True, own_score=True),
        Spec(batch=2),
        Spec(size=None, resized=SIZE),
        Spec(resized=SIZE),
        Spec(has_map=False),
        Spec(has_map=False, flat_score=True, own_score=True),
        Spec(thresholding=False),
    ],
    ids=[
        "calibrated",
        "sensitivity",
        "own score [N]",
        "own score [N, 1]",
        "batch of two, score [N]",
        "batch of two",
        "any size in",
        "resize of its own size",
        "score only",
        "score only [N]",
        "no labels",
    ],
)
def test_exports_of_version_2_answer_as_anomalib(export, spec, serve, tmp_path):
    assert_answers_as_anomalib(serve(export(tmp_path / "export", spec)), spec)


@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        Spec(own_score=True, flat_score=True),
        Spec(size=None, resized=SIZE),
        Spec(has_map=False, flat_score=True),
    ],
    ids=["map only", "map and score", "any size in", "score only"],
)
def test_exports_of_version_1_answer_as_anomalib(spec, serve, tmp_path):
    assert_answers_as_anomalib(serve(export_1(tmp_path / "export", spec)), spec, np.greater_equal)


def test_exports_of_version_0_7_answer_as_anomalib(serve, tmp_path):
    spec = Spec(batch=1, pixel_range=20.0)
    export = export_0(tmp_path / "export", spec, [RESIZE, NORMALIZE, TO_TENSOR])
    assert_answers_as_anomalib(serve(export), spec, np.greater_equal)


def test_the_packaged_graph_gives_raw_scores_where_the_export_was_clipped(tmp_path):
    spec = Spec(own_score=True)
    draft = draft_of(export_2_7(tmp_path / "export", spec), Choices())
    session = onnxruntime.InferenceSession(draft.files["model.onnx"])
    assert [tensor.name for tensor in session.get_outputs()] == ["raw_score", "raw_map"]
    bright = photograph(1, 250)
    score, plane = session.run(None, {"input": (bright / 255).transpose(2, 0, 1)[None].astype(np.float32)})
    assert score.item() == pytest.approx(raw_score(bright, spec), rel=1e-4)
    assert score.item() > 1.5 * (spec.threshold + spec.range / 2)
    np.testing.assert_allclose(plane[0, 0], raw_map(bright, spec), rtol=1e-3, atol=1e-3)


def test_a_subtraction_of_nothing_and_a_division_by_one_may_have_been_left_out(tmp_path):
    export = export_2_7(tmp_path / "export", Spec(threshold=0.0, range=1.0, pixel_threshold=0.0))
    decision = draft_of(export, Choices()).decision
    assert (decision.calibration.center, decision.calibration.range, decision.pixel_threshold) == (0.0, 1.0, 0.0)


def test_what_only_the_normalisation_needed_is_dropped(tmp_path):
    draft = draft_of(export_2_7(tmp_path / "export", Spec()), Choices())
    model = onnx.load_model_from_string(draft.files["model.onnx"])
    assert {node.op_type for node in model.graph.node} == {"Sub", "Div", "Conv", "Identity"}
    assert {weight.name for weight in model.graph.initializer} == {
        name for node in model.graph.node for name in node.input
    } - {"input"} - {output for node in model.graph.node for output in node.output}


def test_a_score_that_is_the_maximum_of_the_map_is_taken_from_the_map(tmp_path):
    # So that an ignore mask counts: it can leave pixels out of a map, not out of a score.
    outputs = draft_of(export_2(tmp_path / "export", Spec()), Choices()).outputs
    assert (outputs.score, outputs.anomaly_map) == (None, "raw_map")


def test_half_precision_goes_in_and_comes_out(serve, tmp_path):
    spec = Spec(dtype=np.float16)
    pipeline = serve(export_2(tmp_path / "export", spec))
    for pixels in photographs():
        score = normalised(raw_score(pixels, spec), spec.threshold, spec.range)
        assert pipeline.detect(pixels).score == pytest.approx(score, abs=0.01)


# Images of another size


def test_the_agent_resizes_with_smoothing_where_any_size_may_come(serve, tmp_path):
    spec, camera = Spec(size=None, resized=SIZE), (200, 150)
    pipeline = serve(export_2(tmp_path / "export", spec), size=camera)
    for pixels in photographs(camera):
        smooth = np.asarray(Image.fromarray(pixels).resize(SIZE, Image.Resampling.BILINEAR))
        score = normalised(raw_score(smooth, spec), spec.threshold, spec.range)
        assert pipeline.detect(pixels).score == pytest.approx(score, abs=1e-4)


def test_the_graph_resizes_without_smoothing_where_it_is_asked_to(serve, tmp_path):
    spec, camera = Spec(size=None, resized=SIZE, own_score=True), (200, 150)
    pipeline = serve(export_2_7(tmp_path / "export", spec), Choices(resize="graph"), size=camera)
    for pixels in photographs(camera):
        score = normalised(raw_score(sampled(pixels, SIZE), spec), spec.threshold, spec.range)
        assert pipeline.detect(pixels).score == pytest.approx(score, abs=1e-4)


def sampled(pixels, size):
    """Bilinear with half-pixel centres between the nearest four pixels, whatever lies between; float, 0..255."""

    def neighbours(length, wanted):
        at = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
        first = np.minimum(at.astype(int), length - 2)
        return first, at - first

    (rows, down), (columns, right) = (neighbours(pixels.shape[axis], size[1 - axis]) for axis in (0, 1))
    down, right = down[:, None, None], right[None, :, None]
    pixels = pixels.astype(float)
    upper = pixels[rows][:, columns] * (1 - right) + pixels[rows][:, columns + 1] * right
    lower = pixels[rows + 1][:, columns] * (1 - right) + pixels[rows + 1][:, columns + 1] * right
    return upper * (1 - down) + lower * down


def test_a_graph_of_no_known_size_is_given_the_cameras_image(serve, tmp_path):
    spec, camera = Spec(size=None), (120, 100)
    pipeline = serve(export_2(tmp_path / "export", spec), size=camera)
    for pixels in photographs(camera):
        score = normalised(raw_score(pixels, spec), spec.threshold, spec.range)
        assert pipeline.detect(pixels).score == pytest.approx(score, abs=1e-4)


def test_an_export_of_one_size_cannot_resize_itself(tmp_path):
    export = export_2(tmp_path / "export", Spec())
    with pytest.raises(SettingOutOfRange, match="takes 80x64 only"):
        draft_of(export, Choices(resize="graph"))


def test_an_export_of_0_7_cannot_resize_itself(tmp_path):
    export = export_0(tmp_path / "export", Spec(batch=1), [RESIZE, NORMALIZE, TO_TENSOR])
    with pytest.raises(SettingOutOfRange, match=r"agent: exports of 0\.7 do not resize"):
        draft_of(export, Choices(resize="graph"))


# CenterCrop

CROP = Spec(size=None, resized=(100, 80), crop=(10, 8, 80, 64))


@pytest.mark.parametrize("export", [export_1, export_2, export_2_7], ids=["1.x", "2.0-2.6", "2.7"])
@pytest.mark.parametrize("size", [None, (100, 80), (200, 160)], ids=["any size in", "its own size in", "fixed size in"])
def test_a_crop_in_the_graph_is_recognised(export, size, tmp_path):
    spec = Spec(size=size, resized=(100, 80), crop=(10, 8, 80, 64))
    draft = draft_of(export(tmp_path / "export", spec), Choices())
    assert draft.outputs.map_covers == Cover(0.1, 0.1, 0.8, 0.8)
    assert (draft.preprocessing.width, draft.preprocessing.height) == (size or (100, 80))
    assert "The model works at 80x64" in "\n".join(draft.notes)


def test_the_graph_resizes_and_crops_where_it_is_asked_to(tmp_path):
    draft = draft_of(export_2(tmp_path / "export", CROP), Choices(resize="graph"))
    assert isinstance(draft.preprocessing, GraphPreprocessing)
    assert draft.outputs.map_covers == Cover(0.1, 0.1, 0.8, 0.8)


@pytest.mark.parametrize("export", [export_1, export_2_7], ids=["1.x", "2.7"])
def test_a_mask_shows_the_crop_where_it_was_cut_out(export, serve, tmp_path):
    pipeline = serve(export(tmp_path / "export", CROP), size=(100, 80))
    for pixels in photographs((100, 80)):
        detection = pipeline.detect(pixels)
        score = normalised(raw_score(pixels, CROP), CROP.threshold, CROP.range)
        assert detection.score == pytest.approx(score, abs=1e-4)
        expected = np.zeros((80, 100), bool)
        expected[8:72, 10:90] = raw_map(pixels, CROP) > CROP.pixel_threshold
        np.testing.assert_array_equal(painted(detection), expected)


def test_the_crop_that_0_7_leaves_to_the_caller_is_done_in_the_graph(serve, tmp_path):
    spec = Spec(batch=1)
    whole = RESIZE | {"width": 100, "height": 80}
    crop = {"__class_fullname__": "albumentations.augmentations.crops.transforms.CenterCrop", "height": 64, "width": 80}
    export = export_0(tmp_path / "export", spec, [whole, crop, NORMALIZE, TO_TENSOR])
    pipeline = serve(export, size=(100, 80))
    for pixels in photographs((100, 80)):
        score = normalised(raw_score(pixels[8:72, 10:90], spec), spec.threshold, spec.range)
        assert pipeline.detect(pixels).score == pytest.approx(score, abs=1e-4)
    assert draft_of(export, Choices()).outputs.map_covers == Cover(0.1, 0.1, 0.8, 0.8)


def test_a_crop_of_an_image_of_unknown_size_is_refused_but_without_masks(serve, tmp_path):
    spec = Spec(size=None, crop=(10, 8, 80, 64))
    export = export_2(tmp_path / "export", spec)
    with pytest.raises(BadSource, match="--task classification"):
        draft_of(export, Choices())
    pipeline = serve(export, Choices(task="classification"), size=(100, 80))
    pixels = photograph(3, 110, (100, 80))
    score = normalised(raw_score(pixels, spec), spec.threshold, spec.range)
    assert pipeline.detect(pixels).score == pytest.approx(score, abs=1e-4)


# What the caller of 0.7 has to do


def test_what_0_7_leaves_to_the_caller_is_in_the_manifest(tmp_path):
    spec = Spec(batch=1)
    preprocessing = draft_of(
        export_0(tmp_path / "export", spec, [RESIZE, NORMALIZE, TO_TENSOR]), Choices()
    ).preprocessing
    assert isinstance(preprocessing, AgentPreprocessing)
    assert (preprocessing.interpolation, preprocessing.antialias) == ("bilinear", False)  # OpenCV's
    assert preprocessing.mean == pytest.approx(MEAN.tolist())
    assert preprocessing.std == pytest.approx(STD.tolist())
    assert preprocessing.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("number", "interpolation", "antialias"),
    [(0, "nearest", True), (2, "bicubic", False), (3, "area", True), (4, "lanczos", True)],
)
def test_opencvs_interpolations_are_known(number, interpolation, antialias, tmp_path):
    steps = [RESIZE | {"interpolation": number}, NORMALIZE]
    preprocessing = draft_of(export_0(tmp_path / "export", Spec(batch=1), steps), Choices()).preprocessing
    assert (preprocessing.interpolation, preprocessing.antialias) == (interpolation, antialias)


def test_images_that_are_only_made_floats_are_not_normalised(tmp_path):
    steps = [RESIZE, {"__class_fullname__": "ToFloat", "max_value": 255}, TO_TENSOR]
    preprocessing = draft_of(export_0(tmp_path / "export", Spec(batch=1), steps), Choices()).preprocessing
    assert preprocessing.scale == pytest.approx(1 / 255)
    assert (preprocessing.mean, preprocessing.std) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([RESIZE, {"__class_fullname__": "HorizontalFlip"}, NORMALIZE], "HorizontalFlip"),
        ([RESIZE, NORMALIZE | {"std": [1, 1, 0]}], "Normalize"),
        ([RESIZE | {"interpolation": 9}, NORMALIZE], "Resize"),
        ([NORMALIZE, RESIZE], "Resize"),
        ([RESIZE | {"width": 96}, NORMALIZE], "makes images of 96x64, and the model takes 80x64"),
        ("all of them", "a list of steps is missing"),
    ],
    ids=["unknown step", "division by zero", "unknown interpolation", "wrong order", "another size", "no list"],
)
def test_a_transform_that_cannot_be_done_is_refused(steps, reason, tmp_path):
    export = export_0(tmp_path / "export", Spec(batch=1), steps)
    with pytest.raises(BadSource, match=reason):
        draft_of(export, Choices())


# Exports that were not calibrated


@pytest.mark.parametrize(
    ("export", "spec"),
    [
        (export_2, Spec(calibrated=False)),
        (export_2_7, Spec(calibrated=False)),
        (export_2_7, Spec(range=0.0, pixel_range=0.0)),
        (export_2, Spec(range=0.0, pixel_range=0.0)),
        (export_2, Spec(threshold=float("nan"))),
    ],
    ids=["not normalised", "NaN", "2.7 no range", "2.0 no range", "NaN threshold"],
)
@pytest.mark.parametrize("own_score", [True, False], ids=["own score", "maximum"])
def test_an_uncalibrated_export_is_refused_and_served_with_a_threshold(export, spec, own_score, serve, tmp_path):
    spec = dataclasses.replace(spec, own_score=own_score)
    folder = export(tmp_path / "export", spec)
    with pytest.raises(BadSource, match=r"not calibrated.*give --threshold"):
        draft_of(folder, Choices())

    pipeline = serve(folder, Choices(threshold=5.0, pixel_threshold=2.0, range=8.0))
    for pixels in photographs():
        detection = pipeline.detect(pixels)
        assert detection.score == pytest.approx(normalised(raw_score(pixels, spec), 5.0, 8.0), abs=1e-4)
        assert detection.is_anomalous == (raw_score(pixels, spec) >= 5.0)
        np.testing.assert_array_equal(painted(detection), raw_map(pixels, spec) >= 2.0)


def test_scores_around_a_given_threshold_begin_at_zero(tmp_path):
    export = export_2(tmp_path / "export", Spec(calibrated=False))
    decision = draft_of(export, Choices(threshold=5.0)).decision
    assert (decision.calibration.center, decision.calibration.range, decision.threshold) == (5.0, 10.0, 0.5)
    assert decision.pixel_threshold == 5.0


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"image_threshold": 0.5, "pred_scores.min": float("inf"), "pred_scores.max": float("-inf")}, "no threshold"),
        ({"image_threshold": float("nan")}, "no threshold"),
        ({"image_threshold": "high"}, "no threshold"),
        ({"image_mean": -1.0, "image_std": 0.1}, "distribution"),
    ],
    ids=["never validated", "NaN", "no number", "cdf"],
)
def test_metadata_without_a_usable_threshold_is_refused_and_served_with_one(metadata, reason, serve, tmp_path):
    export = export_1(tmp_path / "export", Spec(), **metadata)
    with pytest.raises(BadSource, match=f"not calibrated.*{reason}.*give --threshold"):
        draft_of(export, Choices())
    pipeline = serve(export, Choices(threshold=5.0))
    pixels = photograph(3, 110)
    assert pipeline.detect(pixels).score == pytest.approx(raw_score(pixels, Spec()) / 10, abs=1e-4)


def test_a_threshold_without_a_range_is_kept(tmp_path):
    missing = {"pred_scores.min": None, "pred_scores.max": None}
    decision = draft_of(export_1(tmp_path / "export", Spec(), **missing), Choices()).decision
    assert (decision.calibration.center, decision.calibration.range, decision.threshold) == (4.5, 9.0, 0.5)


def test_a_map_without_a_threshold_paints_nothing_until_one_is_given(tmp_path):
    never = {"pixel_threshold": 0.5, "anomaly_maps.min": None, "anomaly_maps.max": None}
    export = export_1(tmp_path / "export", Spec(), **never)
    draft = draft_of(export, Choices())
    assert draft.task == "classification"
    assert "give --pixel-threshold" in "\n".join(draft.notes)
    assert draft_of(export, Choices(pixel_threshold=2.0)).task == "segmentation"


def test_without_metadata_a_threshold_is_needed(serve, tmp_path):
    export = export_1(tmp_path / "export", Spec())
    (export / "weights/onnx/metadata.json").unlink()
    with pytest.raises(BadSource, match=r"no metadata.json beside it.*give --threshold"):
        draft_of(export, Choices())
    assert draft_of(export, Choices(threshold=5.0)).decision.calibration.center == 5.0


def test_without_metadata_nobody_knows_what_0_7_does_with_images(tmp_path):
    export = export_0(tmp_path / "export", Spec(batch=1), [RESIZE, NORMALIZE])
    (export / "weights/onnx/metadata.json").unlink()
    with pytest.raises(BadSource, match=r"no metadata.json beside it says how its images are resized"):
        draft_of(export, Choices(threshold=5.0))


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
def test_metadata_that_is_none_is_refused(content, tmp_path):
    export = export_1(tmp_path / "export", Spec())
    (export / "weights/onnx/metadata.json").write_text(content, encoding="latin-1")
    with pytest.raises(BadSource, match="no JSON object"):
        draft_of(export, Choices())


def test_metadata_beside_an_export_that_needs_none_is_not_asked(serve, tmp_path):
    export = export_2(tmp_path / "export", Spec())
    odd = {"task": "classification", "image_threshold": 99, "transform": {}}
    (export / "weights/onnx/metadata.json").write_text(json.dumps(odd))
    assert_answers_as_anomalib(serve(export), Spec())


# What the engineer chooses


def test_a_threshold_in_raw_scores_replaces_the_exports_own(serve, tmp_path):
    pipeline = serve(export_2(tmp_path / "export", Spec()), Choices(threshold=8.5))
    for pixels in photographs():
        detection = pipeline.detect(pixels)
        assert detection.is_anomalous == (raw_score(pixels, Spec()) >= 8.5)
        assert detection.score == pytest.approx(normalised(raw_score(pixels, Spec()), 4.5, 20.0), abs=1e-4)


def test_a_threshold_outside_the_range_of_scores_is_refused(tmp_path):
    export = export_2(tmp_path / "export", Spec())
    with pytest.raises(SettingOutOfRange, match=r"--threshold is 99, but must be -5.5 to 14.5"):
        draft_of(export, Choices(threshold=99.0))


def test_a_range_beside_the_exports_own_is_refused(tmp_path):
    export = export_2(tmp_path / "export", Spec())
    with pytest.raises(SettingOutOfRange, match="--range is 3, but must be left out"):
        draft_of(export, Choices(range=3.0))


def test_a_mask_from_a_model_without_a_map_is_refused(tmp_path):
    export = export_2(tmp_path / "export", Spec(has_map=False))
    with pytest.raises(SettingOutOfRange, match="the model has no map"):
        draft_of(export, Choices(task="segmentation"))
    with pytest.raises(SettingOutOfRange, match="the model has no map"):
        draft_of(export, Choices(pixel_threshold=2.0))


@pytest.mark.parametrize(
    ("task", "asked", "packaged"),
    [
        ("classification", None, "classification"),
        ("classification", "segmentation", "segmentation"),
        ("segmentation", "classification", "classification"),
        ("detection", None, "segmentation"),
        ("nonsense", None, "segmentation"),
    ],
)
def test_the_task_is_the_metadatas_unless_another_is_asked_for(task, asked, packaged, tmp_path):
    draft = draft_of(export_1(tmp_path / "export", Spec(), task=task), Choices(task=asked))
    assert draft.task == packaged
    assert bool(draft.labels) == (packaged == "segmentation")


def test_a_classification_scores_by_its_map_where_it_has_nothing_else(serve, tmp_path):
    pipeline = serve(export_1(tmp_path / "export", Spec(), task="classification"))
    assert_answers_as_anomalib(pipeline, Spec(), np.greater_equal)


def test_the_command_passes_every_choice_on(tmp_path):
    export = export_2(tmp_path / "export", Spec(calibrated=False, size=None, resized=SIZE))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = "--threshold 5 --pixel-threshold 2 --range 4 --task segmentation --anomaly-name scratch --resize graph"
    draft = command.draft(parser.parse_args([str(export), *words.split()]))
    assert (draft.decision.calibration.center, draft.decision.calibration.range) == (5, 4)
    assert draft.decision.pixel_threshold == 2
    assert [label.name for label in draft.labels] == ["background", "scratch"]
    assert isinstance(draft.preprocessing, GraphPreprocessing)


@pytest.mark.parametrize("words", ["--threshold nan", "--range 0", "--range -1", "--pixel-threshold inf", "--range x"])
def test_the_command_refuses_numbers_that_are_none(words, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([str(tmp_path), *words.split()])
    assert words.split()[0] in capsys.readouterr().err


# Which file is meant


@pytest.mark.parametrize("inside", [".", "weights", "weights/onnx", "weights/onnx/model.onnx"])
def test_an_export_is_found_from_its_folder_and_its_file(inside, tmp_path):
    export = export_2_7(tmp_path / "export", Spec())
    assert draft_of(export / inside, Choices()).task == "segmentation"


@pytest.mark.parametrize(
    ("file", "reason"), [("torch/model.pt", "pickles"), ("openvino/model.xml", "OpenVINO"), ("readme", "no ONNX model")]
)
def test_a_folder_without_an_onnx_model_says_what_it_holds(file, reason, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(BadSource, match=reason):
        draft_of(tmp_path, Choices())


def test_a_folder_with_several_models_asks_for_one(tmp_path):
    export_2(tmp_path / "a", Spec())
    export_2(tmp_path / "b", Spec())
    with pytest.raises(BadSource, match="several models"):
        draft_of(tmp_path, Choices())


def test_a_checkpoint_is_not_opened(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(BadSource, match="runs code"):
        draft_of(tmp_path / "model.ckpt", Choices())


def test_the_metadata_given_in_place_of_the_model_is_refused(tmp_path):
    export = export_1(tmp_path / "export", Spec())
    with pytest.raises(BadSource, match="no ONNX model"):
        draft_of(export / "weights/onnx/metadata.json", Choices())


def test_external_data_that_is_missing_is_refused(tmp_path):
    export = export_2_7(tmp_path / "export", Spec())
    (export / "weights/onnx/model.onnx.data").unlink()
    with pytest.raises(BadSource, match=r"model.onnx.data"):
        draft_of(export, Choices())


def odd_model(file, inputs, output):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [inputs[0].name], [output])],
        "odd",
        inputs,
        [onnx.helper.make_tensor_value_info(output, inputs[0].type.tensor_type.elem_type, None)],
    )
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)]), file)
    return file


@pytest.mark.parametrize(
    ("dtype", "shape", "output", "reason"),
    [
        (onnx.TensorProto.FLOAT, [1, 3, 64, 64], "boxes", "none of anomalib's"),
        (onnx.TensorProto.FLOAT, [1, 4, 64, 64], "pred_score", "not one image of 3 channels"),
        (onnx.TensorProto.FLOAT, [1, 64], "pred_score", "not one image of 3 channels"),
        (onnx.TensorProto.UINT8, [1, 3, 64, 64], "pred_score", "as uint8"),
    ],
)
def test_a_model_of_another_kind_is_refused(dtype, shape, output, reason, tmp_path):
    image = onnx.helper.make_tensor_value_info("input", dtype, shape)
    with pytest.raises(BadSource, match=reason):
        draft_of(odd_model(tmp_path / "model.onnx", [image], output), Choices(threshold=1.0))
