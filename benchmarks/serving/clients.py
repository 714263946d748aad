"""Clients of the agent and of a peer, one connection each.

Each keeps its segment, or its message, from call to call and writes no new picture into it: how the camera's picture
gets there costs every contender the same, the floor too, which reads from such a segment. What a call costs in the
client counts: a message is put on the wire, an answer is parsed.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc

from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from benchmarks.serving.model import picture
from benchmarks.serving.orders import MakeCall, Order, Verdict
from benchmarks.serving.segment import picture_in_segment

PATIENCE = 60.0
"""Seconds that a call may take at most."""
OPTIONS = [
    # Clients of one process would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # A mask is as large as its picture.
    ("grpc.max_receive_message_length", -1),
]


@contextmanager
def segment_client(order: Order) -> Iterator[MakeCall]:
    """Pixels, and the mask, by shared memory."""
    with picture_in_segment(order.width, order.height) as path, _stub(order) as stub:
        size = order.width * order.height * 3
        image = wire.SharedMemoryHandle(name=path.name, size=size)
        mask = wire.SharedMemoryHandle(name=path.name, size=size, offset=size)
        request = wire.DetectAnomaliesRequest(
            model_component=order.component,
            bitmap=wire.Bitmap(width=order.width, height=order.height, shared_memory_handle=image),
            anomaly_mask_params=wire.AnomalyMaskParams(shared_memory_handle=mask),
        )
        yield lambda: _detect(stub, request)


@contextmanager
def message_client(order: Order) -> Iterator[MakeCall]:
    """Pixels, and the mask, in the message."""
    pixels = picture(order.width, order.height).tobytes()
    request = wire.DetectAnomaliesRequest(
        model_component=order.component,
        bitmap=wire.Bitmap(width=order.width, height=order.height, byte_data=pixels),
    )
    with _stub(order) as stub:
        yield lambda: _detect(stub, request)


@contextmanager
def describe_client(order: Order) -> Iterator[MakeCall]:
    """Asks how the model is."""
    request = wire.DescribeModelRequest(model_component=order.component)
    with _stub(order) as stub:

        def call() -> Verdict:
            stub.DescribeModel(request, timeout=PATIENCE)
            return Verdict(0.0)

        yield call


@contextmanager
def fastapi_client(order: Order) -> Iterator[MakeCall]:
    """Pixels as the body of an HTTP request, by Python's own client: it has less to do than httpx or requests."""
    connection = _UnixConnection(order.address)
    body = picture(order.width, order.height).tobytes()
    path = f"/detect?width={order.width}&height={order.height}"

    def call() -> Verdict:
        connection.request("POST", path, body, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        content = response.read()
        if response.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"{response.status} {response.reason}")
        return Verdict(json.loads(content)["score"])

    try:
        yield call
    finally:
        connection.close()


CLIENTS: dict[str, Callable[[Order], AbstractContextManager[MakeCall]]] = {
    "segment": segment_client,
    "message": message_client,
    "describe": describe_client,
    "fastapi": fastapi_client,
}


@contextmanager
def _stub(order: Order) -> Iterator[EdgeAgentStub]:
    with grpc.insecure_channel(f"unix:{order.address}", options=OPTIONS) as channel:
        yield EdgeAgentStub(channel)


def _detect(stub: EdgeAgentStub, request: wire.DetectAnomaliesRequest) -> Verdict:
    try:
        result = stub.DetectAnomalies(request, timeout=PATIENCE).detect_anomaly_result
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Verdict(0.0, is_refusal=True)
        raise
    anomalies = sum(found.pixel_anomaly.total_percentage_area for found in result.anomalies[1:])
    return Verdict(result.anomaly_score, anomalies)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = Path(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
