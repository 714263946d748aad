"""Starting, stopping, crashing, updating: what clients see of a model's life."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import (
    RECONNECT,
    AgentProcess,
    answers,
    describe,
    detect,
    inline_request,
    names,
    processor_time,
    refusal,
    status,
    wait_for,
)
from tests.support.packages import grey, make_package, slow_model

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def fresh() -> Iterator[AgentProcess]:
    with AgentProcess() as agent:
        yield agent


def test_the_way_of_the_developer_guide(fresh: AgentProcess, tmp_path: Path) -> None:
    """Describe, start, describe again at once and give up on anything unexpected, detect, stop; default options."""
    fresh.register("model", make_package(tmp_path / "p"))
    stub = fresh.stub()
    wait_for("the model to be listed", lambda: names(stub) == ["model"])
    assert status(stub, "model") == wire.STOPPED
    assert stub.StartModel(wire.StartModelRequest(model_component="model")).status == wire.STARTING
    while True:
        now = status(stub, "model")
        assert now in (wire.RUNNING, wire.STARTING, wire.STOPPED)
        if now == wire.RUNNING:
            break
        time.sleep(0.02)
    message = describe(stub, "model").status_message
    assert "1.0.0" in message and "ONNX Runtime" in message and "CPU" in message
    assert detect(stub, inline_request("model", grey(0))).is_anomalous
    assert stub.StopModel(wire.StopModelRequest(model_component="model")).status == wire.STOPPED
    assert status(stub, "model") == wire.STOPPED
    assert fresh.worker_pids() == []  # its memory is given back


def test_calls_in_the_wrong_state_are_refused_by_name_and_state(fresh: AgentProcess, tmp_path: Path) -> None:
    stub = fresh.stub()
    fresh.register("model", make_package(tmp_path / "p"))
    wait_for("the model to be listed", lambda: names(stub) == ["model"])
    assert refusal(lambda: detect(stub, inline_request("model", grey(0)))) == (
        PRECONDITION,
        'Model "model" is STOPPED, not RUNNING.',
    )
    assert refusal(lambda: stub.StopModel(wire.StopModelRequest(model_component="model")))[0] == PRECONDITION
    fresh.run_model("model", tmp_path / "p")
    assert refusal(lambda: stub.StartModel(wire.StartModelRequest(model_component="model"))) == (
        PRECONDITION,
        'Model "model" is RUNNING; only a STOPPED or FAILED model can be started.',
    )


@pytest.mark.parametrize("call", ["DetectAnomalies", "DescribeModel", "StartModel", "StopModel"])
def test_unknown_and_bad_names_are_refused(fresh: AgentProcess, call: str) -> None:
    def send(name: str) -> tuple[grpc.StatusCode, str]:
        request = getattr(wire, f"{call}Request")(model_component=name)
        if call == "DetectAnomalies":
            request = inline_request(name, grey(0))
        return refusal(lambda: getattr(fresh.stub(), call)(request))

    assert send("nobody")[0] == grpc.StatusCode.NOT_FOUND
    for name in ("", "..", "a/b", "a\nFORGED LINE", "%s{}", "n" * 200):
        code, sentence = send(name)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "\n" not in sentence
    assert "\nFORGED" not in fresh.log_text()


def test_a_worker_killed_during_a_call_is_replaced_and_the_call_answered(fresh: AgentProcess, tmp_path: Path) -> None:
    """Row D1 in short; the other model and the control calls answer all the while."""
    fresh.run_model("slow", make_package(tmp_path / "slow", task="classification", model=slow_model()))
    (victim,) = fresh.worker_pids()
    fresh.run_model("other", make_package(tmp_path / "other"))
    stub = fresh.stub()
    with ThreadPoolExecutor(1) as threads:
        worked = processor_time(victim)
        call = threads.submit(detect, stub, inline_request("slow", grey(255)))
        wait_for("the worker to work on the call", lambda: processor_time(victim) > worked + 0.05)
        os.kill(victim, signal.SIGKILL)
        while not call.done():
            assert detect(stub, inline_request("other", grey(0))).is_anomalous
            assert status(stub, "slow") == wire.RUNNING  # a restart is no move
        assert call.result().anomaly_score == 1
    assert victim not in fresh.worker_pids()
    assert "version 1.0.0" in describe(stub, "slow").status_message


def test_a_model_that_fails_its_self_test_is_failed_with_the_reason(fresh: AgentProcess, tmp_path: Path) -> None:
    from agent.packages.manifest import Manifest
    from tests.support.packages import changed

    def wrong(manifest: Manifest) -> Manifest:
        return changed(manifest, self_test=[changed(manifest.self_test[0], score=0.7)])  # type: ignore[arg-type]

    fresh.register("wrong", make_package(tmp_path / "wrong", change=wrong))
    stub = fresh.stub()
    wait_for("the model to be listed", lambda: names(stub) == ["wrong"])
    stub.StartModel(wire.StartModelRequest(model_component="wrong"))
    wait_for("the model to fail", lambda: status(stub, "wrong") == wire.FAILED)
    message = describe(stub, "wrong").status_message
    assert "self-test/good.rgb" in message and "0.7" in message and "0.0" in message
    assert refusal(lambda: detect(stub, inline_request("wrong", grey(0))))[0] == PRECONDITION
    # Mended in place, it can be started again.
    make_package(tmp_path / "right")
    (tmp_path / "wrong").rename(tmp_path / "away")
    (tmp_path / "right").rename(tmp_path / "wrong")
    wait_for("the model to be listed", lambda: names(stub) == ["wrong"])
    fresh.run_model("wrong", tmp_path / "wrong")


def test_a_new_version_takes_over_without_a_failed_call(fresh: AgentProcess, tmp_path: Path) -> None:
    fresh.run_model("model", make_package(tmp_path / "1"))
    stop, failures, answered = threading.Event(), [], []

    def keep_calling() -> None:
        stub = fresh.stub()
        while not stop.is_set():
            try:
                answered.append(detect(stub, inline_request("model", grey(0))).is_anomalous)
            except grpc.RpcError as error:
                failures.append(error)

    clients = [threading.Thread(target=keep_calling) for _ in range(2)]
    for client in clients:
        client.start()
    stub = fresh.stub()
    try:
        for version in ("2.0.0", "3.0.0"):
            fresh.register("model", make_package(tmp_path / version, version=version), version)
            wait_for(version, lambda version=version: f"version {version}," in describe(stub, "model").status_message)
            assert status(stub, "model") == wire.RUNNING
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not failures
    assert all(answered)
    wait_for("the old workers to leave", lambda: len(fresh.worker_pids()) == 1)


def test_a_bad_new_version_leaves_the_old_one_serving(fresh: AgentProcess, tmp_path: Path) -> None:
    fresh.run_model("model", make_package(tmp_path / "1"))
    bad = make_package(tmp_path / "2", version="2.0.0")
    (bad / "model.onnx").write_bytes(b"something else")
    fresh.register("model", bad, "2.0.0")
    stub = fresh.stub()
    wait_for("the reason", lambda: "does not take over" in describe(stub, "model").status_message)
    message = describe(stub, "model").status_message
    assert "version 1.0.0" in message and "model.onnx" in message and "14 bytes" in message
    assert detect(stub, inline_request("model", grey(0))).is_anomalous
    # Even a crash brings the good version back, not the bad one.
    (worker,) = fresh.worker_pids()
    os.kill(worker, signal.SIGKILL)
    assert detect(stub, inline_request("model", grey(0))).is_anomalous


def test_a_model_whose_package_disappears_leaves_the_fleet(fresh: AgentProcess, tmp_path: Path) -> None:
    fresh.run_model("model", make_package(tmp_path / "p"))
    (tmp_path / "p").rename(tmp_path / "gone")
    stub = fresh.stub()
    wait_for("the model to leave", lambda: names(stub) == [])
    assert refusal(lambda: describe(stub, "model"))[0] == grpc.StatusCode.NOT_FOUND
    wait_for("its worker to leave", lambda: fresh.worker_pids() == [])


def test_a_package_that_cannot_be_read_is_listed_with_the_reason(fresh: AgentProcess, tmp_path: Path) -> None:
    package = make_package(tmp_path / "p")
    (package / "manifest.json").write_text('{"format_version": 9}')
    fresh.register("odd", package)
    stub = fresh.stub()
    wait_for("the model to be listed", lambda: names(stub) == ["odd"])
    assert "'format_version' is 9" in describe(stub, "odd").status_message


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_running_runs_again_after_a_restart_of_the_agent(
    fresh: AgentProcess, tmp_path: Path, end: str
) -> None:
    package = make_package(tmp_path / "p")
    for component in ("runs", "stopped"):
        fresh.run_model(component, package)
    fresh.stub().StopModel(wire.StopModelRequest(model_component="stopped"))
    getattr(fresh, end)()
    fresh.start()
    stub = fresh.stub(RECONNECT)
    wait_for("the model to run again", lambda: answers(lambda: status(stub, "runs") == wire.RUNNING))
    assert status(stub, "stopped") == wire.STOPPED


def test_models_start_by_themselves_where_the_setting_says_so(tmp_path: Path) -> None:
    with AgentProcess("--auto-start", "true") as agent:
        agent.register("model", make_package(tmp_path / "p"))
        stub = agent.stub()
        wait_for("the model to run", lambda: names(stub) == ["model"] and status(stub, "model") == wire.RUNNING)


def test_control_calls_answer_while_every_slot_is_taken(fresh: AgentProcess, tmp_path: Path) -> None:
    fresh.run_model("slow", make_package(tmp_path / "slow", task="classification", model=slow_model()))
    with ThreadPoolExecutor(32) as threads:
        calls = [threads.submit(detect, fresh.stub(), inline_request("slow", grey(60))) for _ in range(32)]
        stub, slowest = fresh.stub(), 0.0
        codes = set()
        while not all(call.done() for call in calls):
            begin = time.monotonic()
            assert status(stub, "slow") == wire.RUNNING
            slowest = max(slowest, time.monotonic() - begin)
        for call in calls:
            try:
                call.result()
                codes.add(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.add(error.code())
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}  # 2 in flight + 16 waiting of 32
    assert slowest < 1  # no latency test: without threads of its own a control call took as long as the queue, 3 s
