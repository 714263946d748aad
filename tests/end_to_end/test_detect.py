"""DetectAnomalies against a real agent: both transports, both kinds of model, limits."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import (
    LARGE_REPLIES,
    PATIENCE,
    AgentProcess,
    describe,
    detect,
    inline_request,
    refusal,
    segment,
    segment_request,
)
from tests.support.packages import HEIGHT, WIDTH, grey, make_package, slow_model

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def spotted(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """White, with a black rectangle of 20 x 10 pixels."""
    pixels = grey(255, width, height)
    pixels[30:40, 10:30] = 0
    return pixels


def test_segmentation_answers_verdict_score_mask_and_areas(agent: AgentProcess) -> None:
    pixels = spotted()
    result = detect(agent.stub(), inline_request("any-size", pixels))
    assert result.is_anomalous
    assert (result.confidence, result.anomaly_score, result.anomaly_threshold) == (1, 1, 0.5)
    assert [anomaly.name for anomaly in result.anomalies] == ["background", "anomaly"]
    assert [anomaly.pixel_anomaly.hex_color for anomaly in result.anomalies] == ["#FFFFFF", "#23A436"]
    fraction = 200 / (WIDTH * HEIGHT)
    assert result.anomalies[1].pixel_anomaly.total_percentage_area == pytest.approx(fraction)
    assert result.anomalies[0].pixel_anomaly.total_percentage_area == pytest.approx(1 - fraction)
    assert (result.anomaly_mask.width, result.anomaly_mask.height) == (WIDTH, HEIGHT)
    mask = np.frombuffer(result.anomaly_mask.byte_data, np.uint8).reshape(pixels.shape)
    expected = np.where(pixels == 0, np.array([0x23, 0xA4, 0x36], np.uint8), np.uint8(255))
    assert np.array_equal(mask, expected)


def test_a_normal_image_gets_a_white_mask_and_background_only(agent: AgentProcess) -> None:
    result = detect(agent.stub(), inline_request("any-size", grey(255)))
    assert not result.is_anomalous
    assert result.confidence == 1
    assert set(result.anomaly_mask.byte_data) == {255}
    assert [(a.name, a.pixel_anomaly.total_percentage_area) for a in result.anomalies] == [("background", 1)]


def test_background_is_named_even_with_no_pixel_left(agent: AgentProcess) -> None:
    result = detect(agent.stub(), inline_request("any-size", grey(0)))
    areas = [(a.name, a.pixel_anomaly.total_percentage_area) for a in result.anomalies]
    assert areas == [("background", 0), ("anomaly", 1)]


def test_classification_answers_score_only_and_ignores_mask_parameters(agent: AgentProcess) -> None:
    request = inline_request("classifier", grey(204))
    request.anomaly_mask_params.shared_memory_handle.name = "/there is no such segment"
    result = detect(agent.stub(), request)
    assert result.is_anomalous
    assert result.confidence == pytest.approx(0.8)
    assert not result.HasField("anomaly_mask")
    assert not result.anomalies


@pytest.mark.parametrize("leading", ["/", ""])
def test_pixels_and_mask_go_through_one_segment(agent: AgentProcess, leading: str) -> None:
    pixels = spotted()
    size = pixels.nbytes
    with segment(pixels.tobytes(), 2 * size + 100) as name:
        name = leading + name.removeprefix("/")
        result = detect(agent.stub(), segment_request("any-size", WIDTH, HEIGHT, name, mask_offset=size + 50))
        content = Path("/dev/shm", name.removeprefix("/")).read_bytes()
    handle = result.anomaly_mask.shared_memory_handle
    assert (handle.name, handle.offset, handle.size) == (name, size + 50, size)
    assert result.anomaly_mask.WhichOneof("data") == "shared_memory_handle"
    inline = detect(agent.stub(), inline_request("any-size", pixels)).anomaly_mask.byte_data
    assert content[size + 50 : 2 * size + 50] == inline
    assert content[:size] == pixels.tobytes()
    assert not any(content[size : size + 50]) and not any(content[2 * size + 50 :])


def test_the_legacy_number_of_the_mask_handle_works_too(agent: AgentProcess) -> None:
    pixels = spotted()
    with segment(pixels.tobytes(), 2 * pixels.nbytes) as name:
        request = segment_request("any-size", WIDTH, HEIGHT, name)
        legacy = wire.SharedMemoryHandle(name=name, size=pixels.nbytes, offset=pixels.nbytes)
        request.anomaly_mask_params.legacy_shared_memory_handle.CopyFrom(legacy)
        assert detect(agent.stub(), request).anomaly_mask.shared_memory_handle == legacy
        request.anomaly_mask_params.shared_memory_handle.CopyFrom(legacy)
        assert refusal(lambda: detect(agent.stub(), request))[0] == INVALID


def test_rows_padded_to_four_bytes_are_read_right(agent: AgentProcess) -> None:
    width, height = 97, 66
    pixels = spotted(width, height)
    padded = np.full((height, 292), 77, np.uint8)
    padded[:, : width * 3] = pixels.reshape(height, width * 3)
    packed_answer = detect(agent.stub(), inline_request("any-size", pixels))
    bitmap = wire.Bitmap(width=width, height=height, byte_data=padded.tobytes())
    request = wire.DetectAnomaliesRequest(model_component="any-size", bitmap=bitmap)
    assert detect(agent.stub(), request) == packed_answer
    with segment(padded.tobytes(), 3 * padded.nbytes) as name:  # larger than size, as a growing client has it
        request.bitmap.shared_memory_handle.CopyFrom(wire.SharedMemoryHandle(name=name, size=padded.nbytes))
        assert detect(agent.stub(), request) == packed_answer


def test_the_largest_image_works_both_ways(agent: AgentProcess) -> None:
    pixels = spotted(4096, 4096)
    inline = detect(agent.stub(LARGE_REPLIES), inline_request("any-size", pixels))
    assert inline.is_anomalous
    assert len(inline.anomaly_mask.byte_data) == pixels.nbytes
    with segment(pixels.tobytes(), 2 * pixels.nbytes) as name:
        request = segment_request("any-size", 4096, 4096, name, mask_offset=pixels.nbytes)
        by_segment = detect(agent.stub(), request)
        with Path("/dev/shm", name.removeprefix("/")).open("rb") as file:
            file.seek(pixels.nbytes)
            assert file.read() == inline.anomaly_mask.byte_data
    assert by_segment.anomalies == inline.anomalies


@pytest.mark.parametrize(
    ("width", "height"), [(63, 64), (4097, 64), (64, 63), (0, 0), (-5, 64), (2**31 - 1, 2**31 - 1)]
)
def test_sizes_out_of_range_are_refused_with_a_sentence(agent: AgentProcess, width: int, height: int) -> None:
    bitmap = wire.Bitmap(width=width, height=height, byte_data=b"\0" * min(4097 * 64 * 3, max(0, width * height * 3)))
    request = wire.DetectAnomaliesRequest(model_component="any-size", bitmap=bitmap)
    code, sentence = refusal(lambda: detect(agent.stub(), request))
    assert code == INVALID
    assert f"{width} x {height}" in sentence and "64 to 4096" in sentence


def test_other_dimensions_than_the_packages_are_refused(agent: AgentProcess) -> None:
    code, sentence = refusal(lambda: detect(agent.stub(), inline_request("classifier", grey(0, 64, 96))))
    assert code == INVALID
    assert "64 x 96" in sentence and "96 x 64" in sentence


@pytest.mark.parametrize("count", [0, 1, WIDTH * HEIGHT * 3 - 1, WIDTH * HEIGHT * 3 + 1, WIDTH * HEIGHT * 4])
def test_a_wrong_number_of_bytes_is_refused_and_names_the_right_one(agent: AgentProcess, count: int) -> None:
    bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=bytes(count))
    request = wire.DetectAnomaliesRequest(model_component="any-size", bitmap=bitmap)
    code, sentence = refusal(lambda: detect(agent.stub(), request))
    assert code == INVALID
    assert str(WIDTH * HEIGHT * 3) in sentence and str(count) in sentence


def test_an_image_without_data_is_refused(agent: AgentProcess) -> None:
    request = wire.DetectAnomaliesRequest(model_component="any-size", bitmap=wire.Bitmap(width=64, height=64))
    assert refusal(lambda: detect(agent.stub(), request))[0] == INVALID


@pytest.mark.parametrize(
    "name", ["/no-such-segment", "..", "/", "", "../etc/passwd", "a/b", "a\0b", ".hidden", "n" * 300]
)
def test_segments_that_cannot_be_used_are_refused(agent: AgentProcess, name: str) -> None:
    code, sentence = refusal(lambda: detect(agent.stub(), segment_request("any-size", WIDTH, HEIGHT, name)))
    assert code == INVALID
    assert "/dev/shm" not in sentence and "\n" not in sentence


def test_a_mask_range_that_is_too_small_or_overlaps_is_refused(agent: AgentProcess) -> None:
    size = WIDTH * HEIGHT * 3
    with segment(bytes(size), 3 * size) as name:
        small = segment_request("any-size", WIDTH, HEIGHT, name, mask_offset=size)
        small.anomaly_mask_params.shared_memory_handle.size = size - 1
        code, sentence = refusal(lambda: detect(agent.stub(), small))
        assert code == INVALID and str(size) in sentence and str(size - 1) in sentence
        overlapping = segment_request("any-size", WIDTH, HEIGHT, name, mask_offset=size - 1)
        assert refusal(lambda: detect(agent.stub(), overlapping))[0] == INVALID
        beyond = segment_request("any-size", WIDTH, HEIGHT, name, mask_offset=2 * size + 1)
        assert refusal(lambda: detect(agent.stub(), beyond))[0] == INVALID
        assert Path("/dev/shm", name.removeprefix("/")).stat().st_size == 3 * size


def test_no_segment_stays_open_and_none_grows_under_a_truncation_storm(agent: AgentProcess) -> None:
    """Row B7 and B8 in short: the owner shrinks, grows and re-creates the segment all the while."""
    size = WIDTH * HEIGHT * 3
    calls, stop = 300, threading.Event()
    before = open_descriptors(agent)
    with segment(bytes(size), 2 * size) as name:
        path = Path("/dev/shm", name.removeprefix("/"))

        def storm() -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                os.truncate(path, (0, size // 2, 2 * size, size + 1)[turn % 4])

        shaking = threading.Thread(target=storm)
        shaking.start()
        workers, stub = agent.worker_pids(), agent.stub()
        codes = set()
        try:
            for _ in range(calls):
                request = segment_request("any-size", WIDTH, HEIGHT, name, mask_offset=size)
                try:
                    detect(stub, request)
                    codes.add(grpc.StatusCode.OK)
                except grpc.RpcError as error:
                    codes.add(error.code())
        finally:
            stop.set()
            shaking.join()
        assert path.stat().st_size <= 2 * size
    assert codes <= {grpc.StatusCode.OK, INVALID}
    assert INVALID in codes  # the storm was felt
    assert agent.worker_pids() == workers  # nobody died
    assert open_descriptors(agent) == before


def open_descriptors(agent: AgentProcess) -> int:
    """Descriptors to segments that the agent and its workers hold."""
    count = 0
    for pid in [agent.running.pid, *agent.worker_pids()]:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                count += str(link.readlink()).startswith("/dev/shm")
            except FileNotFoundError:
                continue
    return count


def test_response_metadata_tells_what_answered_and_how_long_each_step_took(agent: AgentProcess) -> None:
    _, call = agent.stub().DetectAnomalies.with_call(inline_request("classifier", grey(0)), timeout=PATIENCE)
    told = {key: value for key, value in call.trailing_metadata() if key.startswith("edge-agent-")}
    assert told.pop("edge-agent-model-version") == "1.0.0"
    assert told.pop("edge-agent-runtime").startswith("ONNX Runtime ")
    assert told.pop("edge-agent-device") == "CPU"
    assert told.pop("edge-agent-model-arn") == describe(agent.stub(), "classifier").lookout_vision_model_arn
    steps = {"waiting", "preprocessing", "inferring", "postprocessing"}
    assert {key: float(value) >= 0 for key, value in told.items()} == {f"edge-agent-{step}-ms": True for step in steps}


def test_images_in_messages_beyond_the_agents_memory_for_them_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with AgentProcess("--message-memory", "64") as agent:
        slow = make_package(tmp_path / "slow", task="classification", model=slow_model(), any_size=True)
        agent.run_model("slow", slow)
        stub = agent.stub()
        request = inline_request("slow", grey(200, 4096, 2048))  # 24 MiB; two of them, and the third is too much
        calls = [stub.DetectAnomalies.future(request, timeout=3 * PATIENCE) for _ in range(3)]
        failures = [call.exception() for call in calls]
        (refused,) = [failure for failure in failures if failure is not None]
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "64 MiB" in refused.details() and "shared memory" in refused.details()
        # All of it is given back, and small images are never refused.
        assert stub.DetectAnomalies(inline_request("slow", grey(0, 4096, 2048)), timeout=PATIENCE)
