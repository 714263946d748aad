"""Which boxes hold a pixel that is not ignored."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.images.inspected import Inspected


@given(st.data())
def test_a_box_counts_if_one_of_its_pixels_does(data):
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    pixels = data.draw(arrays(bool, (height, width)))
    boxes = []
    for _ in range(data.draw(st.integers(0, 5))):
        left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
        top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
        boxes.append((left, top, right, bottom))
    expected = [bool(pixels[top:bottom, left:right].any()) for left, top, right, bottom in boxes]
    assert Inspected(pixels).any_in(np.array(boxes, np.intp).reshape(-1, 4)).tolist() == expected
