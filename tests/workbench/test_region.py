"""Regions and ignored pixels, from rectangles and from pictures."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from agent.backends.base import BackendSettings
from agent.packages.manifest import Decision, GraphPreprocessing, Identity, ImageSize, Outputs, Rectangle
from agent.pipeline import Pipeline
from agent.workbench.errors import BadRegion, UnreadableImage
from agent.workbench.packaging.draft import MODEL_FILE, Draft, background_and
from agent.workbench.packaging.region import with_region
from agent.workbench.packaging.writer import Evidence, write_package
from tests.support.packages import darkness_model, grey

SIZE = ImageSize(96, 64)


@pytest.fixture
def draft():
    """Calls dark anomalous: see tests.support.packages."""
    return Draft(
        task="segmentation",
        preprocessing=GraphPreprocessing(tensor="image"),
        outputs=Outputs(score="score", anomaly_map="map"),
        decision=Decision(threshold=0.5),
        source="a test",
        files={MODEL_FILE: darkness_model().SerializeToString()},
        labels=background_and("dark"),
    )


def picture(path, marked, size=(96, 64), mode="RGB"):
    """A picture that is black but for the rectangle `marked`: (left, top, right, bottom)."""
    drawn = Image.new(mode, size)
    drawn.paste("white", marked)
    drawn.save(path)
    return str(path)


def region_and_ignored(draft):
    return draft.preprocessing.region_of_interest, draft.ignored


def test_without_either_nothing_changes(draft):
    assert with_region(draft, SIZE, None, []) is draft


def test_a_rectangle_is_the_region_and_needs_no_mask(draft):
    region, ignored = region_and_ignored(with_region(draft, SIZE, "8, 4, 64, 48", []))
    assert (region, ignored) == (Rectangle(8, 4, 64, 48), None)


def test_a_picture_s_region_is_the_rectangle_around_what_is_marked_and_the_rest_of_it_is_ignored(draft, tmp_path):
    drawn = Image.new("L", (96, 64))
    drawn.paste(255, (10, 10, 20, 30))
    drawn.paste(128, (20, 20, 40, 30))
    drawn.save(tmp_path / "region.png")
    region, ignored = region_and_ignored(with_region(draft, SIZE, str(tmp_path / "region.png"), []))
    assert region == Rectangle(10, 10, 30, 20)
    expected = np.ones((64, 96), bool)
    expected[10:30, 10:20] = False
    expected[20:30, 20:40] = False
    assert (ignored == expected).all()


def test_several_places_are_ignored_together(draft, tmp_path):
    given = ["0,0,10,10", picture(tmp_path / "ignore.bmp", (50, 50, 60, 60))]
    region, ignored = region_and_ignored(with_region(draft, SIZE, None, given))
    assert region is None
    assert ignored.sum() == 200
    assert ignored[:10, :10].all()
    assert ignored[50:60, 50:60].all()


def test_what_is_transparent_is_not_marked(draft, tmp_path):
    drawn = Image.new("RGBA", (96, 64), (255, 255, 255, 0))
    drawn.paste((0, 255, 0, 255), (0, 0, 32, 64))
    drawn.save(tmp_path / "region.png")
    assert with_region(draft, SIZE, str(tmp_path / "region.png"), []).preprocessing.region_of_interest == Rectangle(
        0, 0, 32, 64
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("90,0,10,10", "inside an image of 96x64"),
        ("0,0,0,10", "inside an image of 96x64"),
        ("0,0,10", "nor a picture that is there"),
    ],
)
def test_a_place_outside_the_image_is_refused(draft, given, reason):
    with pytest.raises(BadRegion, match=reason):
        with_region(draft, SIZE, given, [])


def test_a_picture_that_cannot_be_it_is_refused(draft, tmp_path):
    with pytest.raises(BadRegion, match="as large as the image, 96x64"):
        with_region(draft, SIZE, picture(tmp_path / "small.png", (0, 0, 5, 5), size=(32, 32)), [])
    with pytest.raises(BadRegion, match="nothing in it is marked"):
        with_region(draft, SIZE, None, [picture(tmp_path / "black.png", (0, 0, 0, 0))])
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UnreadableImage):
        with_region(draft, SIZE, None, [str(tmp_path / "text.png")])


def test_nothing_left_to_inspect_is_refused(draft):
    with pytest.raises(BadRegion, match="nothing is left"):
        with_region(draft, SIZE, "8,8,16,16", ["0,0,96,64"])


def test_images_of_any_size_have_no_places(draft):
    with pytest.raises(BadRegion, match="--image-size"):
        with_region(draft, ImageSize(96, 64, any_size=True), "0,0,64,64", [])


def test_what_is_ignored_makes_neither_score_nor_mask_of_the_package(draft, tmp_path):
    ignoring = with_region(draft, SIZE, "8,8,64,48", [picture(tmp_path / "clamp.png", (8, 8, 30, 56))])
    assert "edge-agent tune" in ignoring.notes[-1]
    package = write_package(
        ignoring, Identity("dark", "1.0.0"), SIZE, lambda answer: Evidence([("white", grey(255))]), tmp_path / "package"
    )
    pipeline = Pipeline(package, BackendSettings())
    pixels = grey(255)
    pixels[:, :30] = 0  # the clamp, and what lies outside the region
    pixels[:8] = 0
    clean = pipeline.detect(pixels)
    assert (clean.is_anomalous, clean.score) == (False, 0.0)
    assert (clean.mask == 255).all()
    pixels[20:24, 40:44] = 0
    found = pipeline.detect(pixels)
    assert found.is_anomalous
    assert [(region.name, region.area) for region in found.regions][1] == ("dark", pytest.approx(16 / (96 * 64)))


def test_a_score_that_sees_everything_is_told_of(draft):
    alone = dataclasses.replace(draft, task="classification", outputs=Outputs(score="score"), labels=[])
    noted = with_region(alone, SIZE, None, ["0,0,10,10"])
    assert noted.outputs.score == "score"
    assert "left out of the mask alone" in noted.notes[-1]
