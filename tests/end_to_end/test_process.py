"""The agent as a process: exactly one per socket, signals, exit codes, what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.support.agent_process import (
    RECONNECT,
    AgentProcess,
    answers,
    detect,
    gone,
    inline_request,
    names,
    processor_time,
    refusal,
    segment,
    segment_request,
    wait_for,
)
from tests.support.packages import HEIGHT, WIDTH, grey, make_package, slow_model

TOGETHER = 12
"""Agents started at once; the counted form of row D8 takes 50."""


def test_of_many_agents_started_at_once_exactly_one_serves() -> None:
    """Row D8 in short."""
    agent = AgentProcess()
    try:
        racers = [agent.launch() for _ in range(TOGETHER)]
        wait_for("all losers to leave", lambda: sum(racer.poll() is None for racer in racers) == 1)
        (winner,) = [racer for racer in racers if racer.poll() is None]
        assert [racer.poll() for racer in racers if racer is not winner] == [4] * (TOGETHER - 1)
        assert agent.log_text().count("Another agent serves") == TOGETHER - 1
        agent.process = winner
        wait_for("the socket", agent.socket.exists)
        assert names(agent.stub()) == []
        # One that comes later leaves too, and the path still leads to the first.
        assert agent.launch().wait(20) == 4
        assert names(agent.stub(RECONNECT)) == []
        agent.process = winner
        assert agent.stop() == 0
    finally:
        agent.__exit__(None, None, None)


def test_the_socket_has_the_mode_and_group_that_were_asked_for() -> None:
    import grp

    group = grp.getgrgid(os.getgid()).gr_name
    with AgentProcess("--socket-mode", "0600", "--socket-group", group) as agent:
        status = agent.socket.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_gid == os.getgid()


def test_a_stale_socket_is_replaced() -> None:
    agent = AgentProcess()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(agent.socket))
    stale.close()
    before = agent.socket.stat().st_ino
    with agent:
        wait_for("the new socket", lambda: agent.socket.stat().st_ino != before)
        assert names(agent.stub()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_socket_is_never_deleted(kind: str) -> None:
    agent = AgentProcess()
    if kind == "file":
        agent.socket.write_text("precious")
    else:
        agent.socket.mkdir()
    try:
        assert agent.launch().wait(20) == 2
        assert "no socket" in agent.log_text()
        assert agent.socket.read_text() == "precious" if kind == "file" else agent.socket.is_dir()
    finally:
        agent.__exit__(None, None, None)


def test_a_socket_that_is_deleted_comes_back() -> None:
    with AgentProcess() as agent:
        agent.socket.unlink()
        wait_for("the socket to come back", agent.socket.exists)
        assert names(agent.stub(RECONNECT)) == []


def test_sigterm_finishes_the_call_in_hand_and_exits_0(tmp_path: Path) -> None:
    with AgentProcess() as agent:
        agent.run_model("slow", make_package(tmp_path / "slow", task="classification", model=slow_model()))
        (worker,) = agent.worker_pids()
        with ThreadPoolExecutor(1) as threads:
            worked = processor_time(worker)
            call = threads.submit(detect, agent.stub(), inline_request("slow", grey(100)))
            wait_for("the worker to work on the call", lambda: processor_time(worker) > worked + 0.05)
            # Greengrass signals the children first.
            os.kill(worker, signal.SIGTERM)
            begin = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - begin < 4.5
            assert call.result().anomaly_score == pytest.approx(100 / 255, abs=1e-4)
        wait_for("the worker to be gone", lambda: not Path(f"/proc/{worker}").exists())
        assert {path.name for path in agent.folder.iterdir()} == {"registry", "log", "s.lock"}


def test_sigterm_does_not_wait_for_a_call_that_takes_too_long(tmp_path: Path) -> None:
    with AgentProcess() as agent:
        endless = slow_model(steps_per_value=5000)  # half a minute
        agent.run_model("endless", make_package(tmp_path / "endless", task="classification", model=endless))
        (worker,) = agent.worker_pids()
        with ThreadPoolExecutor(1) as threads:
            worked = processor_time(worker)
            call = threads.submit(refusal, lambda: detect(agent.stub(), inline_request("endless", grey(255))))
            wait_for("the worker to work on the call", lambda: processor_time(worker) > worked + 0.05)
            begin = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - begin < 5  # then Greengrass would kill it
            assert call.result()[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        wait_for("the worker to be gone", lambda: gone(worker))


def test_killing_the_agent_leaves_no_worker_and_no_obstacle(tmp_path: Path) -> None:
    with AgentProcess() as agent:
        agent.run_model("model", make_package(tmp_path / "p"))
        (worker,) = agent.worker_pids()
        client = agent.stub(RECONNECT)
        agent.kill()
        wait_for("the worker to be gone", lambda: gone(worker), patience=1)
        agent.launch()
        wait_for("the old channel to work again", lambda: answers(lambda: names(client) == ["model"]))
        assert names(client) == ["model"]


def test_clients_segments_outlive_the_agent(tmp_path: Path) -> None:
    """Row B15 in short: by SIGTERM and by SIGKILL."""
    package = make_package(tmp_path / "p")
    pixels = grey(0)
    for end in ("stop", "kill"):
        with segment(pixels.tobytes(), 2 * pixels.nbytes) as name, AgentProcess() as agent:
            agent.run_model("model", package)
            request = segment_request("model", WIDTH, HEIGHT, name, mask_offset=pixels.nbytes)
            assert detect(agent.stub(), request).is_anomalous
            getattr(agent, end)()
            path = Path("/dev/shm", name.removeprefix("/"))
            assert path.stat().st_size == 2 * pixels.nbytes
            assert path.read_bytes()[: pixels.nbytes] == pixels.tobytes()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--socket", "tcp://localhost:5000"),
        ("--socket", "unix:///" + "x" * 120),
        ("--socket", "unix:relative"),
        ("--socket", "unix:///no/such/folder/socket"),
        ("--socket-mode", "0999"),
        ("--socket-group", "no-such-group"),
        ("--queue-length", "many"),
        ("--log-format", "xml"),
        ("--registry", "/etc/passwd"),
    ],
)
def test_a_wrong_setting_is_named_and_exits_2(flag: str, value: str) -> None:
    command = [sys.executable, "-m", "agent", "serve", flag, value]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert value.removeprefix("unix://") in ended.stderr
