"""The floor: what remains when nobody serves.

Read the pixels, resize with Pillow, normalise, run; for segmentation resize the map too and paint the mask. Written as
one would write it for one camera, buffers kept ready, with the agent's own options of ONNX Runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.model import ANOMALY_MAP, INPUT, MEAN, PIXEL_THRESHOLD, SCORE, SIDE, STD
from benchmarks.serving.orders import MakeCall, Order, Verdict
from benchmarks.serving.segment import picture_in_segment

FACTOR = (1 / 255 / np.array(STD)).astype(np.float32)[:, None, None]
OFFSET = (-np.array(MEAN) / np.array(STD)).astype(np.float32)[:, None, None]
PROVIDER = "BENCHMARK_PROVIDER"
"""Variable of the environment: the execution provider of the bare loop, where it is not the CPU's."""
CPU = "CPUExecutionProvider"
PALETTE = np.array([[255, 255, 255], [35, 164, 54]], np.uint8)


@contextmanager
def bare_loop(order: Order) -> Iterator[MakeCall]:
    """One turn of the loop. Two of them at once share the session, as two calls in flight do in the agent."""
    session = open_session(order.address)
    shape = (order.height, order.width, 3)
    pixels, mask = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    with picture_in_segment(order.width, order.height) as path, path.open("rb", buffering=0) as segment:

        def turn() -> Verdict:
            os.preadv(segment.fileno(), [pixels], 0)
            return inspect_and_paint(session, pixels, mask) if order.paints_mask else inspect(session, pixels)

        yield turn


@cache
def open_session(model: str) -> onnxruntime.InferenceSession:
    """The graph in that file: threads = cores, no spinning."""
    provider = os.environ.get(PROVIDER, CPU)
    if provider != CPU:
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:  # a missing one is passed over without a word
        sys.exit(f"The bare loop cannot run by {provider}.")
    return session


def inspect(session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8]) -> Verdict:
    """Classification of `pixels`, (height, width, 3)."""
    (score,) = session.run([SCORE], {INPUT: _tensor(pixels)})
    return Verdict(float(score))


def inspect_and_paint(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> Verdict:
    """Segmentation of `pixels`; `mask`, (height, width, 3) too, is painted."""
    score, anomaly_map = session.run([SCORE, ANOMALY_MAP], {INPUT: _tensor(pixels)})
    height, width = pixels.shape[:2]
    resized = Image.fromarray(anomaly_map[0, 0]).resize((width, height), Image.Resampling.BILINEAR)
    labels = (np.asarray(resized) >= PIXEL_THRESHOLD).view(np.uint8)
    np.take(PALETTE, labels, axis=0, out=mask, mode="clip")
    return Verdict(float(score), float(np.count_nonzero(labels) / labels.size))


def _tensor(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    tensor = np.multiply(small.transpose(2, 0, 1), FACTOR, dtype=np.float32)
    tensor += OFFSET
    return tensor[None]
