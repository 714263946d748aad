"""The connection to the nucleus: kept up, and never in the agent's way."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from agent.greengrass import nucleus as nucleus_module
from agent.greengrass.connection import NucleusGone, NucleusRefuses
from agent.greengrass.nucleus import nucleus_of, pause_after
from tests.support.agent_process import wait_for
from tests.support.nucleus import Nucleus

PATIENCE = 10.0
Configurations = queue.Queue[Mapping[str, Any]]


@contextmanager
def followed(nucleus: Nucleus, **limits: float) -> Iterator[tuple[nucleus_module.Nucleus, Configurations]]:
    """A component's side of `nucleus`, and the configurations it is told; pauses are short."""
    from agent.greengrass.ipc import IpcConnection

    token, socket = nucleus.environment.values()
    told: Configurations = queue.Queue()
    followed = nucleus_module.Nucleus(
        lambda wake: IpcConnection(socket, token, wake, **limits), told.put, pause=lambda failures: 0.02
    )
    followed.start()
    try:
        yield followed, told
    finally:
        followed.stop()


def queue_length(told: Configurations) -> int:
    """Of the next configuration."""
    return int(float(told.get(timeout=PATIENCE)["QueueLength"]))


def never() -> bool:
    return False


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_configuration_is_read_and_followed(nucleus: Nucleus) -> None:
    with followed(nucleus) as (component, told):
        assert component.wait_for_configuration(PATIENCE, never)
        assert queue_length(told) == 3
        for length in (4, 5):
            nucleus.change(QueueLength=length)
            assert queue_length(told) == length
        nucleus.reset("QueueLength")
        assert "QueueLength" not in told.get(timeout=PATIENCE)
    wait_for("the connection to end", lambda: nucleus.clients == 0)


def test_the_state_is_reported_once_clients_can_call_and_again_after_a_reconnection(nucleus: Nucleus) -> None:
    with followed(nucleus) as (component, told):
        assert queue_length(told) == 3
        assert nucleus.states == []
        component.report_running()
        component.report_running()
        wait_for("the report", lambda: nucleus.states != [])
        nucleus.change(QueueLength=4)
        assert queue_length(told) == 4
        assert nucleus.states == ["RUNNING"]
        nucleus.stop()
        nucleus.start()
        wait_for("the next report", lambda: len(nucleus.states) > 1)
    assert nucleus.states == ["RUNNING", "RUNNING"]  # and nothing at the end


def test_after_each_restart_of_the_nucleus_it_is_followed_again(
    nucleus: Nucleus, caplog: pytest.LogCaptureFixture
) -> None:
    with followed(nucleus) as (_, told):
        assert queue_length(told) == 3
        for restart in range(1, 6):
            nucleus.stop()
            nucleus.change(QueueLength=2 * restart)  # missed, but for the reading at reconnection
            nucleus.start()
            assert queue_length(told) == 2 * restart
            nucleus.change(QueueLength=2 * restart + 1)
            assert queue_length(told) == 2 * restart + 1
    assert nucleus.calls.count("SubscribeToConfigurationUpdate") == 6


def test_a_nucleus_that_stays_away_is_one_line(nucleus: Nucleus, caplog: pytest.LogCaptureFixture) -> None:
    tries: queue.SimpleQueue[int] = queue.SimpleQueue()

    def pause(failures: int) -> float:
        tries.put(failures)
        return 0.001

    nucleus.stop()
    from agent.greengrass.ipc import IpcConnection

    component = nucleus_module.Nucleus(
        lambda wake: IpcConnection(str(nucleus.socket), "token", wake), lambda _: None, pause
    )
    component.start()
    assert [tries.get(timeout=PATIENCE) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert not component.wait_for_configuration(0.0, never)
    component.stop()
    (line,) = lines(caplog)
    assert line.startswith("no connection to the nucleus: ") and line.endswith("; trying again")


def test_an_unknown_component_is_told_so_and_let_in_once_it_is_known(
    nucleus: Nucleus, caplog: pytest.LogCaptureFixture
) -> None:
    nucleus.know_nobody()
    with followed(nucleus) as (component, told):
        wait_for("the line", lambda: lines(caplog) != [])
        # A refusal is an answer; from lite it looks like a nucleus that restarts, and is worth waiting for.
        assert component.wait_for_configuration(0.0 if nucleus.is_lite else PATIENCE, never) != nucleus.is_lite
        assert told.empty()
        nucleus.answer_again()
        assert queue_length(told) == 3
    (line,) = lines(caplog)
    if nucleus.is_lite:
        assert line.startswith("no connection to the nucleus: it ended the connection before it accepted it")
    else:
        assert line.startswith("the nucleus refuses this component: AccessDeniedError ")


@pytest.mark.parametrize("error", ["UnauthorizedError", "ServiceError", "NoErrorAnybodyKnows"])
@pytest.mark.parametrize(
    ("operation", "sentence"),
    [
        ("GetConfiguration", "the configuration is not read"),
        ("SubscribeToConfigurationUpdate", "the configuration is not followed"),
        ("UpdateState", "the component's state is not reported"),
    ],
)
def test_what_is_refused_is_a_line_and_the_rest_goes_on(
    nucleus: Nucleus, operation: str, sentence: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    nucleus.refuse(operation, error)
    with followed(nucleus) as (component, told):
        component.report_running()
        assert component.wait_for_configuration(PATIENCE, never)
        wait_for("the line", lambda: lines(caplog) != [])
        wait_for("the state to be reported", lambda: "UpdateState" in nucleus.calls)
        (line,) = lines(caplog)
        assert line.startswith(f"{sentence}: the nucleus answers ")
        assert (error in line) or error == "NoErrorAnybodyKnows"
        assert told.empty() == (operation == "GetConfiguration")
        assert nucleus.clients == 1
        if operation != "SubscribeToConfigurationUpdate":
            nucleus.answer_again()
            nucleus.change(QueueLength=4)
            wait_for("the change", lambda: not told.empty() and queue_length(told) == 4)


@pytest.mark.parametrize("operation", ["GetConfiguration", "SubscribeToConfigurationUpdate", "UpdateState"])
def test_a_nucleus_without_an_answer_is_left_and_tried_again(
    nucleus: Nucleus, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    nucleus.never_answer(operation)
    with followed(nucleus, answer_limit=0.1) as (component, told):
        component.report_running()
        wait_for("the line", lambda: "no answer within 0.1 s" in caplog.text)
        nucleus.answer_again()
        wait_for("the report", lambda: nucleus.states != [])
        assert queue_length(told) == 3
        assert nucleus.clients == 1


def test_a_nucleus_that_takes_connections_and_hangs_is_left_and_tried_again(
    nucleus: Nucleus, caplog: pytest.LogCaptureFixture
) -> None:
    nucleus.accept_nobody()
    with followed(nucleus, connect_limit=0.1) as (component, told):
        wait_for("the line", lambda: "no answer within 0.1 s" in caplog.text)
        assert not component.wait_for_configuration(0.0, never)
        nucleus.answer_again()
        assert queue_length(told) == 3


def test_connections_that_are_given_up_are_ended(nucleus: Nucleus) -> None:
    from agent.greengrass.ipc import IpcConnection

    nucleus.accept_nobody()
    for _ in range(5):
        with pytest.raises(NucleusGone):
            IpcConnection(str(nucleus.socket), "token", lambda: None, connect_limit=0.01)
    wait_for("them to end", lambda: nucleus.connections == 0)


def test_a_component_without_configuration_has_an_empty_one(nucleus: Nucleus) -> None:
    nucleus.refuse("GetConfiguration", "ResourceNotFoundError")
    with followed(nucleus) as (_, told):
        assert told.get(timeout=PATIENCE) == {}


@pytest.mark.parametrize("answer", [{}, {"value": None}, {"value": []}, {"value": "text"}, {"value": 1.5}])
def test_a_configuration_that_is_no_object_is_a_line(
    nucleus: Nucleus, answer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    nucleus.answer("GetConfiguration", answer)
    with followed(nucleus) as (component, told):
        assert component.wait_for_configuration(PATIENCE, never)
        nucleus.answer_again()
        nucleus.change(QueueLength=4)
        assert queue_length(told) == 4
    assert lines(caplog) == ["the configuration is not read: the nucleus answers with something that is no object"]


def test_a_stream_that_the_nucleus_ends_is_subscribed_again(nucleus: Nucleus) -> None:
    with followed(nucleus) as (_, told):
        assert queue_length(told) == 3
        nucleus.end_streams()
        assert queue_length(told) == 3
        nucleus.change(QueueLength=4)
        assert queue_length(told) == 4


def test_many_changes_at_once_end_with_the_last(nucleus: Nucleus) -> None:
    with followed(nucleus) as (_, told):
        for length in range(200):
            nucleus.change(QueueLength=length)
        wait_for("the last", lambda: queue_length(told) == 199)


def test_what_fails_in_the_agent_itself_is_logged_and_tried_again(
    nucleus: Nucleus, caplog: pytest.LogCaptureFixture
) -> None:
    from agent.greengrass.ipc import IpcConnection

    failures, told = iter([True, False]), queue.SimpleQueue[Any]()

    def on_configuration(configuration: Mapping[str, object]) -> None:
        if next(failures):
            raise KeyError("a defect")
        told.put(configuration)

    token, socket = nucleus.environment.values()
    component = nucleus_module.Nucleus(
        lambda wake: IpcConnection(socket, token, wake), on_configuration, lambda failures: 0.01
    )
    component.start()
    assert told.get(timeout=PATIENCE)
    component.stop()
    assert "talking to the nucleus failed; trying again" in caplog.text and "a defect" in caplog.text


# --- without a nucleus, or without what is needed to talk to one


def refuse_all() -> Callable[..., Any]:
    def connect(wake: object) -> Any:
        raise NucleusRefuses("no")

    return connect


@pytest.mark.parametrize("environment", [{}, {"SVCUID": "token"}, {nucleus_module.SOCKET: "/s"}, {"SVCUID": ""}])
def test_what_is_no_component_is_a_plain_program(environment: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert nucleus_of(environment, lambda configuration: None) is None
    assert caplog.messages == []


def test_a_component_without_the_sdk_is_a_plain_program_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("agent.greengrass.ipc", "awsiot", "awscrt.io"):
        monkeypatch.setitem(sys.modules, name, None)
    environment = {nucleus_module.SOCKET: "/s", nucleus_module.TOKEN: "token"}
    assert nucleus_of(environment, lambda configuration: None) is None
    (line,) = caplog.messages
    assert "the SDK cannot be imported" in line and "vision-edge-agent[greengrass]" in line


def test_pauses_grow_to_a_limit_and_are_never_the_same() -> None:
    for failures, longest in ((0, 0.2), (1, 0.4), (3, 1.6), (8, 30.0), (10**6, 30.0)):
        pauses = {pause_after(failures) for _ in range(50)}
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest
        assert len(pauses) > 10


def test_without_a_thread_to_be_had_it_is_a_plain_program(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    component = nucleus_module.Nucleus(refuse_all(), lambda configuration: None)
    component.start()
    assert component.wait_for_configuration(PATIENCE, never)
    component.report_running()
    component.stop()
    assert caplog.messages == ["the Greengrass configuration is not followed: can't start new thread"]


def test_whoever_waits_for_the_configuration_may_leave_sooner() -> None:
    component = nucleus_module.Nucleus(refuse_all(), lambda configuration: None)
    assert component.wait_for_configuration(PATIENCE, gives_up=lambda: True)
    component.stop()
