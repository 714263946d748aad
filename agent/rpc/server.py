"""The gRPC server: limits, threads, address."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import Message

from agent.images.bitmap import MAX_BYTES
from agent.rpc.call_counts import CallCounts
from agent.rpc.error_status import RefusalsToStatus
from agent.rpc.health import EDGE_AGENT, Health
from agent.rpc.request_parser import RequestParser
from agent.rpc.service import MAX_CALLS, EdgeAgent
from agent.rpc.socket_claim import SocketClaim
from agent.rpc.thread_pools import ThreadPool, answered_in_pool
from agent.wire import edge_agent_pb2 as wire

ENVELOPE = 64 * 1024
"""Bytes of a request beyond its pixels: names, sizes, handles."""
DETECT_THREADS = MAX_CALLS + 16
"""More than may be in hand: a call that must be refused gets a thread, and its refusal at once."""
DESCRIBE_THREADS = 4
LIFECYCLE_THREADS = 32
"""StopModel waits for calls in hand, so describing has threads of its own, and many models may be stopped at once."""

OPTIONS: list[tuple[str, Any]] = [
    # On purpose not unlimited: the largest image and its envelope.
    ("grpc.max_receive_message_length", MAX_BYTES + ENVELOPE),
    # A mask may be as large as its image.
    ("grpc.max_send_message_length", MAX_BYTES + ENVELOPE),
]


def make_server(service: EdgeAgent, health: Health, parser: RequestParser, counts: CallCounts) -> grpc.Server:
    """A server for `service`, with health and reflection, not bound to any address yet.

    `parser`: reads images in messages, and knows how many bytes of them may be held at once.
    `counts`: where answers are counted.
    """
    # Control calls never wait behind inference.
    describing = ThreadPool(DESCRIBE_THREADS, "describe")
    lifecycle = ThreadPool(LIFECYCLE_THREADS, "lifecycle")
    server = grpc.server(
        ThreadPool(DETECT_THREADS, "detect"),
        interceptors=[RefusalsToStatus(counts)],
        options=OPTIONS,
    )
    handlers = {
        "DetectAnomalies": grpc.unary_unary_rpc_method_handler(service.DetectAnomalies, request_deserializer=parser),
        "DescribeModel": _control(
            service.DescribeModel, wire.DescribeModelRequest, wire.DescribeModelResponse, describing
        ),
        "ListModels": _control(service.ListModels, wire.ListModelsRequest, wire.ListModelsResponse, describing),
        "StartModel": _control(service.StartModel, wire.StartModelRequest, wire.StartModelResponse, lifecycle),
        "StopModel": _control(service.StopModel, wire.StopModelRequest, wire.StopModelResponse, lifecycle),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EDGE_AGENT, handlers),))
    health.add_to(server, describing)
    return server


def _control(
    behaviour: Callable[[Any, grpc.ServicerContext], Any],
    request: type[Message],
    response: type[Message],
    pool: ThreadPoolExecutor,
) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        answered_in_pool(behaviour, pool),
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )


def serve_at(server: grpc.Server, claim: SocketClaim, mode: int, group: int | None) -> None:
    """Binds `server` to the claimed socket, starts it, and lets clients in."""
    with claim.binding() as address:
        server.add_insecure_port(address)
    server.start()
    claim.publish(mode, group)
