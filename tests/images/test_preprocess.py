"""Pixels to tensor, against a reference that says it the long way."""

import numpy as np
import pytest
from PIL import Image

from agent.images.preprocess import RESAMPLING, _band_edges, preprocess, resize, tensor_shape
from agent.packages.manifest import AgentPreprocessing, GraphPreprocessing, Rectangle

IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
REGION = Rectangle(x=7, y=5, width=60, height=40)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def agent(**fields):
    return AgentPreprocessing(**{"tensor": "x", "width": 32, "height": 24, **fields})


def reference(pixels, wanted):
    """Each channel for itself, in float64."""
    region = wanted.region_of_interest
    if region:
        pixels = pixels[region.y : region.y + region.height, region.x : region.x + region.width]
    channels = []
    for index in range(3):
        channel = Image.fromarray(np.ascontiguousarray(pixels[..., index]))
        if channel.size != (wanted.width, wanted.height):
            channel = channel.resize((wanted.width, wanted.height), RESAMPLING[wanted.interpolation])
        channels.append(np.asarray(channel))
    if wanted.channels == "BGR":
        channels.reverse()
    tensor = np.stack(channels)  # 3, height, width
    if wanted.dtype != "uint8":
        tensor = np.stack(
            [
                (c.astype(np.float64) * wanted.scale - m) / s
                for c, m, s in zip(tensor, wanted.mean, wanted.std, strict=True)
            ]
        )
    if wanted.layout == "NHWC":
        tensor = tensor.transpose(1, 2, 0)
    return tensor[None].astype(wanted.dtype)


TOLERANCE = {"uint8": 0, "float32": 2e-6, "float16": 4e-3}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("region", [None, REGION])
@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "uint8"},
        {"dtype": "float32"},
        {"dtype": "float16"},
        {"dtype": "float32", **IMAGENET},
        {"dtype": "float16", **IMAGENET},
        {"dtype": "float32", "scale": 1.0, "mean": [10.0, 20.0, 30.0], "std": [0.5, 2.0, 4.0]},
        {"dtype": "float32", **IMAGENET, "width": 60, "height": 40},  # the region's own size: not resized
    ],
)
def test_the_tensor_is_the_references(pixels, layout, channels, region, fields):
    wanted = agent(layout=layout, channels=channels, region_of_interest=region, **fields)
    tensor = preprocess(pixels, wanted)
    assert tensor.dtype == wanted.dtype
    assert tensor.shape == tensor_shape(wanted, 90, 70)
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(
        tensor.astype(np.float64),
        reference(pixels, wanted).astype(np.float64),
        rtol=0,
        atol=TOLERANCE[wanted.dtype] * max(1 / value for value in wanted.std),
    )


@pytest.mark.parametrize("interpolation", list(RESAMPLING))
@pytest.mark.parametrize("size", [(32, 24), (180, 140)])
def test_each_interpolation_is_the_references(pixels, interpolation, size):
    wanted = agent(dtype="uint8", interpolation=interpolation, width=size[0], height=size[1])
    np.testing.assert_array_equal(preprocess(pixels, wanted), reference(pixels, wanted))


def test_area_interpolation_is_the_mean_of_the_source_pixels(pixels):
    small = preprocess(pixels, agent(dtype="uint8", layout="NHWC", interpolation="area", width=9, height=7))[0]
    means = pixels.reshape(7, 10, 9, 10, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1  # Pillow rounds along the rows and again along the columns


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "lanczos"])
def test_shrinking_smooths_so_that_fine_stripes_become_grey(interpolation):
    stripes = np.zeros((80, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    small = preprocess(stripes, agent(dtype="uint8", interpolation=interpolation, width=8, height=8))
    assert np.abs(small.astype(int) - 127).max() < 16


def test_the_image_is_squashed_not_cropped():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    tensor = preprocess(pixels, agent(dtype="uint8", layout="NHWC", interpolation="area", width=10, height=10))
    assert (tensor[0, :, :5] == 0).all()
    assert (tensor[0, :, 5:] == 255).all()


def test_a_graph_that_takes_the_image_gets_a_view(pixels):
    tensor = preprocess(pixels, GraphPreprocessing(tensor="x"))
    assert tensor.shape == tensor_shape(GraphPreprocessing(tensor="x"), 90, 70) == (1, 70, 90, 3)
    assert np.shares_memory(tensor, pixels)
    np.testing.assert_array_equal(tensor[0], pixels)


def test_a_graph_that_takes_a_region_gets_it_contiguous(pixels):
    wanted = GraphPreprocessing(tensor="x", region_of_interest=REGION)
    tensor = preprocess(pixels, wanted)
    assert tensor.shape == tensor_shape(wanted, 90, 70) == (1, 40, 60, 3)
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor[0], pixels[5:45, 7:67])


def test_uint8_pixels_of_the_right_size_are_a_view_too(pixels):
    tensor = preprocess(pixels, agent(dtype="uint8", layout="NHWC", width=90, height=70))
    assert np.shares_memory(tensor, pixels)


def test_the_image_is_not_changed(pixels):
    before = pixels.copy()
    preprocess(pixels, agent(**IMAGENET, width=90, height=70))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("resampling", RESAMPLING.values())
@pytest.mark.parametrize(("width", "height"), [(256, 256), (1, 1), (640, 480), (100, 2500)])
@pytest.mark.parametrize("rows", [1280, 1201, 2600])  # the last is taller than wide
def test_bands_on_several_threads_give_the_pixels_of_one_go(
    rows: int, width: int, height: int, resampling: Image.Resampling
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (rows, 1999, 3), dtype=np.uint8)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), resampling))
    for threads in (2, 3):
        np.testing.assert_array_equal(resize(pixels, width, height, resampling, threads), whole)


def test_bands_share_the_rows_where_the_sizes_allow() -> None:
    assert _band_edges(3000, 256, 2) == [0, 128, 256]
    assert _band_edges(1201, 160, 2) == [0, 160]  # no row of the one lies on a row of the other
    assert _band_edges(960, 256, 4) == [0, 64, 128, 192, 256]
