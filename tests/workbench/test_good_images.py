"""Which images a source names."""

import json

import numpy as np
import pytest
from PIL import Image

from agent.workbench.dataset.good_images import PixelsOf, good_images, name_of
from agent.workbench.errors import (
    BadManifestLine,
    ImagesDifferInSize,
    ImageSizeNotAllowed,
    NoImagesFound,
    UnreadableImage,
)


def save(path, size=(80, 64), level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 50, 20)).save(path)
    return path


def names(images):
    return [image.path.name for image in images]


def entry(reference, class_name="normal", key="anomaly-label"):
    metadata = {"class-name": class_name, "type": "groundtruth/image-classification", "human-annotated": "yes"}
    return json.dumps({"source-ref": reference, key: 0, f"{key}-metadata": metadata})


def manifest(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_folder_gives_its_images_and_nothing_else(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.bmp", "d.tiff"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    save(tmp_path / "deeper" / "e.png")
    assert names(good_images(str(tmp_path))) == ["a.jpg", "b.PNG", "c.bmp", "d.tiff"]


def test_a_folder_with_normal_in_it_gives_those(tmp_path):
    save(tmp_path / "normal" / "good.png")
    save(tmp_path / "anomaly" / "bad.png")
    save(tmp_path / "overview.png")
    assert names(good_images(str(tmp_path))) == ["good.png"]


def test_a_glob_gives_the_images_it_matches(tmp_path):
    for name in ("normal-1.png", "normal-2.png", "anomaly-1.png"):
        save(tmp_path / "deep" / name)
    assert names(good_images(f"{tmp_path}/**/normal-*")) == ["normal-1.png", "normal-2.png"]


def test_a_manifest_gives_its_normal_entries_whatever_the_label_is_called(tmp_path):
    for name in "abcd":
        save(tmp_path / f"{name}.png")
    source = manifest(
        tmp_path / "train.manifest",
        entry("a.png"),
        entry("b.png", "anomaly"),
        entry("c.png", key="my-job"),
        "",
        entry("d.png", "Normal"),
    )
    assert names(good_images(source)) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    "reference", ["images/good.png", "s3://bucket/some/prefix/images/good.png", "/elsewhere/images/good.png"]
)
def test_references_are_found_below_the_root(tmp_path, reference):
    save(tmp_path / "data" / "images" / "good.png")
    source = manifest(tmp_path / "manifests" / "train.manifest", entry(reference))
    assert names(good_images(source, root=tmp_path / "data")) == ["good.png"]


def test_an_absolute_reference_needs_no_root(tmp_path):
    image = save(tmp_path / "data" / "good.png")
    source = manifest(tmp_path / "manifests" / "train.manifest", entry(str(image)))
    assert names(good_images(source)) == ["good.png"]


def test_a_reference_in_s3_without_a_root_says_what_to_give(tmp_path):
    source = manifest(tmp_path / "train.manifest", entry("s3://bucket/good.png"))
    with pytest.raises(BadManifestLine, match=r"line 1: 's3://bucket/good.png' is in S3. Give --root FOLDER"):
        good_images(source)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[1]", "no 'source-ref'"),
        ('{"source-ref": 5}', "no 'source-ref'"),
        (entry("gone.png"), "gone"),
    ],
)
def test_a_bad_line_of_a_manifest_is_named_by_its_number(tmp_path, line, why):
    save(tmp_path / "a.png")
    source = manifest(tmp_path / "train.manifest", entry("a.png"), line)
    with pytest.raises(BadManifestLine, match=rf"line 2.*{why}"):
        good_images(source)


def test_a_source_without_images_is_refused_with_what_would_do(tmp_path):
    for source in (str(tmp_path), str(tmp_path / "missing"), f"{tmp_path}/*.png"):
        with pytest.raises(NoImagesFound, match="Give a folder of images"):
            good_images(source)
    with pytest.raises(NoImagesFound, match="class-name 'normal'"):
        good_images(manifest(tmp_path / "train.manifest", entry("a.png", "anomaly")))


def test_images_of_another_size_are_named(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / name)
    save(tmp_path / "odd.png", size=(100, 64))
    with pytest.raises(ImagesDifferInSize, match=r"most are 80x64, but not odd.png \(100x64\)"):
        good_images(str(tmp_path))
    assert len(good_images(str(tmp_path), any_size=True)) == 3


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (4097, 64)])
def test_sizes_beyond_the_contract_are_refused(tmp_path, size):
    save(tmp_path / "a.png", size=size)
    with pytest.raises(ImageSizeNotAllowed, match="64 to 4096"):
        good_images(str(tmp_path))


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path):
    bomb = tmp_path / "bomb.bmp"
    Image.new("1", (64, 64)).save(bomb)
    header = bytearray(bomb.read_bytes())
    header[18:26] = (60_000).to_bytes(4, "little") * 2  # width and height in the BMP header
    bomb.write_bytes(header)
    with pytest.raises(UnreadableImage, match="far too large"):
        good_images(str(tmp_path))


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a not really")
    with pytest.raises(UnreadableImage, match=r"a\.png cannot be read as an image"):
        good_images(str(tmp_path))


def test_a_truncated_image_is_refused_when_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UnreadableImage, match=r"ends too early|damaged"):
        _ = good_images(str(tmp_path))[0].pixels


def test_sixteen_bits_per_sample_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((64, 80), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match="more than 8 bits"):
        _ = good_images(str(tmp_path))[0].pixels


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (80, 64), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
    pixels = good_images(str(tmp_path))[0].pixels
    assert pixels.shape == (64, 80, 3)
    assert (pixels == 255).all()


def test_pixels_stay_as_stored_whatever_exif_asks_for(tmp_path):
    picture = Image.new("RGB", (80, 64))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    picture.save(tmp_path / "a.jpg", exif=exif)
    image = good_images(str(tmp_path))[0]
    assert (image.width, image.height) == (80, 64)
    assert image.pixels.shape == (64, 80, 3)


def test_pixels_are_decoded_one_at_a_time_in_the_order_of_the_images(tmp_path):
    for level in (10, 20, 30):
        save(tmp_path / f"{level}.png", level=level)
    pixels = PixelsOf(good_images(str(tmp_path)))
    assert [image[0, 0, 0] for image in pixels] == [10, 20, 30]
    assert [image[0, 0, 0] for image in pixels[1:]] == [20, 30]


def test_a_model_is_named_for_its_source(tmp_path):
    save(tmp_path / "Front plate (v2)" / "normal" / "a.png")
    folder = tmp_path / "Front plate (v2)"
    assert name_of(str(folder)) == "Front-plate-v2"
    assert name_of(str(folder / "normal")) == "Front-plate-v2"
    assert name_of(f"{folder}/normal/*.png") == "Front-plate-v2"
    assert name_of(manifest(tmp_path / "washers.manifest", "")) == "washers"
