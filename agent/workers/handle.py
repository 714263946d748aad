"""What the fleet sees of a worker, whatever runs behind it; tests put a fake one in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.backends.base import RunsOn
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection


class WorkerDied(Exception):
    """The worker ended, or was ended, before it answered. Its text says which, as in "its worker ended"."""

    UNEXPECTEDLY = "its worker ended unexpectedly"

    def __init__(self, what: str = UNEXPECTEDLY) -> None:
        super().__init__(what)
        self.image: bytes | None = None
        """Fingerprint of the image that the model had seen last, where the worker was to tell it."""


@dataclass(frozen=True)
class OpenSegment:
    """A client's segment: descriptor, and offset of the range in bytes."""

    descriptor: int
    offset: int


@dataclass(frozen=True)
class ImageToInspect:
    """One call's pixels and where its mask goes."""

    layout: BitmapLayout
    pixels: bytes | memoryview | OpenSegment
    mask: OpenSegment | None = None
    """None: the mask comes back with the detection."""
    refuse: tuple[bytes, ...] = ()
    """Fingerprints of images that are not inspected."""
    tell_image: bool = False
    """Whether WorkerDied is to tell the image's fingerprint."""
    threshold: float | None = None
    """0..1, to judge by in place of the package's: it comes with each image, so no worker has to be told of a change,
    and none can be left behind by it."""


class WorkerHandle(Protocol):
    """One worker, from the moment it is started."""

    why_ended: str
    """Once it has ended: as in "its worker ended"."""

    def wait_until_open(self, limit: float) -> RunsOn:
        """What the model runs on, once the self-test has passed.

        Raises:
            BadPackage: the package cannot be served.
            NotEnoughMemory, NoMemoryToLoad: that takes more memory than it may, or than the GPU has free.
            LoadTimedOut: it took more than `limit` seconds, without those it waited for another model's engine, and
                has been killed.
            WorkerDied: the process ended.
        """
        ...

    def detect(self, slot: int, image: ImageToInspect, limit: float) -> Detection:
        """The answer to `image`, in `slot`, which nobody else uses meanwhile.

        Raises:
            Refusal: the worker refused the call.
            WorkerDied: it ended with this call in hand, or ran for `limit` seconds and was killed.
        """
        ...

    def memory(self) -> int:
        """Bytes that the worker holds now and no file backs; 0 when it has ended."""
        ...

    def close(self) -> None:
        """Ends the worker and gives its memory back; returns when it is gone."""
        ...
