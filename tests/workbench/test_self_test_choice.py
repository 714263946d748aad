"""Which images a package proves itself with."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from agent.images.detection import Detection
from agent.packages.manifest import Decision, GraphPreprocessing, ImageSize, Outputs, Reference, SelfTestImage
from agent.workbench.errors import BadSelfTest
from agent.workbench.packaging.draft import Draft
from agent.workbench.packaging.self_test_choice import MOST_LOOKED_AT, SelfTestImages

SIZE = ImageSize(96, 64)
DRAFT = Draft("classification", GraphPreprocessing("image"), Outputs(score="s"), Decision(0.5), "a test", {})


def darkness(pixels):
    """Score: how dark the first pixel is."""
    score = round(1 - float(pixels[0, 0, 0]) / 255, 4)
    return Detection(score >= 0.5, score, score, 0.5)


def save(folder, name, score, size=(96, 64)):
    """An image that `darkness` scores so."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (round(255 * (1 - score)),) * 3).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    """Good images score 0 to 0.3 and 0.48, anomalous ones 0.52 and 0.7 to 1."""
    for score in (0.0, 0.1, 0.2, 0.3, 0.48):
        save(tmp_path / "images" / "normal", f"{score}.png", score)
    for score in (0.52, 0.7, 0.8, 0.9, 1.0):
        save(tmp_path / "images" / "anomaly", f"{score}.png", score)
    return str(tmp_path / "images")


def names(evidence):
    return [name for name, _ in evidence.tests]


def test_usual_ones_and_the_hardest_that_are_clear_of_the_threshold_are_chosen(folder):
    evidence = SelfTestImages.of(folder, None, None).evidence(DRAFT, SIZE, darkness)
    assert names(evidence) == ["1-0.1", "2-0.3", "3-0.9", "4-0.7"]
    assert all(pixels.shape == (64, 96, 3) for _, pixels in evidence.tests)


def test_of_large_images_two_are_chosen(folder):
    large = ImageSize(96, 64, any_size=True)
    images = SelfTestImages.of(folder, None, None)
    assert len(images.evidence(DRAFT, large, darkness).tests) == 4
    assert len(images.evidence(DRAFT, ImageSize(4096, 3000, any_size=True), darkness).tests) == 2


def test_good_images_scores_are_the_reference(folder):
    quantiles = SelfTestImages.of(folder, None, None).evidence(DRAFT, SIZE, darkness).reference.score_quantiles
    assert quantiles["0"] == 0.0
    assert quantiles["0.5"] == pytest.approx(0.2, abs=0.01)
    assert quantiles["1"] == pytest.approx(0.48, abs=0.01)


def test_unlabelled_images_are_what_they_are_answered(tmp_path):
    for score in (0.1, 0.9):
        save(tmp_path / "images", f"{score}.png", score)
    evidence = SelfTestImages.of(str(tmp_path / "images"), None, None).evidence(DRAFT, SIZE, darkness)
    assert names(evidence) == ["1-0.1", "2-0.9"]
    assert evidence.reference.score_quantiles["1"] == pytest.approx(0.1, abs=0.01)


def test_images_that_are_answered_wrongly_prove_nothing_and_are_told_of(tmp_path):
    save(tmp_path / "images" / "normal", "dark.png", 0.9)
    save(tmp_path / "images" / "normal", "bright.png", 0.1)
    save(tmp_path / "images" / "anomaly", "pale.png", 0.2)
    images = SelfTestImages.of(str(tmp_path / "images"), None, None)
    assert names(images.evidence(DRAFT, SIZE, darkness)) == ["1-bright"]
    assert (
        "2 of 3 images are answered otherwise than they are labelled (pale.png, dark.png)"
        in images.warnings([], 0.5)[0]
    )


def test_where_all_are_answered_wrongly_the_clearest_are_taken(tmp_path):
    save(tmp_path / "images" / "normal", "a.png", 0.6)
    save(tmp_path / "images" / "normal", "b.png", 0.9)
    evidence = SelfTestImages.of(str(tmp_path / "images"), None, None).evidence(DRAFT, SIZE, darkness)
    assert names(evidence) == ["1-b", "2-a"]


def test_images_of_another_size_are_left_out_and_told_of(folder, tmp_path):
    save(tmp_path / "images" / "normal", "wide.png", 0.0, size=(100, 64))
    images = SelfTestImages.of(folder, None, None)
    assert "1-wide" not in names(images.evidence(DRAFT, SIZE, darkness))
    assert "1 of 11 images are not 96x64" in images.warnings([], 0.5)[0]
    assert images.sizes.count((100, 64)) == 1


def test_of_very_many_images_every_nth_is_looked_at(tmp_path):
    for number in range(MOST_LOOKED_AT + 10):
        save(tmp_path / "images", f"{number:04}.png", 0.1, size=(64, 64))
    looked_at = []

    def answer(pixels):
        looked_at.append(pixels)
        return darkness(pixels)

    SelfTestImages.of(str(tmp_path / "images"), None, None).evidence(DRAFT, ImageSize(64, 64), answer)
    assert len(looked_at) == (MOST_LOOKED_AT + 10) / 2


# --- prescribed, drawn, or those of the source


def test_prescribed_images_are_taken_whatever_they_are_answered(folder, tmp_path):
    save(tmp_path / "exactly", "middle one.png", 0.5)
    images = SelfTestImages.of(folder, str(tmp_path / "exactly"), None)
    assert names(images.evidence(DRAFT, SIZE, darkness)) == ["1-middle-one"]


def test_prescribed_images_that_cannot_be_it_are_refused(tmp_path):
    for number in range(9):
        save(tmp_path / "nine", f"{number}.png", 0.1)
    with pytest.raises(BadSelfTest, match="holds 9 images; a package has at most 8"):
        SelfTestImages.of(None, str(tmp_path / "nine"), None)
    save(tmp_path / "other", "wide.png", 0.1, size=(100, 64))
    with pytest.raises(BadSelfTest, match=r"wide\.png is 100x64, and the package takes 96x64"):
        SelfTestImages.of(None, str(tmp_path / "other"), None).evidence(DRAFT, SIZE, darkness)


def test_without_images_the_source_s_own_are_taken_else_drawn_ones():
    images = SelfTestImages.of(None, None, None)
    drawn = images.evidence(DRAFT, SIZE, darkness)
    assert names(drawn) == ["drawn-shades", "drawn-bars"]
    assert all(pixels.shape == (64, 96, 3) and pixels.dtype == np.uint8 for _, pixels in drawn.tests)
    assert "give real ones with --images" in images.warnings([], 0.5)[0]
    own = Draft(
        "classification", DRAFT.preprocessing, DRAFT.outputs, DRAFT.decision, "a test", {},
        tests=[("own", np.zeros((64, 96, 3), np.uint8))], reference=Reference({"0.5": 0.25}),
    )  # fmt: skip
    evidence = images.evidence(own, SIZE, darkness)
    assert (names(evidence), evidence.reference) == (["own"], own.reference)
    assert images.warnings([], 0.5) == []


def test_drawn_images_are_always_the_same():
    first, second = (SelfTestImages.of(None, None, None).evidence(DRAFT, SIZE, darkness) for _ in range(2))
    assert all((a == b).all() for (_, a), (_, b) in zip(first.tests, second.tests, strict=True))


def test_a_score_close_to_the_threshold_is_told_of():
    tests = [SelfTestImage(f"self-test/{score}.rgb", 96, 64, score, score >= 0.5) for score in (0.2, 0.46, 0.54, 0.9)]
    warnings = SelfTestImages.of(None, None, None).warnings(tests, 0.5)
    assert len(warnings) == 1
    assert warnings[0].startswith("self-test/0.46.rgb, self-test/0.54.rgb: the score is so close to the threshold")


def test_the_source_s_own_images_are_left_out_where_the_camera_s_are_of_another_size():
    own = dataclasses.replace(DRAFT, tests=[("own", np.zeros((64, 96, 3), np.uint8))])
    images = SelfTestImages.of(None, None, None)
    assert names(images.evidence(own, SIZE, darkness)) == ["own"]
    assert names(images.evidence(own, ImageSize(128, 96), darkness)) == ["drawn-shades", "drawn-bars"]
    assert "the source's own images are of another size" in images.warnings([], 0.5)[0]
