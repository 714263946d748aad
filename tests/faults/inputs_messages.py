"""Row A6: valid protobuf of every kind into the door, without gRPC's sockets, as fast as one process can."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.errors import Refusal
from agent.images.detection import Detection, Region
from agent.models.fleet import Fleet
from agent.models.keeper import ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record
from agent.rpc.error_status import status_of
from agent.rpc.request_parser import parse
from agent.rpc.service import EdgeAgent
from agent.workers.handle import ImageToInspect, OpenSegment
from tests.faults.inputs_encoding import UINT64, block, byte_data, handle, number, sides, varint
from tests.faults.row import Run, row
from tests.support.agent_process import segment
from tests.support.fake_worker import PATIENCE, FakeWorkers, Plan, eventually
from tests.support.packages import make_package

SIDE = 64
SIZE = SIDE * SIDE * 3
PADDED_SIDE = 65
PADDED = SIDE * 196  # rows of 65 pixels, padded to a multiple of 4 bytes


class Context:
    """What the service asks of gRPC, for a call without a deadline."""

    def time_remaining(self) -> float:
        return 9.2e18

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        assert all(value.isascii() and value.isprintable() for _, value in metadata)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return True


def _answer(service: EdgeAgent, content: bytes) -> bytes:
    """What gRPC would do with the bytes of a request: parse them (by our own parser, small ones too), call the method.

    Raises Refusal, as the service does.
    """
    return service.DetectAnomalies(parse(content, worth_it=0), Context())  # type: ignore[arg-type]


# --- the row ---

BATCH = 1000
EXPECTED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}


@row(
    "A6",
    "any valid protobuf: an answer or a listed refusal, never an error of the agent's own",
    unit="messages",
    full=10_000_000,
    short=10_000,
    uses_shared_agent=False,
)
def random_messages(run: Run) -> None:
    package = make_package(run.folder / "any-size", any_size=True)
    workers = FakeWorkers(Plan(answer=_detection))
    fleet = Fleet(workers, ModelSettings(1, 4, PATIENCE, PATIENCE))
    fleet.apply({name: Record(name, "1.0.0", str(package)) for name in ("bolt", "nut")})
    fleet.start("bolt")
    eventually("it to run", lambda: fleet.describe("bolt").status is ModelStatus.RUNNING)
    service = EdgeAgent(fleet)
    try:
        with segment(bytes(PADDED), 2 * PADDED) as name:
            messages = Messages(run.random, name)
            before = _open_descriptors()
            for _ in run.steps(each=BATCH):
                run.outcomes.update(_outcomes(service, messages.batch(BATCH)))
            assert _open_descriptors() <= before
    finally:
        fleet.close()
    assert set(run.outcomes) == EXPECTED, run.outcomes
    assert workers.faults == []


def _outcomes(service: EdgeAgent, messages: list[bytes]) -> Counter[str]:
    outcomes = Counter[str]()
    for content in messages:
        try:
            _answer(service, content)
            outcomes["OK"] += 1
        except Refusal as refusal:
            sentence = str(refusal)
            assert sentence.isascii() and sentence.isprintable() and len(sentence) < 2000, (content, sentence)
            assert "/dev/shm" not in sentence, (content, sentence)
            outcomes[status_of(type(refusal)).name] += 1
        except Exception as error:
            raise AssertionError(f"not refused but failed: {content!r}") from error
    assert set(outcomes) <= EXPECTED, outcomes
    return outcomes


def _detection(image: ImageToInspect) -> Detection:
    """As a worker would: what is to be read of a segment must be there."""
    if isinstance(image.pixels, OpenSegment):
        read = os.preadv(image.pixels.descriptor, [bytearray(image.layout.size)], image.pixels.offset)
        assert read == image.layout.size
    regions = (Region("background", 1.0, "#FFFFFF"),)
    mask = np.zeros((image.layout.height, image.layout.width, 3), np.uint8) if image.mask is None else None
    return Detection(False, 0.75, 0.25, 0.5, regions, mask)


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# --- messages ---

NUMBERS = (0, 1, 2, 63, 64, 65, 4096, 4097, SIZE, SIZE - 1, PADDED, 2**31 - 1, 2**31, 2**32 + 64, 2**63, UINT64, -64)
TEXTS = (b"", b"..", b"/", b"a/b", b"a\0b", b"\n", b"%s{}", b"n" * 300, b".hidden", b"\xff\xfe", "\u0430".encode())


class Messages:
    """Makes requests out of pieces: pieces are made by chance for each batch, and put together by chance many times.

    (Making each request from nothing would take longer than what is tried with it.)
    """

    def __init__(self, chance: random.Random, segment: str) -> None:
        """`segment`: one of 2 * PADDED bytes, so that some ranges are right."""
        self._chance, self._segment = chance, segment

    def batch(self, count: int) -> list[bytes]:
        """So many DetectAnomaliesRequests; one in some has nothing wrong in it."""
        chance = self._chance
        names = [block(1, b"bolt")] * 12 + [block(1, b"nut"), block(1, b"washer"), block(1, self._text()), b""]
        images = [self._bitmap() for _ in range(32)]
        masks = [b""] * 16 + [self._mask() for _ in range(16)]
        # More of the same: parts of messages are merged, of numbers and texts the last counts.
        more = [b""] * 12 + [self._bitmap(), self._mask(), block(1, self._text()), self._unknown()]
        columns = [names, images, masks, more]
        chance.shuffle(columns)
        return [
            b"".join(pieces) for pieces in zip(*(chance.choices(column, k=count) for column in columns), strict=True)
        ]

    def _bitmap(self) -> bytes:
        chance = self._chance
        if chance.random() < 0.4:
            return self._right_bitmap()
        pieces = [number(1, self._number()), number(2, self._number()), self._source(), self._unknown()]
        chance.shuffle(pieces)
        return block(2, b"".join(pieces[: chance.randint(0, len(pieces))]))

    def _right_bitmap(self) -> bytes:
        width, size = self._chance.choice(((SIDE, SIZE), (PADDED_SIDE, PADDED)))
        shared = handle(4, self._segment, size, self._chance.choice((0, 1, PADDED, self._number())))
        return block(2, sides(width, SIDE) + self._chance.choice((byte_data(bytes(size)), shared)))

    def _source(self) -> bytes:
        if self._chance.random() < 0.5:
            return self._handle(4)
        return byte_data(bytes(self._chance.choice((0, 1, SIZE - 1, SIZE, SIZE + 1, PADDED))))

    def _mask(self) -> bytes:
        if self._chance.random() < 0.3:
            return block(3, handle(self._chance.choice((2, 3)), self._segment, PADDED, PADDED))
        return block(3, b"".join(self._handle(field) for field in (2, 3) if self._chance.random() < 0.6))

    def _handle(self, field: int) -> bytes:
        name = self._segment.encode() if self._chance.random() < 0.5 else self._text()
        pieces = [block(1, name), number(2, self._number()), number(3, self._number()), self._unknown()]
        self._chance.shuffle(pieces)
        return block(field, b"".join(pieces[: self._chance.randint(0, len(pieces))]))

    def _number(self) -> int:
        return self._chance.choice(NUMBERS) if self._chance.random() < 0.7 else self._chance.getrandbits(64)

    def _text(self) -> bytes:
        if self._chance.random() < 0.7:
            return self._chance.choice(TEXTS)
        return "".join(chr(self._chance.randrange(0xD800)) for _ in range(self._chance.randrange(20))).encode()

    def _unknown(self) -> bytes:
        """A field of a later definition, or a known one's number with another type: of each kind the wire has."""
        chance = self._chance
        field, later = chance.choice((1, 2, 3, 4, 5, 100)), chance.choice((15, 16, 2**29 - 1))
        return chance.choice(
            (
                b"",
                varint(field << 3) + self._long_varint(),
                varint(field << 3 | 1) + chance.randbytes(8),
                varint(field << 3 | 5) + chance.randbytes(4),
                varint(field << 3 | 3) + number(7, 7) + varint(field << 3 | 4),
                block(later, chance.randbytes(chance.randrange(20))),  # in a known one it would have to be a message
            )
        )

    def _long_varint(self) -> bytes:
        """A number in more bytes than it needs; ten are the most."""
        short = varint(self._chance.getrandbits(self._chance.choice((1, 7, 32))))
        return bytes([*(byte | 0x80 for byte in short), *[0x80] * self._chance.randint(0, 4), 0])
