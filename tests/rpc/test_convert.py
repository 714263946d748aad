"""Wire messages to the agent's own types and back, and the five calls in-process with a fake fleet behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.backends.base import RunsOn
from agent.errors import (
    AgentStops,
    BothMaskHandles,
    CallerGone,
    ImageSizeOutOfRange,
    ModelNotFound,
    NoImage,
    Refusal,
    TooManyCalls,
    WrongByteCount,
)
from agent.images.bitmap import BitmapLayout
from agent.images.detection import Detection, Region, StageTimes
from agent.images.shared_memory import SegmentRange
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.models.keeper import ModelSettings
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record
from agent.models.request import DetectRequest
from agent.models.served_model import Inspection, ModelDescription
from agent.models.worker_post import ServedBy
from agent.rpc import convert
from agent.rpc.call_counts import CallCounts
from agent.rpc.error_status import status_of
from agent.rpc.health import Health
from agent.rpc.request_parser import ReceivedRequest, RequestParser, parse
from agent.rpc.server import make_server
from agent.rpc.service import MAX_CALLS, EdgeAgent
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.fake_worker import NORMAL, PATIENCE, FakeWorkers, Plan, eventually
from tests.support.packages import HEIGHT, WIDTH, make_package

SIZE = WIDTH * HEIGHT * 3
PADDED = 64 * 220  # 73 pixels of 3 bytes, each row padded to a multiple of 4
UINT64 = 2**64 - 1


def request(**bitmap: Any) -> wire.DetectAnomaliesRequest:
    return wire.DetectAnomaliesRequest(model_component="bolt", bitmap=wire.Bitmap(**bitmap))


def handle(name: str = "/ring", size: int = SIZE, offset: int = 0) -> wire.SharedMemoryHandle:
    return wire.SharedMemoryHandle(name=name, size=size, offset=offset)


def received(message: wire.DetectAnomaliesRequest) -> ReceivedRequest:
    """As the server gets it from the wire."""
    parsed = parse(message.SerializeToString())
    assert isinstance(parsed, ReceivedRequest)
    return parsed


def converted(message: wire.DetectAnomaliesRequest) -> DetectRequest:
    return convert.detect_request(received(message))


def sent(response: bytes) -> wire.DetectAnomalyResult:
    """As a client gets it from the wire."""
    return wire.DetectAnomaliesResponse.FromString(response).detect_anomaly_result


# --- requests ---


def test_bytes_become_pixels_and_their_layout() -> None:
    assert converted(request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))) == DetectRequest(
        BitmapLayout(WIDTH, HEIGHT, WIDTH * 3), bytes(SIZE), None
    )


def test_padded_rows_are_told_by_the_number_of_bytes() -> None:
    for data in ({"byte_data": bytes(PADDED)}, {"shared_memory_handle": handle(size=PADDED)}):
        assert converted(request(width=73, height=64, **data)).layout == BitmapLayout(73, 64, 220)


def test_a_handle_becomes_a_range_of_a_segment_that_is_not_opened_yet() -> None:
    range_of = converted(
        request(width=WIDTH, height=HEIGHT, shared_memory_handle=handle("/no such segment", SIZE, UINT64))
    )
    assert range_of.pixels == SegmentRange("/no such segment", SIZE, UINT64)


@pytest.mark.parametrize("field", ["shared_memory_handle", "legacy_shared_memory_handle"])
def test_the_mask_handle_is_taken_from_either_number(field: str) -> None:
    message = request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))
    getattr(message.anomaly_mask_params, field).CopyFrom(handle("ring", 7, 8))
    assert converted(message).mask == SegmentRange("ring", 7, 8)


def test_the_two_numbers_are_2_and_3_on_the_wire() -> None:
    inner = handle("m", 1, 0).SerializeToString()
    for number, field in ((2, "shared_memory_handle"), (3, "legacy_shared_memory_handle")):
        params = wire.AnomalyMaskParams.FromString(bytes([number << 3 | 2, len(inner)]) + inner)
        assert getattr(params, field) == handle("m", 1, 0)


def test_both_numbers_at_once_are_refused_even_when_they_agree_or_are_empty() -> None:
    message = request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))
    message.anomaly_mask_params.shared_memory_handle.SetInParent()
    message.anomaly_mask_params.legacy_shared_memory_handle.SetInParent()
    with pytest.raises(BothMaskHandles):
        converted(message)


def test_mask_parameters_without_a_handle_ask_for_an_inline_mask() -> None:
    message = request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))
    message.anomaly_mask_params.SetInParent()
    assert converted(message).mask is None


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        (wire.DetectAnomaliesRequest(), NoImage),
        (request(width=WIDTH, height=HEIGHT), NoImage),
        (request(byte_data=b""), ImageSizeOutOfRange),
        (request(width=-(2**31), height=2**31 - 1, byte_data=b"x"), ImageSizeOutOfRange),
        (request(width=63, height=64, byte_data=bytes(63 * 64 * 3)), ImageSizeOutOfRange),
        (request(width=64, height=4097, shared_memory_handle=handle(size=64 * 4097 * 3)), ImageSizeOutOfRange),
        (request(width=WIDTH, height=HEIGHT, byte_data=b""), WrongByteCount),
        (request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE + 1)), WrongByteCount),
        (request(width=WIDTH, height=HEIGHT, shared_memory_handle=handle(size=SIZE - 1)), WrongByteCount),
        (request(width=WIDTH, height=HEIGHT, shared_memory_handle=handle(size=UINT64)), WrongByteCount),
        (request(width=WIDTH, height=HEIGHT, shared_memory_handle=wire.SharedMemoryHandle()), WrongByteCount),
    ],
)
def test_what_is_no_image_is_refused(message: wire.DetectAnomaliesRequest, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        converted(message)


# --- answers ---

CLASSIFIED = Detection(True, 0.9, 0.9, 0.5)
SEGMENTED = Detection(
    False,
    0.75,
    0.25,
    0.5,
    (Region("background", 0.0, "#FFFFFF"), Region("dent", 1.0, "#23A436")),
    np.arange(SIZE, dtype=np.uint64).astype(np.uint8).reshape(HEIGHT, WIDTH, 3),
)
ASKED = DetectRequest(BitmapLayout(WIDTH, HEIGHT, WIDTH * 3), b"")


def test_a_classification_has_neither_mask_nor_anomalies() -> None:
    result = sent(convert.detect_response(CLASSIFIED, ASKED))
    assert (result.is_anomalous, result.anomaly_threshold) == (True, 0.5)
    assert result.confidence == result.anomaly_score == np.float32(0.9)
    assert not result.HasField("anomaly_mask") and not result.anomalies


def test_a_segmentation_has_its_mask_inline_and_every_region_background_first_even_with_no_pixel() -> None:
    result = sent(convert.detect_response(SEGMENTED, ASKED))
    assert (result.anomaly_mask.width, result.anomaly_mask.height) == (WIDTH, HEIGHT)
    assert SEGMENTED.mask is not None and result.anomaly_mask.byte_data == SEGMENTED.mask.tobytes()
    seen = [(a.name, a.pixel_anomaly.total_percentage_area, a.pixel_anomaly.hex_color) for a in result.anomalies]
    assert seen == [("background", 0.0, "#FFFFFF"), ("dent", 1.0, "#23A436")]


def test_an_answer_on_the_wire_is_what_protobuf_would_write_but_for_the_order_of_fields() -> None:
    whole = wire.DetectAnomaliesResponse.FromString(convert.detect_response(SEGMENTED, ASKED))
    again = wire.DetectAnomaliesResponse.FromString(whole.SerializeToString())
    assert again == whole


def test_response_metadata_tells_what_a_device_stands_in_for():
    served_by = ServedBy("1.0.0", RunsOn("ONNX Runtime 1.2.3", "CPU", "cuda", "There is no GPU."))
    told = dict(convert.how_it_came_about(Inspection(CLASSIFIED, served_by, 0.0)))
    assert (told["edge-agent-device"], told["edge-agent-instead-of"]) == ("CPU", "cuda")


def test_response_metadata_tells_the_arn_of_a_model_that_has_one() -> None:
    arn = "arn:aws:lookoutvision:eu-west-1:123456789012:model/bolts/3"
    for told, expected in ((arn, arn), ("", None), ("\u00e4" * 2048, None)):
        metadata = dict(
            convert.how_it_came_about(Inspection(CLASSIFIED, ServedBy("3", RunsOn("a runtime", "CPU"), told), 0.0))
        )
        assert metadata.get("edge-agent-model-arn") == expected


def test_response_metadata_tells_what_answered_and_how_long_each_step_took() -> None:
    times = StageTimes(preprocessing=0.0012, inferring=0.0345, postprocessing=0.000067)
    served_by = ServedBy("2.0.0 größer\n", RunsOn("ONNX Runtime 1.2.3", "CPU"))
    told = dict(convert.how_it_came_about(Inspection(replace(CLASSIFIED, times=times), served_by, 0.25)))
    assert told == {
        "edge-agent-model-version": "2.0.0 gr\\xf6\\xdfer\\n",
        "edge-agent-runtime": "ONNX Runtime 1.2.3",
        "edge-agent-device": "CPU",
        "edge-agent-waiting-ms": "250.00",
        "edge-agent-preprocessing-ms": "1.20",
        "edge-agent-inferring-ms": "34.50",
        "edge-agent-postprocessing-ms": "0.07",
    }


def test_a_mask_in_the_clients_segment_is_echoed_with_the_size_that_was_written() -> None:
    asked = DetectRequest(ASKED.layout, b"", SegmentRange("ring", SIZE + 100, 11))
    written = Detection(False, 0.75, 0.25, 0.5, SEGMENTED.regions, None)
    mask = sent(convert.detect_response(written, asked)).anomaly_mask
    assert mask.WhichOneof("data") == "shared_memory_handle"
    assert mask.shared_memory_handle == handle("ring", SIZE, 11)


@pytest.mark.parametrize("status", list(ModelStatus))
def test_every_state_has_the_number_of_the_contract(status: ModelStatus) -> None:
    numbers = {"STOPPED": 0, "STARTING": 1, "RUNNING": 2, "FAILED": 3, "STOPPING": 4}
    model = ModelDescription("bolt", "arn:aws:1", status, "a message")
    for message in (convert.description(model), convert.metadata(model)):
        assert message.status == numbers[status.value]
        assert (message.model_component, message.lookout_vision_model_arn) == ("bolt", "arn:aws:1")
        assert message.status_message == "a message"


# --- the service in-process ---


class Context:
    """What the service asks of gRPC; a call without a deadline, as gRPC reports one."""

    def __init__(self, remaining: float | None = 9.2e18, active: bool = True) -> None:
        self._remaining, self._active = remaining, active
        self.when_it_ends: Callable[[], None] | None = None

    def time_remaining(self) -> float | None:
        return self._remaining

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self.metadata = dict(metadata)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.when_it_ends = callback
        return self._active


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("packages") / "any-size", any_size=True)


@pytest.fixture
def workers() -> FakeWorkers:
    return FakeWorkers(Plan(answer=lambda image: NORMAL if image.mask else SEGMENTED))


@pytest.fixture
def fleet(workers: FakeWorkers, package: Path) -> Iterator[Fleet]:
    """`bolt` runs, `nut` is stopped."""
    fleet = Fleet(workers, ModelSettings(1, 4, PATIENCE, PATIENCE))
    fleet.apply({name: Record(name, "1.0.0", str(package)) for name in ("bolt", "nut")})
    fleet.start("bolt")
    eventually("it to run", lambda: fleet.describe("bolt").status is ModelStatus.RUNNING)
    yield fleet
    fleet.close()
    assert workers.faults == []


def test_the_five_calls_answer_with_the_messages_of_the_contract(fleet: Fleet) -> None:
    service, context = EdgeAgent(fleet), Context()
    described = service.DescribeModel(wire.DescribeModelRequest(model_component="bolt"), context)
    assert described.model_description.status == wire.RUNNING
    listed = service.ListModels(wire.ListModelsRequest(), context).models
    assert [(model.model_component, model.status) for model in listed] == [
        ("bolt", wire.RUNNING),
        ("nut", wire.STOPPED),
    ]
    detected = service.DetectAnomalies(received(request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))), context)
    assert sent(detected).anomaly_score == 0.25
    stopped = service.StopModel(wire.StopModelRequest(model_component="bolt"), context)
    assert stopped.status == wire.STOPPED
    started = service.StartModel(wire.StartModelRequest(model_component="bolt"), context)
    assert started.status == wire.STARTING
    with pytest.raises(ModelNotFound):
        service.StartModel(wire.StartModelRequest(model_component="washer"), context)


@pytest.mark.parametrize("context", [Context(active=False), Context(remaining=0.0)], ids=["ended", "too late"])
def test_a_call_that_nobody_waits_for_any_more_never_reaches_the_worker(
    fleet: Fleet, workers: FakeWorkers, context: Context
) -> None:
    with pytest.raises(CallerGone):
        EdgeAgent(fleet).DetectAnomalies(received(request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))), context)
    assert workers.calls == 0


def test_calls_without_a_deadline_wait_in_the_queue_and_cancelled_ones_leave_it(
    fleet: Fleet, workers: FakeWorkers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Through gRPC: it reports a deadline of 9.2e18 s for a call without one, and tells when a call is cancelled."""
    gate = threading.Event()
    worker = workers.opened[0]
    worker.plan = Plan(may_answer=gate, answer=lambda image: SEGMENTED)
    server = make_server(EdgeAgent(fleet), Health(), RequestParser(1 << 30), CallCounts())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    message = request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE))

    def in_line() -> int:
        return len(fleet._models["bolt"]._admission._queue)

    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = EdgeAgentStub(channel)
            first = stub.DetectAnomalies.future(message)
            worker.wait_for_calls(1)
            cancelled = stub.DetectAnomalies.future(message)
            eventually("it to wait", lambda: in_line() == 1)
            patient = stub.DetectAnomalies.future(message)
            eventually("both to wait", lambda: in_line() == 2)
            cancelled.cancel()
            eventually("one to leave", lambda: in_line() == 1)
            gate.set()
            for call in (first, patient):
                assert call.result(PATIENCE).detect_anomaly_result.anomaly_score == 0.25
        assert worker.calls == 2
    finally:
        gate.set()
        server.stop(None).wait()


# --- row A6 in short ---

NUMBERS = st.sampled_from([0, 1, 63, 64, 73, 96, 4096, 4097, 2**31 - 1, -1, -(2**31)]) | st.integers(
    -(2**31), 2**31 - 1
)
SIZES = st.sampled_from([0, 1, SIZE, SIZE + 1, PADDED, 64 * 64 * 3, 2**63, UINT64]) | st.integers(0, UINT64)
SEGMENTS = st.sampled_from(["/no-such-segment", "..", "/", "", "a/b", "a\0b", ".hidden", "n" * 300]) | st.text()
HANDLES = st.none() | st.builds(handle, SEGMENTS, SIZES, SIZES)
CONTENT = st.sampled_from([b"", bytes(SIZE), bytes(SIZE - 1), bytes(PADDED), bytes(64 * 64 * 4)]) | st.binary(
    max_size=64
)
SIDES = st.sampled_from([(WIDTH, HEIGHT), (73, 64), (64, 64)]) | st.tuples(NUMBERS, NUMBERS)


@st.composite
def messages(draw: st.DrawFn) -> wire.DetectAnomaliesRequest:
    """Any message a client's protobuf library can send, more often than chance would have it nearly right."""
    message = wire.DetectAnomaliesRequest(
        model_component=draw(
            st.sampled_from(["bolt", "bolt", "bolt", "nut", "washer", "", "..", "%s{}", "\n"]) | st.text()
        )
    )
    if draw(st.integers(0, 9)):
        width, height = draw(SIDES)
        message.bitmap.CopyFrom(wire.Bitmap(width=width, height=height))
        source = draw(st.sampled_from(["right bytes", "bytes", "handle"]))
        if source == "right bytes" and 0 <= width * height * 3 <= 10 * SIZE:
            message.bitmap.byte_data = bytes(width * height * 3)
        elif source == "bytes":
            message.bitmap.byte_data = draw(CONTENT)
        elif (image := draw(HANDLES)) is not None:
            message.bitmap.shared_memory_handle.CopyFrom(image)
    for field in ("shared_memory_handle", "legacy_shared_memory_handle"):
        if (mask := draw(HANDLES)) is not None and not draw(st.integers(0, 2)):
            getattr(message.anomaly_mask_params, field).CopyFrom(mask)
    # Fields of a later definition, and of none.
    unknown = draw(st.sampled_from([b"", b"", b"\x98\x06\x01", b"\xa2\x06\x03abc"]))
    return wire.DetectAnomaliesRequest.FromString(message.SerializeToString() + unknown)


def named(component: str, grey: int = 0) -> wire.DetectAnomaliesRequest:
    """A request with nothing wrong in it but perhaps the name."""
    bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=bytes([grey]) * SIZE)
    return wire.DetectAnomaliesRequest(model_component=component, bitmap=bitmap)


ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def test_no_message_of_the_wire_gets_anything_but_an_answer_or_a_listed_refusal(fleet: Fleet) -> None:
    service = EdgeAgent(fleet)
    outcomes: dict[str, int] = {}

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    # One in four with nothing wrong in it: chance alone makes too few of them to count on.
    @given(st.one_of(messages(), messages(), messages(), st.builds(named, st.just("bolt"), st.integers(0, 255))))
    @example(named("bolt"))
    @example(named("nut"))
    @example(named("washer"))
    def send(message: wire.DetectAnomaliesRequest) -> None:
        try:
            answer = service.DetectAnomalies(received(message), Context())
        except Refusal as refusal:
            sentence, code = str(refusal), status_of(type(refusal))
            assert code in ALLOWED
            assert sentence and sentence.isprintable() and len(sentence) < 2000
            assert "/dev/shm" not in sentence and "Traceback" not in sentence
            outcomes[code.name] = outcomes.get(code.name, 0) + 1
        else:
            assert sent(answer).anomaly_threshold
            outcomes["OK"] = outcomes.get("OK", 0) + 1

    send()
    # Codes that must occur, else the messages were none that get far.
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"} <= set(outcomes)
    assert outcomes["OK"] > 20 and outcomes["INVALID_ARGUMENT"] > 250, outcomes
    assert fleet.detect("bolt", converted(request(width=64, height=64, byte_data=bytes(12288))), Caller())


def test_requests_are_told_apart_while_many_come_at_once(fleet: Fleet, workers: FakeWorkers) -> None:
    """Row C12 in short, for the door: no answer is another call's."""
    workers.opened[0].plan = Plan(answer=lambda image: Detection(False, 1.0, image.pixels[0] / 255, 0.5))  # type: ignore[index]
    service = EdgeAgent(fleet)

    def send(value: int) -> float:
        message = request(width=64, height=64, byte_data=bytes([value]) * 12288)
        return sent(service.DetectAnomalies(received(message), Context())).anomaly_score

    with ThreadPoolExecutor(4) as threads:  # as many as may wait
        scores = list(threads.map(send, [turn % 256 for turn in range(1000)]))
    assert scores == [np.float32(turn % 256 / 255) for turn in range(1000)]


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (AgentStops(), ("UNAVAILABLE", "AgentStops")),
        (ZeroDivisionError(), ("INTERNAL", "Unexpected")),
        (Refusal("of a class that has no code"), ("INTERNAL", "Unexpected")),
    ],
)
def test_whatever_keeps_a_model_from_an_image_is_counted_and_raised(
    error: Exception, counted: tuple[str, str], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(*_: object) -> None:
        raise error

    monkeypatch.setattr(fleet, "detect", detect)
    with pytest.raises(type(error)) as raised:
        EdgeAgent(fleet).DetectAnomalies(received(request(width=64, height=64, byte_data=bytes(12288))), Context())
    assert raised.value is error
    bolt, _ = fleet.figures()
    assert bolt.counted.refusals == {counted: 1}


def test_one_call_more_than_the_agent_holds_is_refused_at_once_and_control_calls_answer() -> None:
    may_answer, arrived = threading.Event(), threading.Semaphore(0)

    class BusyFleet:
        def detect(self, *_: Any) -> Inspection:
            arrived.release()
            may_answer.wait(PATIENCE)
            return Inspection(NORMAL, ServedBy("1.0.0", RunsOn("a runtime", "CPU")), 0.0)

        def count_refusal(self, *refused: str) -> None:
            counted.append(refused)

        def list(self) -> list[ModelDescription]:
            return []

    counted: list[tuple[str, ...]] = []
    service, context = EdgeAgent(BusyFleet()), Context()  # type: ignore[arg-type]
    message = received(request(width=WIDTH, height=HEIGHT, byte_data=bytes(SIZE)))
    with ThreadPoolExecutor(MAX_CALLS) as threads:
        calls = [threads.submit(service.DetectAnomalies, message, context) for _ in range(MAX_CALLS)]
        for _ in calls:
            assert arrived.acquire(timeout=PATIENCE)
        with pytest.raises(TooManyCalls):
            service.DetectAnomalies(message, context)
        assert counted == [("bolt", "RESOURCE_EXHAUSTED", "TooManyCalls")]
        assert not service.ListModels(wire.ListModelsRequest(), context).models
        may_answer.set()
        assert all(call.result(PATIENCE) for call in calls)
    assert service.DetectAnomalies(message, context)
