"""The five calls: unpack, one call, pack."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from agent.errors import Refusal, TooManyCalls, Unexpected
from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.rpc import convert
from agent.rpc.error_status import STATUS_OF, status_of
from agent.rpc.request_parser import ReceivedRequest
from agent.wire import edge_agent_pb2 as wire

MAX_CALLS = 240
"""DetectAnomalies calls in hand or waiting, of all models together: the queues of a dozen models."""


class EdgeAgent:
    """`AWS.LookoutVision.EdgeAgent`. Refusals leave as exceptions; the interceptor turns them into status codes.

    DetectAnomalies takes what our own parser gives and answers serialised: pixels are not copied for protobuf's sake.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._places = threading.BoundedSemaphore(MAX_CALLS)

    def DetectAnomalies(self, received: ReceivedRequest | Refusal, context: grpc.ServicerContext) -> bytes:
        if isinstance(received, Refusal):
            raise received
        component = received.message.model_component
        with self._counted(component), self._place():
            request = convert.detect_request(received)
            inspection = self._fleet.detect(component, request, _caller(context))
            context.set_trailing_metadata(convert.how_it_came_about(inspection))
            return convert.detect_response(inspection.detection, request)

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
    def _counted(self, component: str) -> Iterator[None]:
        """Has a refusal counted with the model that it kept from an image."""
        try:
            yield
        except tuple(STATUS_OF) as refusal:
            self._count_refusal(component, type(refusal))
            raise
        except Exception:
            self._count_refusal(component, Unexpected)
            raise

    def _count_refusal(self, component: str, kind: type[Refusal]) -> None:
        self._fleet.count_refusal(component, status_of(kind).name, kind.__name__)

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
