"""A client in a process of its own, that calls as fast as it is answered and looks at every answer.

    python -m tests.faults.soak_client SOCKET SEGMENT NUMBER SEED WIDTH HEIGHT LARGEST_EVERY

Images are from 64 x 64 up to WIDTH x HEIGHT pixels; every LARGEST_EVERYth is of the largest size (0: none is). It first
fills what fills up once and answers by a line what came of it, as JSON. Then each line on its standard input is a
number of calls to make, and is answered in the same way. It ends with its input.

All clients share a segment, which is mostly a hole: all dark, then all white, then a range for the mask of each client.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grpc

from agent.images.bitmap import MAX_BYTES, MAX_SIDE, MIN_SIDE
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.faults.row import ANY_SIZE, CLASSIFIER
from tests.support.agent_process import LARGE_REPLIES, PATIENCE
from tests.support.packages import HEIGHT, WIDTH

USUAL_BYTES = 1280 * 960 * 3
"""Room for an image, but for one of the largest size."""
CLASSIFIED_EVERY = 10
PADDED_EVERY = 4
SLOTS = 2
"""Calls that a model works on at once, by the agent's default."""
BURST, BURSTS = 8, 2
"""Calls at once while warming up: two clients fill slots and queue of a model without overrunning them."""

DARK, WHITE, MASKS = 0, MAX_BYTES, MAX_BYTES + USUAL_BYTES
"""Offsets in the segment. The largest images are always dark, so that their part of it stays a hole."""
ANOMALY, BACKGROUND = bytes.fromhex("23A436"), bytes.fromhex("FFFFFF")


def segment_size(clients: int) -> int:
    """Bytes: the largest mask lies behind those of the clients, who write the same there."""
    return MASKS + clients * USUAL_BYTES + MAX_BYTES


def fill_segment(path: Path) -> None:
    with path.open("r+b") as segment:
        segment.seek(WHITE)
        segment.write(b"\xff" * USUAL_BYTES)


@dataclass(frozen=True)
class Picture:
    """An image of one grey value, and the way it and its mask go."""

    width: int
    height: int
    is_dark: bool
    row_bytes: int
    by_segment: bool
    mask_by_segment: bool

    @property
    def size(self) -> int:
        return self.row_bytes * self.height

    @property
    def mask_size(self) -> int:
        return self.width * self.height * 3


class Client:
    """One channel, one call at a time."""

    def __init__(
        self, socket: str, segment: str, number: int, seed: int, width: int, height: int, largest_every: int
    ) -> None:
        self._stub = EdgeAgentStub(grpc.insecure_channel(f"unix:{socket}", options=LARGE_REPLIES))
        self._name, self._segment = segment, os.open(f"/dev/shm{segment}", os.O_RDWR)
        size = os.fstat(self._segment).st_size
        self._mask, self._largest_mask = MASKS + number * USUAL_BYTES, size - MAX_BYTES
        self._random = random.Random(seed + number)
        self._width, self._height, self._largest_every = width, height, largest_every
        self._content = {True: bytes(MAX_BYTES), False: b"\xff" * USUAL_BYTES}
        self._made = 0

    def warm_up(self) -> Counter[str]:
        """The most that is to come, at once: what every thread holds has then been as large as it gets."""
        most = Picture(self._width, self._height, True, self._width * 3, by_segment=False, mask_by_segment=False)
        together = BURSTS * [BURST * [self._request(most)]] + [BURST * [self._to_classify(red=0)]]
        if self._largest_every:
            together.append(SLOTS * [self._request(self._largest(by_segment=True))])
        outcomes = Counter[str]()
        for requests in together:
            for call in [self._stub.DetectAnomalies.future(request, PATIENCE) for request in requests]:
                outcomes[call.code().name] += 1
        return outcomes

    def calls(self, count: int) -> Counter[str]:
        """What came of so many calls: "OK", a status code, or what is wrong with an answer."""
        return Counter(self._call() for _ in range(count))

    def _call(self) -> str:
        self._made += 1
        try:
            if self._largest_every and self._made % self._largest_every == 0:
                return self._inspect(self._largest(by_segment=self._coin()))
            if self._random.randrange(CLASSIFIED_EVERY) == 0:
                return self._classify()
            return self._inspect(self._usual())
        except grpc.RpcError as error:
            return str(error.code().name)

    def _classify(self) -> str:
        red = self._random.randrange(256)
        score = self._stub.DetectAnomalies(self._to_classify(red), PATIENCE).detect_anomaly_result.anomaly_score
        return "OK" if abs(score - red / 255) < 0.001 else f"a score of {score} for {red}"

    def _inspect(self, picture: Picture) -> str:
        request = self._request(picture)
        last = picture.mask_size - 3
        handle = request.anomaly_mask_params.shared_memory_handle
        if picture.mask_by_segment:  # what the last call wrote there is no answer to this one
            for place in (0, last):
                os.pwrite(self._segment, bytes(3), handle.offset + place)
        result = self._stub.DetectAnomalies(request, PATIENCE).detect_anomaly_result
        if result.is_anomalous != picture.is_dark:
            return f"wrong verdict for {picture}"
        if picture.mask_by_segment:
            corners = [os.pread(self._segment, 3, handle.offset + place) for place in (0, last)]
        else:
            mask = result.anomaly_mask.byte_data
            if len(mask) != picture.mask_size:
                return f"a mask of {len(mask)} bytes for {picture}"
            corners = [mask[:3], mask[last:]]
        return "OK" if corners == [ANOMALY if picture.is_dark else BACKGROUND] * 2 else f"wrong mask for {picture}"

    def _usual(self) -> Picture:
        # As many from 64 to 128 as from 640 to 1280.
        width, height = (
            round(MIN_SIDE * (largest / MIN_SIDE) ** self._random.random()) for largest in (self._width, self._height)
        )
        row_bytes = width * 3 if self._random.randrange(PADDED_EVERY) else -(-width * 3 // 4) * 4
        return Picture(width, height, self._coin(), row_bytes, self._coin(), self._coin())

    def _largest(self, by_segment: bool) -> Picture:
        return Picture(MAX_SIDE, MAX_SIDE, True, MAX_SIDE * 3, by_segment, self._coin())

    def _coin(self) -> bool:
        return self._random.random() < 0.5

    def _to_classify(self, red: int) -> wire.DetectAnomaliesRequest:
        bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=bytes([red]) + bytes(WIDTH * HEIGHT * 3 - 1))
        return wire.DetectAnomaliesRequest(model_component=CLASSIFIER, bitmap=bitmap)

    def _request(self, picture: Picture) -> wire.DetectAnomaliesRequest:
        bitmap = wire.Bitmap(width=picture.width, height=picture.height)
        if picture.by_segment:
            offset = DARK if picture.is_dark else WHITE
            bitmap.shared_memory_handle.CopyFrom(self._handle(picture.size, offset))
        else:
            bitmap.byte_data = self._content[picture.is_dark][: picture.size]
        request = wire.DetectAnomaliesRequest(model_component=ANY_SIZE, bitmap=bitmap)
        if picture.mask_by_segment:
            offset = self._mask if picture.mask_size <= USUAL_BYTES else self._largest_mask
            handle = self._handle(picture.mask_size, offset)
            request.anomaly_mask_params.shared_memory_handle.CopyFrom(handle)
        return request

    def _handle(self, size: int, offset: int) -> wire.SharedMemoryHandle:
        return wire.SharedMemoryHandle(name=self._name, size=size, offset=offset)


def main() -> None:
    socket, segment, *numbers = sys.argv[1:]
    client = Client(socket, segment, *map(int, numbers))
    print(json.dumps(client.warm_up()), flush=True)
    for line in sys.stdin:
        print(json.dumps(client.calls(int(line))), flush=True)


if __name__ == "__main__":
    main()
