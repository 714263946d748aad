"""Row C12: every answer belongs to its request."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from agent.wire import edge_agent_pb2 as wire
from tests.faults.clients import PATIENCE, in_threads
from tests.faults.row import ANY_SIZE, CLASSIFIER, Run, row
from tests.support.agent_process import inline_request, segment, segment_request
from tests.support.packages import HEIGHT, WIDTH, grey

METHOD = "/AWS.LookoutVision.EdgeAgent/DetectAnomalies"
CLIENTS = 3
"""Of each kind."""
IMAGES = 60
"""Of a client, each with a number that no other image has; the classifier can tell 255 numbers apart."""
SIZE = WIDTH * HEIGHT * 3
GREEN = np.array([0x23, 0xA4, 0x36], np.uint8)
"""Of the mask, where the image is dark."""


class _Client:
    """Sends ready-made bytes and compares bytes: the processors are for the agent."""

    def __init__(self, requests: list[wire.DetectAnomaliesRequest]) -> None:
        self._requests = [request.SerializeToString() for request in requests]
        self._right_answers = dict[int, bytes]()
        """By the index of the image, where known: what is in them is looked at once."""

    def send_each_image(self, call: grpc.UnaryUnaryMultiCallable) -> None:
        for index, request in enumerate(self._requests):
            answer = call(request, timeout=PATIENCE)
            if answer != self._right_answers.get(index):
                result = wire.DetectAnomaliesResponse.FromString(answer).detect_anomaly_result
                assert self.is_right(index, result), f"image {index} of {type(self).__name__} got {result}"
                self._right_answers[index] = answer
            assert self.mask_is_right(index), f"image {index} of {type(self).__name__} got another one's mask"

    def is_right(self, index: int, result: wire.DetectAnomalyResult) -> bool:
        """Whether `result` is that of the image."""
        raise NotImplementedError

    def mask_is_right(self, index: int) -> bool:
        """Whether the mask, where it is not in the result, is that of the image."""
        return True


class _Classifying(_Client):
    """The number of an image is the red of its first pixel, and comes back as its score."""

    def __init__(self, number: int) -> None:
        self._reds = [number * IMAGES + index + 1 for index in range(IMAGES)]
        super().__init__([inline_request(CLASSIFIER, grey(red)) for red in self._reds])

    def is_right(self, index: int, result: wire.DetectAnomalyResult) -> bool:
        return abs(result.anomaly_score - self._reds[index] / 255) < 0.0001


class _Inspecting(_Client):
    """The number of an image is drawn into it in dark bars, and comes back in its mask."""

    def __init__(self, number: int) -> None:
        images = [_drawn(number * IMAGES + index + 1) for index in range(IMAGES)]
        self._masks = [np.where(image == 0, GREEN, np.uint8(255)).tobytes() for image in images]
        super().__init__(self._made(images))

    def _made(self, images: list[NDArray[np.uint8]]) -> list[wire.DetectAnomaliesRequest]:
        return [inline_request(ANY_SIZE, image) for image in images]

    def is_right(self, index: int, result: wire.DetectAnomalyResult) -> bool:
        return result.anomaly_mask.byte_data == self._masks[index]


class _InspectingBySegment(_Inspecting):
    """As before, image and mask in one segment: all images in a row, and room for one mask."""

    def __init__(self, number: int, opened: ExitStack) -> None:
        self._opened = opened
        super().__init__(number)

    def _made(self, images: list[NDArray[np.uint8]]) -> list[wire.DetectAnomaliesRequest]:
        end = IMAGES * SIZE
        content = b"".join(image.tobytes() for image in images)
        self._name = self._opened.enter_context(segment(content, end + SIZE))
        with (Path("/dev/shm") / self._name.removeprefix("/")).open("r+b") as file:
            self._memory = self._opened.enter_context(contextlib.closing(mmap.mmap(file.fileno(), end + SIZE)))
        return [
            segment_request(ANY_SIZE, WIDTH, HEIGHT, self._name, offset=index * SIZE, mask_offset=end)
            for index in range(IMAGES)
        ]

    def is_right(self, index: int, result: wire.DetectAnomalyResult) -> bool:
        dark = self._masks[index].count(bytes(GREEN)) / (WIDTH * HEIGHT)
        areas = [anomaly.pixel_anomaly.total_percentage_area for anomaly in result.anomalies]
        return result.anomaly_mask.shared_memory_handle.name == self._name and np.allclose(areas, [1 - dark, dark])

    def mask_is_right(self, index: int) -> bool:
        return self._memory[IMAGES * SIZE :] == self._masks[index]


def _drawn(number: int) -> NDArray[np.uint8]:
    """White, with a dark bar for each bit of the number that is set."""
    pixels = grey(255)
    for bit in range(number.bit_length()):
        if number >> bit & 1:
            pixels[:, 5 * bit : 5 * bit + 4] = 0
    return pixels


@contextlib.contextmanager
def _clients() -> Iterator[list[_Client]]:
    with ExitStack() as opened:
        yield [
            client
            for number in range(CLIENTS)
            # The numbers drawn into images are of one series, however they travel.
            for client in (
                _Classifying(number),
                _Inspecting(2 * number),
                _InspectingBySegment(2 * number + 1, opened),
            )
        ]


@row(
    "C12",
    "many clients, models and transports at once, each image with a number: each answer is that of its image",
    unit="answers",
    full=10_000_000,
    short=3 * CLIENTS * IMAGES,
)
def answers_belong_to_their_requests(run: Run) -> None:
    def work(client: _Client) -> None:
        # A connection of its own: else gRPC has all clients of a process share one.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{run.agent.socket}", options=options) as channel:
            call = channel.unary_unary(METHOD)
            for _ in run.steps(each=IMAGES):
                client.send_each_image(call)

    with _clients() as clients:
        in_threads([lambda client=client: work(client) for client in clients])
    run.figures["answers to another request"] = "0"
