"""The five calls: unpack, one call, pack."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from agent.errors import TooManyCalls
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.rpc import convert
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentServicer

MAX_CALLS = 240
"""DetectAnomalies calls in hand or waiting, of all models together: the queues of a dozen models."""


class EdgeAgent(EdgeAgentServicer):
    """`AWS.LookoutVision.EdgeAgent`. Refusals leave as exceptions; the interceptor turns them into status codes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._places = threading.BoundedSemaphore(MAX_CALLS)

    def DetectAnomalies(
        self, request: wire.DetectAnomaliesRequest, context: grpc.ServicerContext
    ) -> wire.DetectAnomaliesResponse:
        with self._place():
            to_detect = convert.detect_request(request)
            detection = self._fleet.detect(request.model_component, to_detect, _caller(context))
            return convert.detect_response(detection, to_detect)

    def DescribeModel(
        self, request: wire.DescribeModelRequest, context: grpc.ServicerContext
    ) -> wire.DescribeModelResponse:
        model = self._fleet.describe(request.model_component)
        return wire.DescribeModelResponse(model_description=convert.description(model))

    def ListModels(self, request: wire.ListModelsRequest, context: grpc.ServicerContext) -> wire.ListModelsResponse:
        return wire.ListModelsResponse(models=[convert.metadata(model) for model in self._fleet.list()])

    def StartModel(self, request: wire.StartModelRequest, context: grpc.ServicerContext) -> wire.StartModelResponse:
        self._fleet.start(request.model_component)
        return wire.StartModelResponse(status=wire.STARTING)

    def StopModel(self, request: wire.StopModelRequest, context: grpc.ServicerContext) -> wire.StopModelResponse:
        self._fleet.stop(request.model_component)
        return wire.StopModelResponse(status=wire.STOPPED)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the agent's places for calls; without it, many busy models would take every thread."""
        if not self._places.acquire(blocking=False):
            raise TooManyCalls(MAX_CALLS)
        try:
            yield
        finally:
            self._places.release()


def _caller(context: grpc.ServicerContext) -> Caller:
    remaining = context.time_remaining()
    caller = Caller(None if remaining is None else time.monotonic() + remaining)
    # False: the call has ended already.
    if not context.add_callback(caller.leave):
        caller.leave()
    return caller
