"""Pixels to tensor, against a reference that says it the long way."""

import numpy as np
import pytest
from PIL import Image

from agent.images.preprocess import preprocess, tensor_shape
from agent.images.resize import RESAMPLING
from agent.images.sample import sample
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


# --- keeping proportions


def image_of(tensor):
    """uint8 (height, width, 3) of a uint8 NHWC tensor."""
    return tensor[0]


def letterbox(**fields):
    return agent(dtype="uint8", layout="NHWC", resize="letterbox", **fields)


def cropped(**fields):
    return agent(dtype="uint8", layout="NHWC", resize="crop", **fields)


def resized(pixels, width, height):
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def test_letterbox_keeps_proportions_and_fills_the_rest_with_padding(pixels):
    """90 x 70 in 32 x 24: height decides, 31 x 24; of the one column beside it none is at the left."""
    tensor = image_of(preprocess(pixels, letterbox()))
    np.testing.assert_array_equal(tensor[:, :31], resized(pixels, 31, 24))
    assert (tensor[:, 31:] == 114).all()


@pytest.mark.parametrize(
    ("size", "spot"),
    [  # width and height of the tensor; left, top, width and height of the image in it
        ((90, 100), (0, 15, 90, 70)),
        ((90, 73), (0, 1, 90, 70)),  # three rows over: one above, two below
        ((97, 70), (3, 0, 90, 70)),
        ((45, 60), (0, 12, 45, 35)),  # 25 rows over
        ((200, 140), (10, 0, 180, 140)),  # small images are enlarged
    ],
)
@pytest.mark.parametrize("padding", [0, 114, 255])
def test_letterbox_puts_the_image_in_the_middle_and_what_is_odd_at_the_right_and_below(pixels, size, spot, padding):
    left, top, width, height = spot
    expected = np.full((size[1], size[0], 3), padding, np.uint8)
    expected[top : top + height, left : left + width] = resized(pixels, width, height)
    tensor = preprocess(pixels, letterbox(width=size[0], height=size[1], padding=padding))
    np.testing.assert_array_equal(image_of(tensor), expected)


def test_padding_is_normalised_like_any_pixel(pixels):
    tensor = preprocess(pixels, agent(resize="letterbox", **IMAGENET))
    for channel in range(3):
        expected = (114 / 255 - IMAGENET["mean"][channel]) / IMAGENET["std"][channel]
        assert tensor[0, channel, 0, 31] == pytest.approx(expected, abs=1e-5)


def test_a_sliver_of_an_image_is_at_least_a_pixel_high():
    tensor = image_of(preprocess(np.zeros((64, 4096, 3), np.uint8), letterbox(width=16, height=16)))
    assert (tensor == 0).all(axis=(1, 2)).sum() == 1


@pytest.mark.parametrize(
    ("fields", "size", "corner"),
    [  # of the tensor; what the image is resized to; the crop's left and top in it
        ({"width": 24, "height": 24, "shorter_side": 32}, (41, 32), (8, 4)),  # 41.14 is rounded down, 8.5 to even
        ({"width": 24, "height": 24, "shorter_side": 35}, (45, 35), (10, 6)),  # 10.5 and 5.5, to even
        ({"width": 24, "height": 24}, (30, 24), (3, 0)),
        ({"width": 60, "height": 24}, (60, 46), (0, 11)),  # 46.67 rounded down
        ({"width": 20, "height": 50}, (64, 50), (22, 0)),
        ({"width": 70, "height": 70}, (90, 70), (10, 0)),  # only cut
        ({"width": 100, "height": 100}, (128, 100), (14, 0)),
    ],
)
def test_crop_makes_the_shorter_side_and_takes_the_middle(pixels, fields, size, corner):
    tensor = image_of(preprocess(pixels, cropped(**fields)))
    left, top = corner
    expected = resized(pixels, *size)[top : top + fields["height"], left : left + fields["width"]]
    np.testing.assert_array_equal(tensor, expected)


def test_of_an_upright_image_the_width_is_the_shorter_side(pixels):
    upright = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    tensor = image_of(preprocess(upright, cropped(width=24, height=24, shorter_side=32)))
    np.testing.assert_array_equal(tensor, resized(upright, 32, 41)[8:32, 4:28])


@pytest.mark.parametrize("make", [letterbox, cropped])
def test_only_the_region_of_interest_is_fitted(pixels, make):
    region = Rectangle(x=7, y=5, width=60, height=40)
    cut = np.ascontiguousarray(pixels[5:45, 7:67])
    np.testing.assert_array_equal(preprocess(pixels, make(region_of_interest=region)), preprocess(cut, make()))


# --- without smoothing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("layout", ["stretch", "letterbox", "crop"])
def test_without_antialias_pixels_are_sampled_however_they_are_fitted(pixels, interpolation, layout):
    wanted = agent(
        dtype="uint8",
        layout="NHWC",
        interpolation=interpolation,
        antialias=False,
        resize=layout,
        width=18,
        height=14,
    )  # a fifth of the image: it fits whichever way
    np.testing.assert_array_equal(image_of(preprocess(pixels, wanted)), sample(pixels, 18, 14, interpolation))


def test_without_antialias_fine_stripes_do_not_become_grey():
    stripes = np.zeros((81, 81, 3), np.uint8)
    stripes[:, ::2] = 255
    small = preprocess(stripes, agent(dtype="uint8", antialias=False, width=27, height=27))
    assert set(np.unique(small)) == {0, 255}
