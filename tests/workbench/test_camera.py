"""Which image size a package gets."""

import dataclasses

import pytest

from agent.packages.manifest import AgentPreprocessing, Decision, GraphPreprocessing, ImageSize, Outputs, Rectangle
from agent.workbench.errors import SettingOutOfRange
from agent.workbench.packaging.camera import camera_image
from agent.workbench.packaging.draft import Draft

BARE = Draft("classification", AgentPreprocessing("x", 32, 224), Outputs(score="s"), Decision(0.5), "a test", {})


def test_what_was_asked_for_comes_first():
    told = dataclasses.replace(BARE, image=ImageSize(200, 100))
    assert camera_image(told, [(300, 300)], "640x480") == ImageSize(640, 480)
    assert camera_image(told, [(300, 300)], "640 x480".replace(" ", ""), any_size=True) == ImageSize(640, 480, True)


def test_then_what_the_source_says():
    assert camera_image(dataclasses.replace(BARE, image=ImageSize(200, 100)), [(300, 300)]) == ImageSize(200, 100)


def test_then_the_usual_size_of_the_images_given():
    assert camera_image(BARE, [(300, 200), (64, 64), (300, 200)]) == ImageSize(300, 200)


def test_a_model_s_own_size_is_none_of_the_camera_s_so_all_are_answered():
    assert camera_image(BARE, []) == ImageSize(64, 224, any_size=True)


def test_where_the_graph_takes_the_image_itself_the_size_has_to_be_told():
    graph = dataclasses.replace(BARE, preprocessing=GraphPreprocessing("x"))
    with pytest.raises(SettingOutOfRange, match="--image-size is not given"):
        camera_image(graph, [])


@pytest.mark.parametrize("text", ["640", "640*480", "63x64", "64x4097", "x", "-64x64"])
def test_a_size_outside_the_contract_is_refused(text):
    with pytest.raises(SettingOutOfRange, match="64 to 4096 pixels a side"):
        camera_image(BARE, [], text)


def test_a_part_of_the_image_is_not_moved_to_another_size():
    inside = AgentPreprocessing("x", 32, 224, region_of_interest=Rectangle(10, 10, 80, 80))
    told = dataclasses.replace(BARE, image=ImageSize(200, 100), preprocessing=inside)
    assert camera_image(told, [], "200x100") == ImageSize(200, 100)
    with pytest.raises(SettingOutOfRange, match="left out: the source inspects or ignores a part of images of 200x100"):
        camera_image(told, [], "640x480")
