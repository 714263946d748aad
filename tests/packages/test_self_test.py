"""The self-test: the model answers the package's own images as expected, or it does not serve."""

import math

import numpy as np
import pytest

from agent.backends.base import BackendSettings
from agent.errors import SelfTestFailed
from agent.packages.manifest import SelfTestImage
from agent.packages.package import read_package
from agent.packages.self_test import SelfTestAnswer, compare, run_self_test
from agent.pipeline import Pipeline
from tests.support.packages import add_file, changed, grey, make_package, rewrite_manifest

TEST = SelfTestImage(
    path="bad.rgb", width=64, height=64, score=0.8, is_anomalous=True, areas={"background": 0.9, "dent": 0.1}
)
AS_EXPECTED = {"score": 0.8, "is_anomalous": True, "areas": {"background": 0.9, "dent": 0.1}}


def answer(**fields):
    return SelfTestAnswer(**{**AS_EXPECTED, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"score": 0.8049},
        {"score": 0.7951},
        {"areas": {"background": 0.904, "dent": 0.096}},
        {"areas": {"background": 0.9, "dent": 0.1, "scratch": 1.0}},  # the package says nothing about scratches
    ],
)
def test_an_answer_within_the_tolerance_passes(fields):
    compare(TEST, answer(**fields), tolerance=0.005)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"score": 0.8061}, "expected a score within 0.005 of 0.8, got 0.8061."),
        ({"score": 0.7}, "expected a score within 0.005 of 0.8, got 0.7."),
        ({"score": math.nan}, "expected a score within 0.005 of 0.8, got nan."),
        ({"is_anomalous": False}, "expected the verdict anomalous, got normal."),
        ({"areas": {"background": 1.0}}, "expected an area of 'background' within 0.005 of 0.9, got 1.0."),
        ({"areas": {"background": 0.9}}, "expected an area of 'dent' within 0.005 of 0.1, got 0.0."),
        ({"areas": {"background": 0.9, "dent": math.nan}}, "expected an area of 'dent' within 0.005 of 0.1, got nan."),
    ],
)
def test_an_answer_beyond_the_tolerance_fails_with_image_expectation_and_answer(fields, expected):
    with pytest.raises(SelfTestFailed) as refusal:
        compare(TEST, answer(**fields), tolerance=0.005)
    assert str(refusal.value).startswith(f'Self-test image "bad.rgb": {expected}')


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_the_tolerance_is_that_of_the_precision_and_wide_where_the_package_says_nothing(tmp_path, precision, passes):
    package = read_package(make_package(tmp_path / "package", task="classification"))
    assert package.manifest.self_test[0].tolerance == {"fp32": 0.005, "fp16": 0.05}

    def slightly_off(pixels):
        return SelfTestAnswer(0.04, False, {})

    if passes:
        assert len(run_self_test(package, precision, slightly_off)) == 1
    else:
        with pytest.raises(SelfTestFailed):
            run_self_test(package, precision, slightly_off)


def two_image_package(folder, **bad_fields):
    """A package of the darkness model with a good image and one with a dark square of 32 x 32 pixels."""
    make_package(folder)
    pixels = grey(255)
    pixels[:32, :32] = 51  # darkness 0.8
    file = add_file(folder, "self-test/bad.rgb", pixels.tobytes())
    manifest = read_package(folder).manifest
    bad = changed(
        manifest.self_test[0],
        path="self-test/bad.rgb",
        **{"score": 0.8, "is_anomalous": True, "areas": {"anomaly": 32 * 32 / (96 * 64)}, **bad_fields},
    )
    rewrite_manifest(folder, changed(manifest, files=[*manifest.files, file], self_test=[*manifest.self_test, bad]))
    return folder


def test_every_image_is_answered_by_the_model_itself(tmp_path):
    pipeline = Pipeline(read_package(two_image_package(tmp_path / "package")), BackendSettings())
    answers = pipeline.self_test()
    assert [(test.path, answer.score, answer.is_anomalous) for test, answer in answers] == [
        ("self-test/good.rgb", 0.0, False),
        ("self-test/bad.rgb", 0.8, True),
    ]
    assert answers[1][1].areas["anomaly"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("wrong", [{"score": 0.7}, {"is_anomalous": False}, {"areas": {"anomaly": 0.2}}])
def test_one_wrong_expectation_among_right_ones_fails(tmp_path, wrong):
    pipeline = Pipeline(read_package(two_image_package(tmp_path / "package", **wrong)), BackendSettings())
    with pytest.raises(SelfTestFailed, match=r'Self-test image "self-test/bad\.rgb"'):
        pipeline.self_test()


def test_the_images_reach_the_model_as_they_lie_in_the_package(tmp_path):
    package = read_package(two_image_package(tmp_path / "package"))
    seen = []
    expected = iter([SelfTestAnswer(0.0, False, {"background": 1.0}), SelfTestAnswer(0.8, True, {"anomaly": 1 / 6})])

    def note(pixels):
        seen.append(pixels.copy())
        return next(expected)

    run_self_test(package, "fp32", note)
    np.testing.assert_array_equal(seen[0], grey(255))
    assert seen[1].shape == (64, 96, 3)
    assert (seen[1] == 51).sum() == 32 * 32 * 3
