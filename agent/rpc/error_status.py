"""From refusal to status code: one table, and the one place that aborts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc

from agent import errors
from agent.errors import Refusal
from agent.rpc.call_counts import CallCounts

log = logging.getLogger(__name__)

STATUS_OF: dict[type[Refusal], grpc.StatusCode] = {
    errors.BadInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.MoveNotAllowed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AgentStops: grpc.StatusCode.UNAVAILABLE,
    errors.TooManyCalls: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.TooManyBytes: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotEnoughMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoMemoryToLoad: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoRoomForMask: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.CallerGone: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ModelCrashed: grpc.StatusCode.INTERNAL,
    errors.ImageRefused: grpc.StatusCode.INTERNAL,
    errors.AnswerNotFinite: grpc.StatusCode.INTERNAL,
    errors.BadPackage: grpc.StatusCode.INTERNAL,
    errors.GpuFailed: grpc.StatusCode.INTERNAL,
    errors.LoadTimedOut: grpc.StatusCode.INTERNAL,
    errors.Unexpected: grpc.StatusCode.INTERNAL,
}
"""A refusal has the status of its own class or of the nearest base class listed here. (CallerGone is never seen by a
client: nobody waits for it any more, and gRPC has answered DEADLINE_EXCEEDED or CANCELLED in our place.)"""


def status_of(refusal: type[Refusal]) -> grpc.StatusCode:
    """Raises KeyError where neither the class nor a base is in the table; a test shows that it is complete."""
    for kind in refusal.__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    raise KeyError(refusal)


class RefusalsToStatus(grpc.ServerInterceptor):
    """Turns refusals into status codes. Services never abort: aborting raises, and would come out INTERNAL here."""

    def __init__(self, counts: CallCounts) -> None:
        """`counts`: where answers of any kind are counted."""
        self._counts = counts

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:  # an unknown method
            return handler
        behaviour, method = handler.unary_unary, handler_call_details.method

        # `wraps` carries the attributes over, the method's own thread pool among them.
        @functools.wraps(behaviour)
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                response = behaviour(request, context)
            except tuple(STATUS_OF) as refusal:  # and what derives from these
                code, sentence = status_of(type(refusal)), str(refusal)
            except Exception:
                log.exception("%s failed", method)
                unexpected = errors.Unexpected()
                code, sentence = status_of(type(unexpected)), str(unexpected)
            else:
                self._counts.add(method, grpc.StatusCode.OK.name)
                return response
            self._counts.add(method, code.name)
            log.log(_severity(code), "%s: %s: %s", method, code.name, sentence)
            context.abort(code, sentence)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _severity(code: grpc.StatusCode) -> int:
    return logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.INFO
