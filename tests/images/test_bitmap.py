"""What a client says of its image: packed or padded rows, 64 to 4096 pixels a side, nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput, ImageSizeOutOfRange, WrongByteCount
from agent.images.bitmap import MAX_BYTES, BitmapLayout


@pytest.mark.parametrize(
    ("width", "height", "size", "row_bytes"),
    [
        (500, 375, 562_500, 1500),
        (501, 375, 563_625, 1503),  # packed
        (501, 375, 564_000, 1504),  # rows padded to 4 bytes, as GStreamer sends them
        (64, 64, 12_288, 192),
        (65, 64, 64 * 196, 196),
        (66, 64, 64 * 200, 200),
        (67, 64, 64 * 204, 204),
        (4096, 4096, MAX_BYTES, 12_288),
    ],
)
def test_packed_and_padded_rows_are_told_apart_by_the_byte_count(width, height, size, row_bytes):
    layout = BitmapLayout.of(width, height, size)
    assert (layout.row_bytes, layout.size, layout.packed_size) == (row_bytes, size, width * height * 3)


@pytest.mark.parametrize("size", [0, 1, 563_624, 563_626, 563_999, 564_001, 2 * 563_625, -563_625, 2**64])
def test_another_byte_count_is_refused_naming_both_sizes(size):
    with pytest.raises(WrongByteCount) as refusal:
        BitmapLayout.of(501, 375, size)
    assert str(refusal.value).startswith(
        "A 501 x 375 RGB image has 563625 bytes, or 564000 with rows padded to a multiple of 4 bytes; "
        f"the request says or holds {size}."
    )


def test_where_padding_changes_nothing_one_size_is_named():
    with pytest.raises(WrongByteCount) as refusal:
        BitmapLayout.of(64, 64, 5)
    assert str(refusal.value) == "A 64 x 64 RGB image has 12288 bytes; the request says or holds 5."


@pytest.mark.parametrize(("channels", "hint"), [(4, "look like 4 channels"), (1, "looks like one channel")])
def test_another_number_of_channels_gets_a_hint(channels, hint):
    with pytest.raises(WrongByteCount, match=f"{hint}: convert to RGB first"):
        BitmapLayout.of(100, 80, 100 * 80 * channels)


@pytest.mark.parametrize("side", [63, 4097, 0, -1, -64, 2**31 - 1, -(2**31), 2**63])
@pytest.mark.parametrize("other", [64, 4096])
def test_a_side_out_of_range_is_refused_before_the_byte_count(side, other):
    for width, height in ((side, other), (other, side)):
        with pytest.raises(ImageSizeOutOfRange) as refusal:
            BitmapLayout.of(width, height, width * height * 3)
        assert str(refusal.value) == f"The image is {width} x {height}; 64 to 4096 pixels a side can be inspected."


@given(st.integers(-(2**31), 2**31 - 1) | st.integers(60, 5000), st.integers(60, 5000), st.integers(-1, 2**64))
def test_whatever_a_client_says_is_a_layout_that_holds_the_image_or_is_refused(width, height, size):
    for said in (size, width * height * 3, (width * 3 + 3) // 4 * 4 * height):
        try:
            layout = BitmapLayout.of(width, height, said)
        except BadInput:
            continue
        assert layout.size == said <= MAX_BYTES
        assert layout.row_bytes >= width * 3


def test_packed_pixels_are_a_view():
    pixels = np.arange(64 * 70 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 70, 3)
    buffer = bytearray(pixels.tobytes())
    read = BitmapLayout.of(70, 64, len(buffer)).pixels(memoryview(buffer))
    np.testing.assert_array_equal(read, pixels)
    assert np.shares_memory(read, np.frombuffer(buffer, np.uint8))


def test_padding_between_rows_is_left_out():
    pixels = np.random.default_rng(1).integers(0, 256, (64, 67, 3), np.uint8)
    rows = np.full((64, 204), 0xEE, np.uint8)
    rows[:, :201] = pixels.reshape(64, 201)
    read = BitmapLayout.of(67, 64, rows.size).pixels(memoryview(rows.tobytes()))
    np.testing.assert_array_equal(read, pixels)
    assert read.flags.c_contiguous


def test_bytes_behind_the_image_are_left_alone():
    buffer = bytes(12_288) + b"\xff" * 100  # a slot of shared memory is as large as the largest image
    assert not BitmapLayout.of(64, 64, 12_288).pixels(memoryview(buffer)).any()
