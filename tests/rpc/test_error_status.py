"""From refusal to status code: the table is complete, and only the contract's codes come out."""

from __future__ import annotations

import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import grpc
import pytest

import agent.errors
import agent.models
import agent.rpc
import agent.workers
from agent.errors import (
    BadInput,
    CallerGone,
    ModelCrashed,
    ModelNotFound,
    ModelNotRunning,
    NoImage,
    NoRoomForMask,
    QueueFull,
    Refusal,
    Unexpected,
)
from agent.rpc.call_counts import CallCounts
from agent.rpc.error_status import STATUS_OF, RefusalsToStatus, status_of
from agent.rpc.socket_claim import AnotherAgentServes, SocketPathNotUsable

CODES = grpc.StatusCode
OF_THE_CONTRACT = {
    CODES.INVALID_ARGUMENT,
    CODES.NOT_FOUND,
    CODES.RESOURCE_EXHAUSTED,
    CODES.FAILED_PRECONDITION,
    CODES.INTERNAL,
    CODES.UNAVAILABLE,  # a draining agent; otherwise gRPC's own
}
BEFORE_ANY_CALL = {AnotherAgentServes, SocketPathNotUsable}
"""They end the agent before it serves."""
KEPT_INSIDE = {"_CrashedTooOften"}
"""They become a status_message."""
METHOD = "/AWS.LookoutVision.EdgeAgent/DetectAnomalies"


def refusals() -> list[type[Refusal]]:
    """Every refusal that a room below the handlers, or the door itself, defines."""
    modules = [agent.errors]
    for room in (agent.models, agent.rpc, agent.workers):
        names = [module.name for module in pkgutil.iter_modules(room.__path__, room.__name__ + ".")]
        modules += [import_module(name) for name in names]
    found = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Refusal) and kind is not Refusal
    }
    return sorted(found, key=lambda kind: kind.__name__)


REACHING = [kind for kind in refusals() if kind not in BEFORE_ANY_CALL and kind.__name__ not in KEPT_INSIDE]


@pytest.mark.parametrize("kind", REACHING)
def test_every_refusal_that_can_reach_a_handler_has_a_code_of_the_contract(kind: type[Refusal]) -> None:
    code = status_of(kind)
    if kind is CallerGone:  # nobody sees it: gRPC has answered already
        assert code is CODES.DEADLINE_EXCEEDED
    else:
        assert code in OF_THE_CONTRACT


def test_the_table_names_only_refusals_there_are_and_only_codes_of_the_contract() -> None:
    assert set(STATUS_OF) <= set(refusals())
    assert set(STATUS_OF.values()) - {CODES.DEADLINE_EXCEEDED} == OF_THE_CONTRACT


@pytest.mark.parametrize("kind", [kind for kind in refusals() if issubclass(kind, BadInput)])
def test_every_bad_input_is_an_invalid_argument(kind: type[Refusal]) -> None:
    assert status_of(kind) is CODES.INVALID_ARGUMENT


class Calls:
    """A server with the interceptor and one method, which does what the test says."""

    def __init__(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.behaviour: Callable[[], bytes] = lambda: b"answer"
        self.counts = CallCounts()
        self.server = grpc.server(ThreadPoolExecutor(2), interceptors=[RefusalsToStatus(self.counts)])
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: self.behaviour())
        service, method = METHOD.removeprefix("/").split("/")
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def refusal(self, error: BaseException, method: str = METHOD) -> tuple[grpc.StatusCode, str]:
        def fail() -> bytes:
            raise error

        self.behaviour = fail
        call: Any = self.channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=20)
        return refused.value.code(), refused.value.details()

    def answer(self) -> bytes:
        self.behaviour = lambda: b"answer"
        call: Any = self.channel.unary_unary(METHOD)
        return bytes(call(b"", timeout=20))


@pytest.fixture(scope="module")
def calls() -> Iterator[Calls]:
    calls = Calls()
    yield calls
    calls.channel.close()
    calls.server.stop(None).wait()


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (NoImage(), CODES.INVALID_ARGUMENT),
        (ModelNotFound("bolt"), CODES.NOT_FOUND),
        (ModelNotRunning("bolt", "STARTING"), CODES.FAILED_PRECONDITION),
        (QueueFull("bolt", 16), CODES.RESOURCE_EXHAUSTED),
        (NoRoomForMask(27), CODES.RESOURCE_EXHAUSTED),
        (ModelCrashed("bolt", "its worker ended"), CODES.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_reaches_the_client_as_its_code_and_its_sentence(
    calls: Calls, refusal: Refusal, code: grpc.StatusCode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent")
    assert calls.refusal(refusal) == (code, str(refusal))
    (record,) = caplog.records
    assert record.getMessage() == f"{METHOD}: {code.name}: {refusal}"
    assert record.exc_info is None
    assert record.levelno == (logging.ERROR if code is CODES.INTERNAL else logging.INFO)


@pytest.mark.parametrize("error", [KeyError("/opt/agent/secret"), OSError(28, "No space"), AssertionError("queue")])
def test_an_unexpected_exception_is_internal_with_a_fixed_sentence_and_a_traceback_in_the_log(
    calls: Calls, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert calls.refusal(error) == (CODES.INTERNAL, str(Unexpected()))
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == 1 and traces[0].exc_info is not None
    assert traces[0].exc_info[1] is error
    assert traces[0].getMessage() == f"{METHOD} failed"


def test_a_refusal_without_a_code_is_still_internal_and_not_unknown(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """The table is complete (a test above); should one be forgotten, its words do not leak either."""

    class Forgotten(Refusal):
        pass

    assert calls.refusal(Forgotten("a detail")) == (CODES.INTERNAL, str(Unexpected()))
    assert [record for record in caplog.records if record.exc_info]


def test_an_answer_passes_and_an_unknown_method_is_left_to_grpc(calls: Calls) -> None:
    assert calls.answer() == b"answer"
    assert calls.refusal(ValueError(), "/AWS.LookoutVision.EdgeAgent/Unknown")[0] is CODES.UNIMPLEMENTED


def test_every_answer_is_counted_by_method_and_code_and_unknown_methods_are_not(calls: Calls) -> None:
    before = calls.counts.counts()
    calls.answer()
    calls.refusal(NoImage())
    calls.refusal(QueueFull("bolt", 4))
    calls.refusal(ZeroDivisionError())
    calls.refusal(ValueError(), "/AWS.LookoutVision.EdgeAgent/Unknown")
    after = calls.counts.counts()
    assert {method for method, _ in after} == {"DetectAnomalies"}
    added = {code: count - before.get((method, code), 0) for (method, code), count in after.items()}
    assert {code: count for code, count in added.items() if count} == {
        "OK": 1,
        "INVALID_ARGUMENT": 1,
        "RESOURCE_EXHAUSTED": 1,
        "INTERNAL": 1,
    }


def test_words_beyond_ascii_and_many_of_them_reach_the_client(calls: Calls) -> None:
    sentence = "Größe 検 %s {} 100 % " * 90

    class Wordy(BadInput):
        def __init__(self) -> None:
            super().__init__(sentence)

    assert calls.refusal(Wordy()) == (CODES.INVALID_ARGUMENT, sentence)
