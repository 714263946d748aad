"""The standard gRPC health service, for the agent and for every model, and reflection: standard tools work as they are.

Service names: empty and `AWS.LookoutVision.EdgeAgent` for the agent itself, a component's name for a model. A model is
SERVING only while it would answer an image now: not while it loads, not while a worker that died is being replaced.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent.rpc.thread_pools import answered_in_pool
from agent.wire import edge_agent_pb2 as wire

EDGE_AGENT = wire.DESCRIPTOR.services_by_name["EdgeAgent"].full_name
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

MOST_WATCHERS = 32
"""Calls of Watch that are answered at the same time, a thread each; one more waits until another ends."""


class Health:
    """What the health service says."""

    def __init__(self) -> None:
        # By threads of their own: the servicer's other way of answering watchers sends while it holds its lock, which
        # gRPC's one polling thread wants when a watcher leaves. Two watchers that came and went froze the whole server.
        self._servicer = health.HealthServicer(
            experimental_non_blocking=False,
            experimental_thread_pool=ThreadPoolExecutor(MOST_WATCHERS, thread_name_prefix="health-watch"),
        )
        self._servicer.set(EDGE_AGENT, SERVING)

    def model_changed(self, component: str, can_answer: bool) -> None:
        """A model's readiness; told at every change, from any thread."""
        self._servicer.set(component, SERVING if can_answer else NOT_SERVING)

    def shutting_down(self) -> None:
        """Nothing is SERVING from now on."""
        self._servicer.enter_graceful_shutdown()

    def add_to(self, server: grpc.Server, pool: ThreadPoolExecutor) -> None:
        """Registers health and reflection; health is answered by `pool`, whatever the models are doing."""
        self._servicer.Check = answered_in_pool(self._servicer.Check, pool)  # type: ignore[method-assign,assignment]
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        reflection.enable_server_reflection((EDGE_AGENT, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
