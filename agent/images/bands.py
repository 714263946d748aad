"""Work on an image in bands of rows, on several threads at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

_bands = ThreadPoolExecutor(thread_name_prefix="band")


def in_bands(make_band: Callable[[int, int], None], edges: Sequence[int]) -> None:
    """Calls `make_band(first, end)` for each pair of neighbours in `edges`; this thread makes the first itself.

    Raises what a band raises.
    """
    others = [_bands.submit(make_band, *band) for band in itertools.pairwise(edges[1:])]
    make_band(*edges[:2])
    for band in others:
        band.result()
