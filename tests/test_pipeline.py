"""Pixels to detection through a real runtime, with packages whose answers can be told in one's head."""

import math
import threading

import numpy as np
import pytest
from onnx import TensorProto

from agent.backends.base import BackendSettings
from agent.errors import AnswerNotFinite, BadPackageFile, ModelDoesNotFit, WrongImageSize
from agent.packages.manifest import AgentPreprocessing, Boxes, Cover, Label, LinearCalibration, Outputs, Rectangle
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from tests.support.packages import (
    HEIGHT,
    WIDTH,
    add_file,
    anchors_model,
    boxes_model,
    changed,
    constant_score_model,
    first_channel_model,
    grey,
    make_package,
    rewrite_manifest,
)

REGION = Rectangle(x=20, y=10, width=40, height=30)
GREEN = (0x23, 0xA4, 0x36)
WHITE = (255, 255, 255)


@pytest.fixture
def opened(tmp_path):
    """Opens a package as `make_package` makes it."""

    def pipeline(change=None, **options):
        folder = make_package(tmp_path / f"package{len(list(tmp_path.iterdir()))}", change=change, **options)
        return Pipeline(read_package(folder), BackendSettings())

    return pipeline


def dark_square(left=30, top=20, side=8, value=51):
    """White, with one square of another grey."""
    pixels = grey(255)
    pixels[top : top + side, left : left + side] = value
    return pixels


def areas(detection):
    return {region.name: region.area for region in detection.regions}


def with_preprocessing(**fields):
    return lambda manifest: changed(manifest, preprocessing=changed(manifest.preprocessing, **fields))


# --- classification and segmentation


@pytest.mark.parametrize(("red", "anomalous"), [(0, False), (127, False), (128, True), (255, True)])
def test_classification_gives_a_verdict_without_mask_and_regions(opened, red, anomalous):
    pixels = grey(0)
    pixels[0, 0, 0] = red
    detection = opened(task="classification").detect(pixels)
    score = round(red / 255, 4)
    assert (detection.is_anomalous, detection.score, detection.threshold) == (anomalous, score, 0.5)
    assert detection.confidence == pytest.approx(score if anomalous else 1 - score)
    assert (detection.regions, detection.mask) == ((), None)


def test_classification_ignores_where_a_mask_might_go(opened):
    buffer = bytearray(b"\x55" * (WIDTH * HEIGHT * 3))
    assert opened(task="classification").detect(grey(0), memoryview(buffer)).mask is None
    assert set(buffer) == {0x55}


def test_segmentation_paints_what_is_dark(opened):
    detection = opened().detect(dark_square())
    assert (detection.is_anomalous, detection.score, detection.confidence) == (True, 0.8, 0.8)
    assert areas(detection) == {"background": 1 - 64 / (WIDTH * HEIGHT), "anomaly": 64 / (WIDTH * HEIGHT)}
    assert [region.color for region in detection.regions] == ["#FFFFFF", "#23A436"]
    expected = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    expected[20:28, 30:38] = GREEN
    np.testing.assert_array_equal(detection.mask, expected)


def test_segmentation_paints_a_mask_of_a_normal_image_too(opened):
    detection = opened().detect(grey(255))
    assert (detection.is_anomalous, detection.score, detection.confidence) == (False, 0.0, 1.0)
    assert areas(detection) == {"background": 1.0}
    assert (detection.mask == 255).all()


def test_an_image_all_anomalous_still_names_the_background_first(opened):
    assert list(areas(opened().detect(grey(0))).items()) == [("background", 0.0), ("anomaly", 1.0)]


def test_a_packages_own_colours_are_painted(opened):
    pipeline = opened(lambda manifest: changed(manifest, labels=[Label("background"), Label("anomaly", "#010203")]))
    detection = pipeline.detect(grey(0))
    assert detection.regions[1].color == "#010203"
    assert (detection.mask == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("threshold", "anomalous", "confidence"),
    [
        (None, True, 0.8),
        (0.8, True, 0.8),
        (0.80004, True, 0.8),
        (0.8001, False, 0.2),
        (0.0, True, 0.8),
        (1, False, 0.2),
    ],
)
def test_a_threshold_that_comes_with_the_image_makes_verdict_and_confidence(opened, threshold, anomalous, confidence):
    pipeline = opened()
    detection = pipeline.detect(dark_square(), threshold=threshold)
    assert (detection.is_anomalous, detection.confidence, detection.score) == (anomalous, confidence, 0.8)
    assert detection.threshold == (0.5 if threshold is None else round(threshold, 4))
    assert areas(detection)["anomaly"] == 64 / (WIDTH * HEIGHT)  # the map has a threshold of its own
    assert pipeline.detect(dark_square()).threshold == 0.5  # of this image only


def test_the_self_test_is_judged_by_the_packages_own_threshold(opened):
    pipeline = opened()
    pipeline.detect(grey(255), threshold=0.0)
    ((test, answer),) = pipeline.self_test()
    assert answer.is_anomalous is test.is_anomalous is False


def test_verdict_and_mask_are_judged_apart(opened):
    """The score stays below its threshold while the mask shows an anomaly; the combination decides."""

    def judged(combination):
        return opened(
            lambda manifest: changed(
                manifest,
                decision=changed(
                    manifest.decision,
                    calibration=LinearCalibration(center=1.0, range=2.0),  # 0.8 becomes 0.4
                    combination=combination,
                ),
            )
        ).detect(dark_square())

    by_class, by_mask = judged("class"), judged("mask")
    assert areas(by_class) == areas(by_mask)
    assert "anomaly" in areas(by_class)
    assert (by_class.is_anomalous, by_class.score, by_class.confidence) == (False, 0.4, 0.6)
    assert (by_mask.is_anomalous, by_mask.score, by_mask.confidence) == (True, 0.4, 0.4)


# --- where the mask goes


def test_the_mask_is_painted_into_the_memory_that_is_given_and_no_further(opened):
    size = WIDTH * HEIGHT * 3
    buffer = bytearray(b"\x55" * (size + 100))
    detection = opened().detect(dark_square(), memoryview(buffer))
    assert np.shares_memory(detection.mask, np.frombuffer(buffer, np.uint8))
    mask = np.frombuffer(buffer, np.uint8, size).reshape(HEIGHT, WIDTH, 3)
    assert tuple(mask[20, 30]) == GREEN
    assert tuple(mask[0, 0]) == WHITE
    assert set(buffer[size:]) == {0x55}


def test_masks_of_two_images_are_two_masks(opened):
    pipeline = opened()
    first = pipeline.detect(grey(0))
    pipeline.detect(grey(255))
    assert (first.mask == GREEN).all()


# --- region of interest and ignore mask


def test_only_the_region_of_interest_is_inspected_and_its_mask_is_pasted_back(opened):
    pipeline = opened(with_preprocessing(region_of_interest=REGION))
    inside = pipeline.detect(dark_square(left=30, top=20))
    assert inside.score == 0.8
    assert inside.mask.shape == (HEIGHT, WIDTH, 3)
    assert np.argwhere((inside.mask == GREEN).all(axis=2)).tolist() == [
        [y, x] for y in range(20, 28) for x in range(30, 38)
    ]
    outside = pipeline.detect(dark_square(left=0, top=0))
    assert (outside.score, areas(outside)) == (0.0, {"background": 1.0})
    partly = pipeline.detect(dark_square(left=16, top=6))
    assert areas(partly)["anomaly"] == 16 / (WIDTH * HEIGHT)  # a 4 x 4 corner of the square, of the whole image


def ignoring(folder, ignored, **fields):
    """Adds an ignore mask to a package, lets the score come from the map, and opens it."""
    file = add_file(folder, "ignore.raw", ignored.astype(np.uint8).tobytes())
    manifest = read_package(folder).manifest
    rewrite_manifest(
        folder,
        changed(
            manifest,
            files=[*manifest.files, file],
            outputs=Outputs(anomaly_map="map"),
            preprocessing=changed(manifest.preprocessing, ignore_mask="ignore.raw", **fields),
        ),
    )
    return Pipeline(read_package(folder), BackendSettings())


@pytest.mark.parametrize("region", [None, REGION])
def test_ignored_pixels_are_background_and_not_in_the_score(tmp_path, region):
    ignored = np.zeros((HEIGHT, WIDTH), bool)
    ignored[:, 34:] = True  # the right half of the square
    pipeline = ignoring(make_package(tmp_path / "package"), ignored, region_of_interest=region)
    pixels = dark_square(left=30, top=20)
    pixels[:, 34:38] = np.where(pixels[:, 34:38] == 51, 0, 255)  # darker where it is ignored
    detection = pipeline.detect(pixels)
    assert detection.score == 0.8
    assert areas(detection)["anomaly"] == 32 / (WIDTH * HEIGHT)
    assert (detection.mask[:, 34:] == 255).all()


def test_an_image_that_is_ignored_whole_is_normal(tmp_path):
    detection = ignoring(make_package(tmp_path / "package"), np.ones((HEIGHT, WIDTH), bool)).detect(grey(0))
    assert (detection.is_anomalous, detection.score, areas(detection)) == (False, 0.0, {"background": 1.0})


# --- sizes


@pytest.mark.parametrize(("width", "height"), [(WIDTH + 1, HEIGHT), (WIDTH, HEIGHT - 1), (HEIGHT, WIDTH)])
def test_another_size_than_the_trainings_is_refused_with_both(opened, width, height):
    with pytest.raises(WrongImageSize) as refusal:
        opened().detect(grey(0, width, height))
    assert str(refusal.value) == (
        f'The image is {width} x {height}; model "tiny" was trained on {WIDTH} x {HEIGHT} and takes only this size.'
    )


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 100), (WIDTH, HEIGHT)])
def test_a_package_that_takes_any_size_answers_in_the_images_own(opened, width, height):
    detection = opened(any_size=True).detect(grey(0, width, height))
    assert detection.mask.shape == (height, width, 3)
    assert areas(detection)["anomaly"] == 1.0


# --- preprocessing by the agent

AGENT = AgentPreprocessing(tensor="input", width=12, height=8)


def by_agent(**fields):
    """A change of the manifest; the model sees the first channel of its tensor."""
    return lambda manifest: changed(manifest, preprocessing=changed(AGENT, **fields), self_test=manifest.self_test)


def test_the_agent_resizes_and_the_mask_has_the_images_size(opened):
    pixels = grey(0)
    pixels[:, 48:] = 255
    pipeline = opened(by_agent(), model=first_channel_model())
    detection = pipeline.detect(pixels)
    assert detection.score == 1.0
    assert detection.mask.shape == (HEIGHT, WIDTH, 3)
    painted = (detection.mask == GREEN).all(axis=2)
    assert not painted[:, :44].any()
    assert painted[:, 52:].all()
    assert areas(detection)["anomaly"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("channels", "score"), [("RGB", 200), ("BGR", 50)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("dtype", "tensor"),
    [("float32", TensorProto.FLOAT), ("float16", TensorProto.FLOAT16), ("uint8", TensorProto.UINT8)],
)
def test_the_model_gets_the_channels_layout_and_dtype_that_it_asked_for(opened, channels, score, layout, dtype, tensor):
    def change(manifest):
        wanted = changed(AGENT, channels=channels, layout=layout, dtype=dtype)
        decision = manifest.decision
        if dtype == "uint8":  # 0..255, as the pixels are
            decision = changed(decision, calibration=LinearCalibration(center=127.5, range=255.0))
        return changed(manifest, preprocessing=wanted, decision=decision)

    pipeline = opened(change, model=first_channel_model(dtype=tensor, layout=layout))
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = (200, 100, 50)
    assert pipeline.detect(pixels).score == pytest.approx(score / 255, abs=1e-3)


def test_mean_and_standard_deviation_reach_the_model(opened):
    pipeline = opened(by_agent(mean=[0.5, 0.0, 0.0], std=[0.25, 1.0, 1.0]), model=first_channel_model())
    assert pipeline.detect(grey(153)).score == pytest.approx((153 / 255 - 0.5) / 0.25, abs=1e-4)


def test_a_batch_fixed_in_the_graph_gets_the_image_repeated_and_gives_one_answer(opened):
    pixels = grey(0)
    pixels[:32] = 204
    once = opened(by_agent(), model=first_channel_model(batch=1)).detect(pixels)
    twice = opened(by_agent(), model=first_channel_model(batch=2)).detect(pixels)
    assert twice.score == once.score == 0.8
    assert twice.regions == once.regions
    np.testing.assert_array_equal(twice.mask, once.mask)


# --- proportions kept: where the mask lies

SQUARE = AgentPreprocessing(tensor="input", width=64, height=64, interpolation="nearest")
"""Of the 96 x 64 image: a letterbox of 64 x 43 below 10 rows of padding, or its middle 64 x 64."""


def bright_square(left, top, side=16):
    pixels = grey(0)
    pixels[top : top + side, left : left + side] = 255
    return pixels


def square(**fields):
    """The model sees 64 x 64; its map is what is bright, and the score the map's maximum where it counts."""

    def change(manifest):
        wanted = changed(SQUARE, **fields)
        return changed(manifest, preprocessing=wanted, outputs=Outputs(anomaly_map="map"))

    return {"change": change, "model": first_channel_model(width=64, height=64)}


def painted_box(detection):
    """Left, top, right and bottom of what is painted."""
    rows, columns = np.nonzero((detection.mask == GREEN).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize(("left", "top"), [(0, 0), (80, 48), (40, 24)])
def test_a_letterbox_shows_the_anomaly_where_it_lies_and_no_padding(opened, left, top):
    detection = opened(**square(resize="letterbox", padding=255)).detect(bright_square(left, top))
    assert detection.score == 1.0
    assert painted_box(detection) == pytest.approx((left, top, left + 16, top + 16), abs=1)
    assert areas(detection)["anomaly"] == pytest.approx(256 / (WIDTH * HEIGHT), rel=0.15)


def test_the_padding_of_a_letterbox_is_never_anomalous(opened):
    """Bright padding beside a dark image: the map is 1 there, the answer normal."""
    detection = opened(**square(resize="letterbox", padding=255)).detect(grey(0))
    assert (detection.is_anomalous, detection.score, areas(detection)) == (False, 0.0, {"background": 1.0})


def test_a_crop_inspects_the_middle_and_the_rest_is_background(opened):
    pipeline = opened(**square(resize="crop"))
    assert painted_box(pipeline.detect(bright_square(16, 10))) == (16, 10, 32, 26)
    assert painted_box(pipeline.detect(bright_square(8, 0))) == (16, 0, 24, 16)  # half of it was not seen
    beside = pipeline.detect(bright_square(0, 0))
    assert (beside.is_anomalous, beside.score, areas(beside)) == (False, 0.0, {"background": 1.0})


def test_a_crop_of_a_larger_shorter_side_inspects_less(opened):
    detection = opened(**square(resize="crop", shorter_side=128)).detect(grey(255))
    assert painted_box(detection) == (32, 16, 64, 48)
    assert areas(detection)["anomaly"] == 32 * 32 / (WIDTH * HEIGHT)


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_region_of_interest_and_ignore_mask_hold_whatever_the_image_is_fitted_by(tmp_path, resize):
    folder = make_package(tmp_path / "package", **square(resize=resize))
    ignored = np.zeros((HEIGHT, WIDTH), bool)
    ignored[:, 40:] = True
    pipeline = ignoring(folder, ignored, region_of_interest=REGION)
    inside = pipeline.detect(bright_square(30, 20, side=20))
    assert inside.score == 1.0
    assert painted_box(inside) == pytest.approx((30, 20, 40, 40), abs=1)
    for left, top in ((44, 20), (0, 20), (25, 44)):  # on ignored pixels, and beside the region
        unseen = pipeline.detect(bright_square(left, top))
        assert (unseen.score, areas(unseen)) == (0.0, {"background": 1.0})


def test_a_map_of_a_part_of_the_plane_is_pasted_there(opened):
    def change(manifest):
        outputs = Outputs(anomaly_map="map", map_covers=Cover(x=0.25, y=0.5, width=0.5, height=0.25))
        return changed(manifest, outputs=outputs)

    detection = opened(change).detect(grey(0))
    assert painted_box(detection) == (24, 32, 72, 48)


# --- boxes


def boxes(*rows, kind="rows", task="segmentation", threshold=0.5, **fields):
    """Of classes scratch, dent and background, in 64 x 64; `fields` change the preprocessing."""
    boxes = Boxes("boxes", kind, ["scratch", "dent", "background"])
    model = boxes_model if kind == "rows" else anchors_model

    def change(manifest):
        labels = [Label("background"), Label("dent"), Label("scratch")] if task == "segmentation" else []
        return changed(
            manifest,
            preprocessing=changed(SQUARE, **fields),
            outputs=Outputs(boxes=boxes),
            decision=changed(manifest.decision, threshold=threshold),
            labels=labels,
        )

    return {"change": change, "task": task, "model": model([list(row) for row in rows])}


def test_boxes_paint_the_labels_of_their_classes_and_the_best_makes_the_score(opened):
    options = boxes((0, 10, 32, 53, 0.9, 1), (32, 10, 64, 31.5, 0.6, 0), (0, 0, 64, 64, 1, 2), resize="letterbox")
    detection = opened(**options).detect(grey(255))
    assert (detection.is_anomalous, detection.score) == (True, 0.9)
    assert areas(detection) == {"background": 0.25, "dent": 0.5, "scratch": 0.25}
    painted = [region.color for region in detection.regions if region.name == "dent"]
    assert painted == ["#23A436"]
    assert (detection.mask[:, :48] == GREEN).all()
    assert (detection.mask[32:, 48:] == 255).all()


def test_boxes_below_the_threshold_are_not_painted(opened):
    options = boxes((0, 0, 32, 64, 0.9, 1), (32, 0, 64, 64, 0.6, 0), threshold=0.7)
    assert set(areas(opened(**options).detect(grey(255)))) == {"background", "dent"}
    dark = opened(**options).detect(grey(51))  # the scores are a fifth
    assert (dark.is_anomalous, dark.score, areas(dark)) == (False, 0.18, {"background": 1.0})


@pytest.mark.parametrize("kind", ["rows", "anchors"])
@pytest.mark.parametrize(
    ("threshold", "anomalous", "confidence", "painted"),
    [
        (None, True, 0.9, {"dent": 0.5}),
        (0.61, True, 0.9, {"dent": 0.5}),
        (0.60004, True, 0.9, {"dent": 0.5, "scratch": 0.25}),  # 4 decimals count
        (0.0001, True, 0.9, {"dent": 0.5, "scratch": 0.25}),
        (0.9, True, 0.9, {"dent": 0.5}),
        (0.9001, False, 0.1, {}),
        (1.0, False, 0.1, {}),
    ],
)
def test_boxes_follow_a_threshold_that_comes_with_the_image(opened, kind, threshold, anomalous, confidence, painted):
    found = ((0, 0, 32, 64, 0.9, 1), (32, 0, 64, 32, 0.6, 0), (0, 0, 64, 64, 1, 2))
    pipeline = opened(**boxes(*found, kind=kind, threshold=0.7))
    detection = pipeline.detect(grey(255), threshold=threshold)
    assert (detection.is_anomalous, detection.confidence, detection.score) == (anomalous, confidence, 0.9)
    assert detection.threshold == (0.7 if threshold is None else round(threshold, 4))
    assert areas(detection) == {"background": 1 - sum(painted.values()), **painted}
    assert (detection.mask[:, :48] == (GREEN if "dent" in painted else WHITE)).all()
    is_scratch = (detection.mask != WHITE).any(axis=2) & (detection.mask != GREEN).any(axis=2)
    assert is_scratch[:32, 48:].all() == is_scratch.any() == ("scratch" in painted)
    assert areas(pipeline.detect(grey(255))) == {"background": 0.5, "dent": 0.5}  # of that image only


def test_a_classification_by_boxes_gives_a_verdict_alone(opened):
    options = boxes((0, 0, 32, 64, 0.9, 1), (0, 0, 64, 64, 1, 2), task="classification")
    detection = opened(**options).detect(grey(255))
    assert (detection.is_anomalous, detection.score, detection.mask) == (True, 0.9, None)


def test_a_box_in_the_region_of_interest_is_painted_in_the_image(opened):
    detection = opened(**boxes((16, 16, 48, 48, 0.9, 1), region_of_interest=REGION)).detect(grey(255))
    assert painted_box(detection) == (30, 18, 50, 33)  # the middle of 40 x 30 at 20, 10; 17.5 and 32.5 rounded up


# --- what cannot be answered


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_no_verdict_and_the_next_image_is_answered(opened, value):
    pipeline = opened(task="classification", model=constant_score_model(value))
    for _ in range(10):
        with pytest.raises(AnswerNotFinite, match='The model\'s output "score" for this image is not a finite number'):
            pipeline.detect(grey(1))
    assert pipeline.detect(grey(0)).score == 0.0


@pytest.mark.parametrize("make", [np.zeros, lambda shape: np.full(shape, 255), lambda shape: None])
def test_dull_and_noisy_images_get_finite_answers(opened, make):
    shape = (HEIGHT, WIDTH, 3)
    pixels = make(shape)
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, shape)
    for options in ({}, {"task": "classification"}):
        detection = opened(**options).detect(pixels.astype(np.uint8))
        assert 0 <= detection.score <= 1
        assert 0 <= detection.confidence <= 1


def test_a_package_that_does_not_fit_is_refused_when_it_is_opened_not_at_the_first_image(opened):
    with pytest.raises(ModelDoesNotFit):
        opened(with_preprocessing(tensor="pixels"))


def test_the_files_are_verified_before_the_runtime_sees_them(tmp_path):
    folder = make_package(tmp_path / "package")
    (folder / "model.onnx").write_bytes(b"another model")
    with pytest.raises(BadPackageFile, match=r"model\.onnx"):
        Pipeline(read_package(folder), BackendSettings())


# --- many calls


def test_calls_at_once_get_their_own_answers_and_masks(opened):
    pipeline = opened()
    wrong = []

    def ask(seed):
        for index in range(20):
            side = 1 + (seed * 20 + index) % 30
            detection = pipeline.detect(dark_square(left=seed, top=seed, side=side))
            expected = side * side / (WIDTH * HEIGHT)
            painted = (detection.mask == GREEN).all(axis=2).sum() / (WIDTH * HEIGHT)
            if not areas(detection)["anomaly"] == painted == expected:
                wrong.append(side)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_calls_at_once_are_each_judged_by_their_own_threshold(opened):
    pipeline = opened(**boxes((0, 0, 32, 64, 0.9, 1), (32, 0, 64, 64, 0.6, 0)))
    wrong = []

    def ask(threshold, labels):
        for _ in range(20):
            detection = pipeline.detect(grey(255), threshold=threshold)
            if (detection.threshold, set(areas(detection))) != (threshold, {"background", *labels}):
                wrong.append(threshold)

    asked = [(0.5, ["dent", "scratch"]), (0.7, ["dent"]), (0.95, [])]
    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_same_image_gets_the_same_answer(opened):
    pixels = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    answers = [opened().detect(pixels) for _ in range(2)]
    pipeline = opened()
    answers += [pipeline.detect(pixels) for _ in range(20)]
    assert len({(answer.score, answer.regions, answer.mask.tobytes()) for answer in answers}) == 1


def test_people_are_told_runtime_and_device(opened):
    assert str(opened().runs_on).startswith("ONNX Runtime ")
    assert str(opened().runs_on).endswith(" on CPU")
