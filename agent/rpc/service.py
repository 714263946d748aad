"""The five calls: unpack, one call, pack."""

from __future__ import annotations

import time

import grpc

from agent.models.admission import Caller
from agent.models.fleet import Fleet
from agent.rpc import convert
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentServicer


class EdgeAgent(EdgeAgentServicer):
    """`AWS.LookoutVision.EdgeAgent`. Refusals leave as exceptions; the interceptor turns them into status codes."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def DetectAnomalies(
        self, request: wire.DetectAnomaliesRequest, context: grpc.ServicerContext
    ) -> wire.DetectAnomaliesResponse:
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


def _caller(context: grpc.ServicerContext) -> Caller:
    remaining = context.time_remaining()
    caller = Caller(None if remaining is None else time.monotonic() + remaining)
    # False: the call has ended already.
    if not context.add_callback(caller.leave):
        caller.leave()
    return caller
