"""The gRPC server: limits, threads, address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from agent.images.bitmap import MAX_BYTES
from agent.rpc.error_status import RefusalsToStatus
from agent.rpc.health import Health
from agent.rpc.service import MAX_CALLS, EdgeAgent
from agent.rpc.socket_claim import SocketClaim
from agent.rpc.thread_pools import answer_in_pool
from agent.wire.edge_agent_pb2_grpc import add_EdgeAgentServicer_to_server

ENVELOPE = 64 * 1024
"""Bytes of a request beyond its pixels: names, sizes, handles."""
DETECT_THREADS = MAX_CALLS + 16
"""More than may be in hand: a call that must be refused gets a thread, and its refusal at once."""
DESCRIBE_THREADS = 4
LIFECYCLE_THREADS = 8
"""StopModel waits for calls in hand, so describing has threads of its own."""

OPTIONS: list[tuple[str, Any]] = [
    # On purpose not unlimited: the largest image and its envelope.
    ("grpc.max_receive_message_length", MAX_BYTES + ENVELOPE),
    # A mask may be as large as its image.
    ("grpc.max_send_message_length", MAX_BYTES + ENVELOPE),
]


def make_server(service: EdgeAgent, health: Health) -> grpc.Server:
    """A server for `service`, with health and reflection, not bound to any address yet."""
    # Control calls never wait behind inference.
    describing = ThreadPoolExecutor(DESCRIBE_THREADS, thread_name_prefix="describe")
    lifecycle = ThreadPoolExecutor(LIFECYCLE_THREADS, thread_name_prefix="lifecycle")
    for method, pool in (
        ("DescribeModel", describing),
        ("ListModels", describing),
        ("StartModel", lifecycle),
        ("StopModel", lifecycle),
    ):
        answer_in_pool(service, method, pool)
    server = grpc.server(
        ThreadPoolExecutor(DETECT_THREADS, thread_name_prefix="detect"),
        interceptors=[RefusalsToStatus()],
        options=OPTIONS,
    )
    add_EdgeAgentServicer_to_server(service, server)
    health.add_to(server, describing)
    return server


def serve_at(server: grpc.Server, claim: SocketClaim, mode: int, group: int | None) -> None:
    """Binds `server` to the claimed socket, starts it, and lets clients in."""
    with claim.binding() as address:
        server.add_insecure_port(address)
    server.start()
    claim.publish(mode, group)
