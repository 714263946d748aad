"""The agent as a Greengrass component: what it does with a nucleus, and without one that answers."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import AgentProcess, answers, detect, inline_request, names, status, wait_for
from tests.support.checkout import python_path
from tests.support.component_process import ComponentProcess
from tests.support.nucleus import Nucleus
from tests.support.packages import grey, make_package

WITHOUT = "no Greengrass configuration within 5 s"


@pytest.fixture
def sdk() -> None:
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")


@pytest.fixture
def nucleus(sdk: None) -> Iterator[Nucleus]:
    with Nucleus(lite=True) as nucleus:
        yield nucleus


def serves(agent: AgentProcess) -> None:
    assert names(agent.stub()) == []


def test_all_it_is_told_comes_from_the_configuration_and_running_is_reported_once_it_answers(
    nucleus: Nucleus, tmp_path: Path
) -> None:
    nucleus.change(SocketMode="0600", LogFormat="json", AutoStart=True, accessControl={"a": {"b": {"operations": []}}})
    with ComponentProcess(nucleus) as agent:
        wait_for("the report", lambda: nucleus.states != [])
        serves(agent)
        assert agent.socket.stat().st_mode & 0o777 == 0o600
        agent.register("model", make_package(tmp_path / "package"))
        wait_for("the model to start by itself", lambda: answers(lambda: status(agent.stub(), "model") == wire.RUNNING))
        assert agent.stop() == 0
        events = [json.loads(line) for line in agent.log_text().splitlines()]
        assert "AutoStart true, was false" in [event["message"] for event in events]
        assert {event["level"] for event in events} == {"info"}
    assert nucleus.states == ["RUNNING"]


def test_a_change_takes_effect_while_calls_go_on_and_none_fails(nucleus: Nucleus, tmp_path: Path) -> None:
    with ComponentProcess(nucleus) as agent, ThreadPoolExecutor(1) as threads:
        agent.run_model("model", make_package(tmp_path / "package", any_size=True))
        is_over = threading.Event()

        def call() -> int:
            stub, count = agent.stub(), 0
            while not is_over.is_set():
                detect(stub, inline_request("model", grey(0)))
                count += 1
            return count

        calls = threads.submit(call)
        nucleus.change(LogLevel="debug", QueueLength=8, RunTimeLimit=2.5, LoadTimeLimit=60, WorkerGrowth=0)
        nucleus.change(UnloadFirst=True, Threads=1, MessageMemory=64, SocketMode="0666", LogFormat="json")
        wait_for(
            "the last change", lambda: "LogFormat json takes effect when the component restarts" in agent.log_text()
        )
        is_over.set()
        assert calls.result() > 0
        log = agent.log_text()
        for line in (
            "LogLevel debug, was info",
            "QueueLength 8, was 16",
            "RunTimeLimit 2.5, was 30",
            "Threads 1, was 0",
            "UnloadFirst true, was false",
            "SocketMode 0666 takes effect when the component restarts",
        ):
            assert log.count(line) == 1, line
        assert agent.socket.stat().st_mode & 0o777 == 0o660


def test_wrong_values_are_lines_and_the_agent_serves(nucleus: Nucleus) -> None:
    nucleus.change(QueueLength="many", LogFormat="xml", Threads=None, RunTimeLimit={"Seconds": 3}, SokcetMode="0600")
    with ComponentProcess(nucleus) as agent:
        serves(agent)
        nucleus.change(QueueLength=["1"], LogLevel=7)
        wait_for("the last line", lambda: "LogLevel is '7'" in agent.log_text())
        log = agent.log_text()
        assert "QueueLength is 'many'; it must be a whole number from 0 to 48. QueueLength 16 stays in force." in log
        assert "LogFormat is 'xml'; it must be text or json. LogFormat text stays in force." in log
        assert "Threads is None; it must be a whole number from 0 to 256. Threads 0 stays in force." in log
        assert "RunTimeLimit is {'Seconds': '3'}; it must be a number of seconds from 0.1 to 3600." in log
        assert "there are no such settings, they have no effect: 'SokcetMode'" in log
        assert "QueueLength is ['1']; it must be a whole number from 0 to 48. QueueLength 16 stays in force." in log
        serves(agent)


def test_restarts_of_the_nucleus_are_no_matter_to_calls(nucleus: Nucleus, tmp_path: Path) -> None:
    with ComponentProcess(nucleus) as agent:
        agent.run_model("model", make_package(tmp_path / "package", any_size=True))
        stub = agent.stub()
        for restart in range(1, 4):
            nucleus.stop()
            detect(stub, inline_request("model", grey(0)))
            nucleus.change(QueueLength=restart)
            nucleus.start()
            wait_for("the change to be read", lambda length=restart: f"QueueLength {length}, was" in agent.log_text())
            wait_for("the report", lambda count=restart + 1: nucleus.states == ["RUNNING"] * count)
            detect(stub, inline_request("model", grey(0)))
        assert agent.stop() == 0


def test_an_unauthorised_component_serves_with_defaults(sdk: None) -> None:
    with Nucleus(lite=False) as nucleus:
        nucleus.know_nobody()
        with AgentProcess(environment=nucleus.environment) as agent:
            serves(agent)
            assert agent.log_text().count("the nucleus refuses this component") == 1
            assert WITHOUT not in agent.log_text()
            assert agent.stop() == 0


@pytest.mark.parametrize("how", ["hangs", "is absent", "shows it the door"])
def test_a_start_waits_a_while_for_a_nucleus_that_does_not_answer_and_follows_it_later(
    nucleus: Nucleus, how: str
) -> None:
    nucleus.change(QueueLength=5)
    if how == "hangs":
        nucleus.accept_nobody()
    elif how == "is absent":
        nucleus.stop()
    else:
        nucleus.know_nobody()
    with AgentProcess(environment=nucleus.environment) as agent:
        assert agent.log_text().count(WITHOUT) == 1
        serves(agent)
        nucleus.answer_again()
        if how == "is absent":
            nucleus.start()
        wait_for("the configuration", lambda: "QueueLength 5, was 16" in agent.log_text())
        wait_for("the report", lambda: nucleus.states == ["RUNNING"])
        assert agent.stop() == 0


def test_who_is_asked_to_stop_while_it_waits_for_the_nucleus_does_so_at_once(nucleus: Nucleus) -> None:
    nucleus.accept_nobody()
    agent = AgentProcess(environment=nucleus.environment)
    try:
        agent.launch()
        wait_for("it to wait", lambda: nucleus.connections > 0)
        assert agent.stop() == 0
        assert WITHOUT not in agent.log_text()
    finally:
        agent.__exit__(None, None, None)


def test_without_the_sdk_it_is_a_plain_program_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "awsiot").mkdir()
    (tmp_path / "awsiot" / "__init__.py").write_text("raise ImportError('there is none')")
    component = {"SVCUID": "token", "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(tmp_path / "s")}
    with AgentProcess(environment=component | {"PYTHONPATH": python_path(tmp_path)}) as agent:
        serves(agent)
        assert agent.log_text().count("the SDK cannot be imported") == 1


def test_a_socket_group_that_cannot_be_set_is_left_out(nucleus: Nucleus) -> None:
    through: tuple[str, ...] = ()
    group = "root"
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("the tests run as root, who may set every group, and there is no setpriv")
        through, group = ("setpriv", "--bounding-set=-chown"), "daemon"
    nucleus.change(SocketGroup=group)
    with AgentProcess(environment=nucleus.environment, through=through) as agent:
        wait_for("the report", lambda: nucleus.states != [])
        serves(agent)
        assert agent.socket.stat().st_gid == os.getegid()
        line = next(line for line in agent.log_text().splitlines() if " cannot be made: " in line)
        assert "ERROR" in line and line.endswith("of it is left out until the next start.")


def test_a_socket_that_cannot_be_made_leaves_the_default(nucleus: Nucleus, tmp_path: Path) -> None:
    """In a /tmp of its own: others may serve the default socket of this machine."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root gives a process a /tmp of its own, by unshare")
    if any(path.startswith("/tmp/") for path in [sys.executable, *sys.path]):
        pytest.skip("this Python lies in /tmp, which the agent cannot see")
    through = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /tmp && exec "$0" "$@"')
    # Out of its own /tmp it reaches ours through our root.
    root = f"/proc/{os.getpid()}/root"
    environment = {"AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": f"{root}{nucleus.socket}"}
    agent = ComponentProcess(nucleus, environment=environment, through=through)
    nucleus.change(Socket=f"unix://{agent.folder}/missing/s", Registry=f"{root}{agent.registry}")
    try:
        agent.launch()
        wait_for("the report", lambda: nucleus.states != [])
        # Log lines come when they come: nobody waits for them.
        wait_for("the socket", lambda: "serves unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock" in agent.log_text())
        assert "/missing/s cannot be made: No such file or directory" in agent.log_text()
        agent.socket = Path(f"/proc/{agent.running.pid}/root/tmp/aws.iot.lookoutvision.EdgeAgent.sock")
        serves(agent)
        assert agent.stop() == 0
    finally:
        agent.__exit__(None, None, None)
