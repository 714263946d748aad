"""A call against the package of its model: what the door has checked, and what only the package can tell."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from agent.errors import MaskOverlapsImage, MaskRangeTooSmall, WrongImageSize
from agent.images.bitmap import BitmapLayout
from agent.images.shared_memory import SegmentRange, open_segment
from agent.packages.manifest import Manifest
from agent.workers.handle import ImageToInspect, OpenSegment


@dataclass(frozen=True)
class DetectRequest:
    """A call as the door hands it on: sizes checked, segments named, nothing opened yet."""

    layout: BitmapLayout
    pixels: bytes | memoryview | SegmentRange
    mask: SegmentRange | None = None


def checked_image(component: str, request: DetectRequest, manifest: Manifest, opened: ExitStack) -> ImageToInspect:
    """The request against the model's package, its segments opened; `opened` closes their descriptors."""
    layout, size = request.layout, manifest.image
    if not size.any_size and (layout.width, layout.height) != (size.width, size.height):
        raise WrongImageSize(component, layout.width, layout.height, size.width, size.height)

    pixels: bytes | memoryview | OpenSegment
    if isinstance(request.pixels, SegmentRange):
        pixels = _open(request.pixels, opened, writable=False)
    else:
        pixels = request.pixels
    if request.mask is None or manifest.task == "classification":  # those ignore mask parameters
        return ImageToInspect(layout, pixels)
    if request.mask.size < layout.packed_size:
        raise MaskRangeTooSmall(request.mask.size, layout.packed_size)
    written = SegmentRange(request.mask.name, layout.packed_size, request.mask.offset)
    if isinstance(request.pixels, SegmentRange) and written.overlaps(request.pixels):
        raise MaskOverlapsImage
    return ImageToInspect(layout, pixels, _open(request.mask, opened, writable=True))


def _open(segment: SegmentRange, opened: ExitStack, *, writable: bool) -> OpenSegment:
    descriptor = open_segment(segment, writable=writable)
    opened.callback(os.close, descriptor)
    return OpenSegment(descriptor, segment.offset)
