"""Clients as they were published for the original agent, in code of our own that behaves like them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.agent_process import (
    RECONNECT,
    AgentProcess,
    answers,
    detect,
    inline_request,
    names,
    refusal,
    status,
    wait_for,
)
from tests.support.checkout import ROOT
from tests.support.packages import HEIGHT, WIDTH, grey, make_package

GSTREAMER_SEGMENT = "/gstreamer-lookoutvision-bitmap"


@pytest.fixture
def fresh() -> Iterator[AgentProcess]:
    with AgentProcess() as agent:
        yield agent


def spotted(width: int, height: int) -> np.ndarray:
    pixels = grey(255, width, height)
    pixels[20:40, 10:50] = 0
    return pixels


def test_an_overlay_client_finds_what_it_draws(agent: AgentProcess) -> None:
    """It needs a mask of h*w*3 bytes when anomalous, skips 'background', and takes areas for fractions."""
    pixels = spotted(WIDTH, HEIGHT)
    result = detect(agent.stub(), inline_request("any-size", pixels))
    assert result.is_anomalous
    mask = np.frombuffer(result.anomaly_mask.byte_data, np.uint8).reshape(pixels.shape)
    drawn = {}
    for anomaly in result.anomalies:
        if anomaly.name == "background" or anomaly.pixel_anomaly.total_percentage_area <= 0.01:
            continue
        assert re.fullmatch("#[0-9A-F]{6}", anomaly.pixel_anomaly.hex_color)
        color = np.frombuffer(bytes.fromhex(anomaly.pixel_anomaly.hex_color[1:]), np.uint8)
        drawn[anomaly.name] = (mask == color).all(axis=2)
    assert list(drawn) == ["anomaly"]
    assert np.array_equal(drawn["anomaly"], pixels[:, :, 0] == 0)


class GStreamerElement:
    """Ignores what StartModel says, polls DescribeModel, sends row-padded frames, by message or through one segment.

    The segment grows when a larger frame comes and is never smaller than it was.
    """

    def __init__(self, stub: EdgeAgentStub) -> None:
        self._stub = stub
        self._path = Path("/dev/shm", GSTREAMER_SEGMENT.removeprefix("/"))

    def start(self, component: str) -> None:
        with suppress(grpc.RpcError):
            self._stub.StartModel(wire.StartModelRequest(model_component=component))
        wait_for("RUNNING", lambda: status(self._stub, component) == wire.RUNNING)

    def send(self, component: str, pixels: np.ndarray, through_segment: bool) -> wire.DetectAnomalyResult:
        height, width = pixels.shape[:2]
        row = -(-width * 3 // 4) * 4
        frame = np.zeros((height, row), np.uint8)
        frame[:, : width * 3] = pixels.reshape(height, width * 3)
        bitmap = wire.Bitmap(width=width, height=height)
        if through_segment:
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
            try:
                size = max(os.fstat(descriptor).st_size, 2 * frame.nbytes)
                os.ftruncate(descriptor, size)
                os.pwrite(descriptor, frame.tobytes(), 0)
            finally:
                os.close(descriptor)
            handle = wire.SharedMemoryHandle(name=GSTREAMER_SEGMENT, offset=0, size=frame.nbytes)
            bitmap.shared_memory_handle.CopyFrom(handle)
        else:
            bitmap.byte_data = frame.tobytes()
        return detect(self._stub, wire.DetectAnomaliesRequest(model_component=component, bitmap=bitmap))

    def close(self) -> None:
        self._path.unlink(missing_ok=True)


def test_a_gstreamer_element_gets_the_same_answer_by_message_and_by_its_growing_segment(agent: AgentProcess) -> None:
    element = GStreamerElement(agent.stub())
    try:
        for _ in range(2):  # the second StartModel is refused, and ignored
            element.start("any-size")
        for width, height in ((501, 375), (97, 66), (641, 481), (64, 64)):
            pixels = spotted(width, height)
            by_message = element.send("any-size", pixels, through_segment=False)
            assert element.send("any-size", pixels, through_segment=True) == by_message
            area = {a.name: a.pixel_anomaly.total_percentage_area for a in by_message.anomalies}
            assert area["anomaly"] == pytest.approx(20 * 40 / (width * height))
    finally:
        element.close()


def test_a_bridge_keeps_one_channel_across_restarts_of_the_agent(fresh: AgentProcess, tmp_path: Path) -> None:
    fresh.run_model("model", make_package(tmp_path / "p"))
    bridge = fresh.stub(RECONNECT)
    for end in ("stop", "kill"):
        assert detect(bridge, inline_request("model", grey(0))).is_anomalous
        getattr(fresh, end)()
        code, details = refusal(lambda: names(bridge))
        assert code == grpc.StatusCode.UNAVAILABLE and details
        fresh.start()
        wait_for("the model", lambda: answers(lambda: status(bridge, "model") == wire.RUNNING))
    assert detect(bridge, inline_request("model", grey(0))).is_anomalous


def test_a_channel_for_every_frame_leaves_nothing_behind(agent: AgentProcess) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{agent.running.pid}/fd").iterdir()))

    before = descriptors()
    for _ in range(30):
        with grpc.insecure_channel(f"unix:{agent.socket}") as channel:
            assert detect(EdgeAgentStub(channel), inline_request("any-size", grey(0))).is_anomalous
    wait_for("the connections to be closed", lambda: descriptors() <= before + 2)


@pytest.mark.parametrize(("channels", "hint"), [(4, "4 channels"), (1, "one channel")])
def test_frames_with_another_number_of_channels_are_refused_with_what_to_do(
    agent: AgentProcess, channels: int, hint: str
) -> None:
    bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=bytes(WIDTH * HEIGHT * channels))
    request = wire.DetectAnomaliesRequest(model_component="any-size", bitmap=bitmap)
    code, details = refusal(lambda: detect(agent.stub(), request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert hint in details and "convert to RGB" in details


OLD_CLIENT = """
import sys

import grpc

import old_pb2 as pb2

with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary(
        "/AWS.LookoutVision.EdgeAgent/DetectAnomalies",
        request_serializer=pb2.DetectAnomaliesRequest.SerializeToString,
        response_deserializer=pb2.DetectAnomaliesResponse.FromString,
    )
    bitmap = pb2.Bitmap(width=96, height=64, byte_data=bytes(96 * 64 * 3))
    result = call(pb2.DetectAnomaliesRequest(model_component="any-size", bitmap=bitmap)).detect_anomaly_result
    print(result.is_anomalous, round(result.confidence, 4), [field.name for field, _ in result.ListFields()])
"""


@pytest.mark.parametrize("without", ["scores", "scores and masks"])
def test_stubs_of_older_copies_of_the_definition_work(
    agent: AgentProcess, wire_python: str, tmp_path: Path, without: str
) -> None:
    """In a process of its own, from the proto with what older copies lack taken out."""
    proto = (ROOT / "protos/edge-agent.proto").read_text()
    gone = ["float anomaly_score", "float anomaly_threshold"]
    if without == "scores and masks":
        gone += ["Bitmap anomaly_mask ", "repeated Anomaly anomalies", "AnomalyMaskParams anomaly_mask_params"]
    for field in gone:
        proto, count = re.subn(rf"^ *{re.escape(field)}.*\n", "", proto, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "old.proto").write_text(proto)
    subprocess.run(
        [wire_python, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "old.proto"], check=True, cwd=tmp_path
    )
    (tmp_path / "client.py").write_text(OLD_CLIENT)
    client = [sys.executable, "client.py", f"unix:{agent.socket}"]
    printed = subprocess.run(client, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30).stdout
    fields = ["is_anomalous", "confidence"]
    fields += [] if "masks" in without else ["anomaly_mask", "anomalies"]
    assert printed.strip() == f"True 1.0 {fields}"
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
