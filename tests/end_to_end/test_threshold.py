"""A threshold set on the device, as cameras and people see it: live, kept, reported, taken back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from PIL import Image

from agent import cli
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from tests.support.agent_process import (
    RECONNECT,
    AgentProcess,
    answers,
    describe,
    detect,
    inline_request,
    status,
    wait_for,
)
from tests.support.packages import grey, make_package

IMAGE = grey(102)
"""Its score is 0.6: anomalous by the package's threshold of 0.5."""


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with the component `plate` running, version 1.0.0."""
    with AgentProcess() as agent:
        agent.run_model("plate", make_package(tmp_path / "1"))
        yield agent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess() as agent:
        agent.run_model("plate", make_package(tmp_path_factory.mktemp("packages") / "1"))
        yield agent


@pytest.fixture
def shared(running: AgentProcess) -> Iterator[AgentProcess]:
    """As `fresh`, for tests that leave it as it was but for the threshold."""
    yield running
    tune(running, "--reset")
    stub = running.stub()
    wait_for("the package's threshold", lambda: "threshold" not in describe(stub, "plate").status_message)


def tune(agent: AgentProcess, *arguments: object) -> None:
    assert cli.main(["tune", "plate", *map(str, arguments), "--registry", str(agent.registry)]) == 0


def judged(stub: EdgeAgentStub) -> tuple[bool, float, float]:
    """Verdict, confidence and threshold, on the 4 decimals of the contract."""
    result = detect(stub, inline_request("plate", IMAGE))
    return result.is_anomalous, round(result.confidence, 4), round(result.anomaly_threshold, 4)


ANOMALOUS, NORMAL = (True, 0.6, 0.5), (False, 0.4, 0.62)
"""By the package's threshold, and by 0.62."""


@contextmanager
def a_camera(agent: AgentProcess) -> Iterator[list[tuple[bool, float, float]]]:
    """Calls all the while; every answer is one of the two, none mixes them, and none fails."""
    stop, failures, seen = threading.Event(), list[grpc.RpcError](), list[tuple[bool, float, float]]()

    def keep_calling() -> None:
        stub = agent.stub()
        while not stop.is_set():
            try:
                seen.append(judged(stub))
            except grpc.RpcError as error:
                failures.append(error)

    cameras = [threading.Thread(target=keep_calling) for _ in range(2)]
    for camera in cameras:
        camera.start()
    try:
        yield seen
    finally:
        stop.set()
        for camera in cameras:
            camera.join()
    assert not failures
    assert set(seen) == {ANOMALOUS, NORMAL}


def test_verdicts_flip_while_a_camera_calls_and_no_call_fails(shared: AgentProcess) -> None:
    stub = shared.stub()
    workers = shared.worker_pids()
    with a_camera(shared):
        wait_for("the package's verdict", lambda: judged(stub) == ANOMALOUS)
        for _ in range(2):
            tune(shared, "--threshold", 0.62)
            wait_for("the device's verdict", lambda: judged(stub) == NORMAL)
            tune(shared, "--reset")
            wait_for("the package's verdict again", lambda: judged(stub) == ANOMALOUS)
    assert shared.worker_pids() == workers  # nothing was loaded anew


def test_the_status_message_tells_of_it_and_listing_too(shared: AgentProcess) -> None:
    stub = shared.stub()
    usual = describe(stub, "plate").status_message
    tune(shared, "--threshold", 0.62)
    told = f"{usual}; threshold 0.6200 set on this device, the package says 0.5000"
    wait_for("the message", lambda: describe(stub, "plate").status_message == told)
    (listed,) = stub.ListModels(wire.ListModelsRequest()).models
    assert listed.status_message == told
    tune(shared, "--reset")
    wait_for("the usual message", lambda: describe(stub, "plate").status_message == usual)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_it_outlives_worker_and_agent(fresh: AgentProcess, end: str) -> None:
    tune(fresh, "--threshold", 0.62)
    stub = fresh.stub()
    wait_for("the device's verdict", lambda: judged(stub) == NORMAL)
    (worker,) = fresh.worker_pids()
    os.kill(worker, signal.SIGKILL)
    assert judged(stub) == NORMAL
    getattr(fresh, end)()
    fresh.start()
    stub = fresh.stub(RECONNECT)
    wait_for("the model to run again", lambda: answers(lambda: status(stub, "plate") == wire.RUNNING))
    assert judged(stub) == NORMAL
    assert "threshold 0.6200 set on this device" in describe(stub, "plate").status_message


def test_an_update_brings_its_own_threshold_and_says_so(fresh: AgentProcess, tmp_path: Path) -> None:
    tune(fresh, "--threshold", 0.62)
    stub = fresh.stub()
    wait_for("the device's verdict", lambda: judged(stub) == NORMAL)
    fresh.register("plate", make_package(tmp_path / "2", version="2.0.0"), "2.0.0")
    wait_for("version 2.0.0", lambda: "version 2.0.0," in describe(stub, "plate").status_message)
    assert judged(stub) == ANOMALOUS
    message = describe(stub, "plate").status_message
    assert "the threshold 0.6200 set on this device for version 1.0.0 is not applied to version 2.0.0" in message
    fresh.register("plate", tmp_path / "1")
    wait_for("version 1.0.0", lambda: "version 1.0.0," in describe(stub, "plate").status_message)
    assert judged(stub) == NORMAL


def test_a_file_that_cannot_be_used_leaves_the_packages_threshold_in_force(shared: AgentProcess) -> None:
    stub = shared.stub()
    out_of_range = '{"component": "plate", "version": "1.0.0", "threshold": 7, "set_at": "", "set_by": ""}'
    for count, content in enumerate((out_of_range, "{"), start=1):
        (shared.registry / "nobody.threshold").write_text(content)  # of a component that is not there
        (shared.registry / "plate.threshold").write_text(content)
        wait_for("the message", lambda: "on this device is ignored" in describe(stub, "plate").status_message)
        assert judged(stub) == ANOMALOUS
        tune(shared, "--threshold", 0.62)
        wait_for("the device's verdict", lambda: judged(stub) == NORMAL)
        assert shared.log_text().count("the threshold set on this device is ignored") == count


def test_it_is_tuned_on_what_the_agent_answers(
    shared: AgentProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, shades in (("normal", (250, 153, 102)), ("anomaly", (77, 51))):  # scores .02 .4 .6 and .7 .8
        (tmp_path / kind).mkdir()
        for shade in shades:
            Image.fromarray(grey(shade)).save(tmp_path / kind / f"{shade}.png")
    tune(shared, tmp_path, "--max-false-reject", "0%", "--agent", shared.socket)
    assert "Threshold 0.6490 is set for plate 1.0.0" in capsys.readouterr().out
    stub = shared.stub()
    wait_for("the device's verdict", lambda: judged(stub) == (False, 0.4, 0.649))
    assert detect(stub, inline_request("plate", grey(77))).is_anomalous


def test_it_is_not_tuned_on_answers_of_another_version(
    fresh: AgentProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make_package(tmp_path / "2", version="2.0.0")
    (bad / "model.onnx").write_bytes(b"no model")
    fresh.register("plate", bad, "2.0.0")
    stub = fresh.stub()
    wait_for("the reason", lambda: "does not take over" in describe(stub, "plate").status_message)
    (tmp_path / "normal").mkdir()
    Image.fromarray(grey(250)).save(tmp_path / "normal" / "1.png")
    arguments = ["tune", "plate", str(tmp_path), "--best-f1", "--agent", str(fresh.socket)]
    assert cli.main([*arguments, "--registry", str(fresh.registry)]) == 1
    assert "Version 2.0.0 is registered, but the agent answered with version 1.0.0" in capsys.readouterr().err
    assert not (fresh.registry / "plate.threshold").exists()
