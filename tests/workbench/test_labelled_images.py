"""What is known of images: folders, file names and manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.workbench.dataset.ground_truth import read_lines
from agent.workbench.dataset.labelled_images import LabelledImage, labelled_images
from agent.workbench.dataset.mask_truth import labels_by_color, marked
from agent.workbench.errors import BadManifestLine, MaskDiffersInSize, NoImagesFound
from tests.support.checkout import ROOT

COOKIES = ROOT.parent / "shared" / "data" / "cookies"
WIDTH, HEIGHT = 80, 64
GREEN, BLUE = (35, 164, 54), (20, 20, 200)


def save(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (100, 50, 20)).save(path)
    return path


def save_mask(path: Path, mode: str = "L", paper: Any = 0, ink: Any = 255) -> Path:
    """Ink in the left quarter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new(mode, (WIDTH, HEIGHT), paper)
    mask.paste(ink, (0, 0, WIDTH // 4, HEIGHT))
    mask.save(path)
    return path


def entry(reference: str, class_name: str = "anomaly", key: str = "anomaly-label", **more: object) -> dict[str, Any]:
    metadata = {"class-name": class_name, "type": "groundtruth/image-classification", "human-annotated": "yes"}
    return {"source-ref": reference, key: 1, f"{key}-metadata": metadata, **more}


def masked(reference: str, *colors: tuple[str, str], key: str = "anomaly-mask-ref") -> dict[str, object]:
    color_map = {str(number): {"class-name": name, "hex-color": color} for number, (name, color) in enumerate(colors)}
    return {key: reference, f"{key}-metadata": {"internal-color-map": color_map, "type": SEGMENTATION}}


SEGMENTATION = "groundtruth/semantic-segmentation"


def manifest(folder: Path, *entries: dict[str, Any]) -> str:
    path = folder / "test.manifest"
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    return str(path)


def told(images: list[LabelledImage]) -> dict[str, bool | None]:
    return {image.path.name: image.is_anomalous for image in images}


@pytest.mark.parametrize(("good", "bad"), [("normal", "anomaly"), ("good", "bad"), ("OK", "NOK")])
def test_folders_tell_what_is_good_and_what_is_not(tmp_path: Path, good: str, bad: str) -> None:
    save(tmp_path / good / "1.png")
    save(tmp_path / bad / "2.png")
    save(tmp_path / "raw" / "3.png")
    assert told(labelled_images(str(tmp_path))) == {"1.png": False, "2.png": True}


@pytest.mark.parametrize("source", ["bottle", "bottle/test"])
def test_a_folder_for_each_kind_of_defect_names_it(tmp_path: Path, source: str) -> None:
    test = tmp_path / "bottle" / "test"
    for path in ("good/000.png", "broken/000.png", "broken/001.png", "dirt/000.png"):
        save(test / path)
    save(tmp_path / "bottle" / "train" / "good" / "000.png")
    save_mask(tmp_path / "bottle" / "ground_truth" / "broken" / "000_mask.png")
    images = labelled_images(str(tmp_path / source))
    assert [(image.path.relative_to(test).as_posix(), image.is_anomalous) for image in images] == [
        ("broken/000.png", True),
        ("broken/001.png", True),
        ("dirt/000.png", True),
        ("good/000.png", False),
    ]
    mask = images[0].mask
    assert mask is not None and mask.names == ("background", "broken")
    assert (mask.labels[:, : WIDTH // 4] == 1).all() and not mask.labels[:, WIDTH // 4 :].any()
    assert images[1].mask is None
    assert images[3].mask is not None and not images[3].mask.labels.any()


def test_masks_lie_beside_normal_and_anomaly(tmp_path: Path) -> None:
    save(tmp_path / "normal" / "1.png")
    save(tmp_path / "anomaly" / "2.jpg")
    save_mask(tmp_path / "masks" / "2.png")
    bad = labelled_images(str(tmp_path))[0]
    assert bad.mask is not None and bad.mask.names == ("background", "anomaly")
    assert bad.mask.labels.mean() == 0.25


@pytest.mark.parametrize(
    ("name", "is_anomalous"),
    [
        ("normal-1.png", False),
        ("good_7.jpg", False),
        ("anomaly.png", True),
        ("test-anomaly-1.png", True),
        ("Train-Normal-1.png", False),
        ("no-defect-1.png", None),
        ("abnormal-1.png", None),
        ("image-7.png", None),
    ],
)
def test_the_first_word_of_a_file_name_tells(tmp_path: Path, name: str, is_anomalous: bool | None) -> None:
    save(tmp_path / name)
    assert told(labelled_images(str(tmp_path))) == {name: is_anomalous}
    assert told(labelled_images(str(tmp_path / name))) == {name: is_anomalous}


def test_of_a_glob_the_folders_tell_where_the_names_do_not(tmp_path: Path) -> None:
    save(tmp_path / "bad" / "1.png")
    save(tmp_path / "good" / "2.png")
    save(tmp_path / "bad" / "good-3.png")
    assert told(labelled_images(f"{tmp_path}/*/*")) == {"1.png": True, "2.png": False, "good-3.png": False}


def test_a_folder_makes_the_entries_of_a_manifest(tmp_path: Path) -> None:
    bad, unknown = save(tmp_path / "bad-1.png"), save(tmp_path / "photo.png")
    written = manifest(tmp_path, *(dict(image.entry) for image in labelled_images(str(tmp_path))))
    assert told(labelled_images(written)) == {bad.name: True, unknown.name: None}


def test_a_manifest_counts_exact_class_names_of_any_label_key(tmp_path: Path) -> None:
    for name in "abcde":
        save(tmp_path / f"{name}.png")
    source = manifest(
        tmp_path,
        entry("e.png", key="my-job"),
        entry("a.png", "normal"),
        entry("b.png", "Anomaly"),
        {"source-ref": "c.png"},
        {key: value for key, value in entry("d.png").items() if key != "anomaly-label"},
    )
    images = labelled_images(source)
    assert told(images) == {"a.png": False, "b.png": None, "c.png": None, "d.png": None, "e.png": True}
    assert images[4].entry == entry("e.png", key="my-job")


def test_what_an_evaluation_added_is_no_truth(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    evaluated = {"source-ref": "a.png", **entry("a.png", "anomaly", key="anomaly-label-detected")}
    assert told(labelled_images(manifest(tmp_path, evaluated))) == {"a.png": None}


def test_labels_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    source = manifest(tmp_path, {**entry("a.png"), **entry("a.png", "normal", key="second")})
    with pytest.raises(BadManifestLine, match=r"line 1: one label says 'normal' and another 'anomaly'"):
        labelled_images(source)


@pytest.mark.parametrize("reference", ["masks/a.png", "s3://bucket/set/masks/a.png"])
def test_a_mask_is_decoded_by_its_colour_map(tmp_path: Path, reference: str) -> None:
    save(tmp_path / "a.png")
    save_mask(tmp_path / "masks" / "a.png", "RGB", (255, 255, 255), BLUE)
    colors = [("BACKGROUND", "#ffffff"), ("scratch", "#23A436"), ("dent", "#1414c8")]
    image = labelled_images(manifest(tmp_path, entry("a.png", **masked(reference, *colors))), tmp_path)[0]
    assert image.mask is not None and image.mask.names == ("background", "scratch", "dent")
    assert (image.mask.labels[:, : WIDTH // 4] == 2).all() and not image.mask.labels[:, WIDTH // 4 :].any()


def test_a_mask_that_can_show_nothing_need_not_exist(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    source = manifest(tmp_path, entry("a.png", "normal", **masked("dummy.png", ("BACKGROUND", "#ffffff"))))
    mask = labelled_images(source)[0].mask
    assert mask is not None and not mask.labels.any()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (masked("gone.png", ("scratch", "#23A436")), "gone.png"),
        (masked("a.png", ("scratch", "green")), "hex-color 'green'"),
        (masked("a.png", ("", "#23A436")), "entry '0'"),
        (masked("a.png"), "no 'internal-color-map'"),
        ({**masked("a.png", ("scratch", "#23A436")), "anomaly-mask-ref": 5}, "names no mask"),
    ],
)
def test_a_bad_mask_label_is_refused_by_its_line(tmp_path: Path, keys: dict[str, Any], why: str) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(BadManifestLine, match=rf"line 1: .*{why}"):
        labelled_images(manifest(tmp_path, entry("a.png", **keys)))


def test_a_mask_of_another_size_is_refused_when_it_is_decoded(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "mask.png", size=(64, 64))
    image = labelled_images(manifest(tmp_path, entry("a.png", **masked("mask.png", ("scratch", "#23A436")))))[0]
    assert image.mask is not None
    with pytest.raises(MaskDiffersInSize, match=r"mask\.png is 64x64, but its image .*a\.png is 80x64"):
        _ = image.mask.labels


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    for source in (str(tmp_path), str(tmp_path / "missing"), f"{tmp_path}/*.png", manifest(tmp_path)):
        with pytest.raises(NoImagesFound, match="Give a folder of images"):
            labelled_images(source)


def rgba(*pixels: tuple[int, int, int, int]) -> np.ndarray:
    return np.array([pixels], np.uint8)


def test_transparent_pixels_are_background_and_edges_go_to_the_nearest_colour() -> None:
    pixels = rgba((*GREEN, 255), (*GREEN, 127), (*GREEN, 128), (200, 230, 205, 255), (90, 180, 100, 255), (0, 0, 0, 0))
    labels = labels_by_color(pixels, [("cracked", GREEN)], ["background", "cracked"])
    assert labels.tolist() == [[1, 0, 1, 0, 1, 0]]


def test_a_map_that_calls_white_an_anomaly_is_believed() -> None:
    labels = labels_by_color(
        rgba((255, 255, 255, 255), (0, 0, 0, 0)), [("foam", (255, 255, 255))], ["background", "foam"]
    )
    assert labels.tolist() == [[1, 0]]


def test_two_colours_of_one_name_are_one_label(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save_mask(tmp_path / "m.png", "RGBA", (*GREEN, 255), (*BLUE, 255))
    keys = masked("m.png", ("scratch", "#23A436"), ("scratch", "#1414C8"))
    mask = labelled_images(manifest(tmp_path, entry("a.png", **keys)))[0].mask
    assert mask is not None and mask.names == ("background", "scratch")
    assert (mask.labels == 1).all()


@pytest.mark.parametrize(
    ("mode", "paper", "ink"),
    [
        ("L", 0, 255),
        ("1", 0, 1),
        ("RGB", (0, 0, 0), (255, 255, 255)),
        ("RGB", (255, 255, 255), GREEN),
        ("RGB", (0, 0, 0), BLUE),
        ("RGBA", (0, 0, 0, 0), (*GREEN, 255)),
        ("RGBA", (*GREEN, 0), (*GREEN, 255)),
    ],
)
def test_a_mask_without_a_colour_map_marks_what_is_coloured_or_else_what_is_bright(
    tmp_path: Path, mode: str, paper: Any, ink: Any
) -> None:
    with Image.open(save_mask(tmp_path / "mask.png", mode, paper, ink)) as mask:
        found = marked(np.asarray(mask.convert("RGBA")))
    assert (found[:, : WIDTH // 4] == 1).all() and not found[:, WIDTH // 4 :].any()


@pytest.mark.real_data
@pytest.mark.skipif(not COOKIES.is_dir(), reason="the photographs (../shared/data/cookies) are not here")
class TestRealManifests:
    """As they were published: palette and RGBA masks, no background entry, s3:// references, a mask nobody stored."""

    @pytest.mark.parametrize("name", ["template", "train_class", "train_segmentation"])
    def test_classes(self, name: str) -> None:
        images = labelled_images(str(COOKIES / "manifests" / f"{name}.manifest"), COOKIES)
        assert [image.is_anomalous for image in images].count(True) == 32
        assert [image.is_anomalous for image in images].count(False) == 31
        assert all(image.is_anomalous == image.path.name.startswith("anomaly") for image in images)

    @pytest.mark.parametrize("number", [1, 4])  # a palette with a transparent index, and RGBA
    def test_masks(self, number: int) -> None:
        images = labelled_images(str(COOKIES / "manifests" / "train_segmentation.manifest"), COOKIES)
        mask = next(image.mask for image in images if image.path.stem == f"anomaly-{number}")
        assert mask is not None and mask.names == ("background", "cracked") and mask.file is not None
        with Image.open(mask.file) as file:
            drawn = np.asarray(file.convert("RGBA"))[..., 3] > 127
        assert drawn.any() and (mask.labels.astype(bool) == drawn).all()

    def test_references_in_s3_ask_for_a_root(self) -> None:
        with pytest.raises(BadManifestLine, match="Give --root"):
            labelled_images(str(COOKIES / "manifests" / "train_segmentation.manifest"))

    def test_entries_stand_as_they_are(self) -> None:
        source = COOKIES / "manifests" / "train_segmentation.manifest"
        lines = [line.entry for line in read_lines(source)]
        assert [image.entry for image in labelled_images(str(source), COOKIES)] == sorted(
            lines, key=lambda line: line["source-ref"]
        )
