"""An agent whose workers find a GPU and TensorRT (fakes): building, telling, keeping, loading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.models.keeper import LOADS_AT_ONCE
from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import AgentProcess, describe, detect, inline_request, names, status, wait_for
from tests.support.packages import grey, make_package
from tests.support.pretended_tensorrt import pretended_tensorrt


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Builds wait for it to be opened."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


@contextmanager
def agent_on(cuda: Path, cache: Path, gate: Path | None = None, *more: str) -> Iterator[AgentProcess]:
    flags = ("--device", "tensorrt", "--engine-cache", str(cache), *more)
    with AgentProcess(*flags, environment=pretended_tensorrt(cuda, gate)) as agent:
        yield agent


def start(agent: AgentProcess, component: str, package: Path) -> None:
    agent.register(component, package)
    wait_for("the registry to be read", lambda: component in names(agent.stub()))
    agent.stub().StartModel(wire.StartModelRequest(model_component=component))


def message(agent: AgentProcess, component: str) -> str:
    return describe(agent.stub(), component).status_message


def is_running(agent: AgentProcess, component: str) -> bool:
    return status(agent.stub(), component) == wire.RUNNING


def test_a_build_is_told_while_it_goes_on_and_done_once_for_all_that_want_it(
    fake_cuda_library: Path, tmp_path: Path, gate: Path
) -> None:
    package = make_package(tmp_path / "package")
    with agent_on(fake_cuda_library, tmp_path / "engines", gate) as agent:
        start(agent, "front", package)
        wait_for("the build", lambda: "building a TensorRT engine in fp16" in message(agent, "front"))
        assert status(agent.stub(), "front") == wire.STARTING
        start(agent, "back", package)
        wait_for("its turn", lambda: "waiting: another TensorRT engine is being built" in message(agent, "back"))

        gate.open("w").close()  # one build goes on; a second would wait for ever
        wait_for("both", lambda: is_running(agent, "front") and is_running(agent, "back"))
        assert "TensorRT 10.3.0 on Fake GPU" in message(agent, "front")
        for component in ("front", "back"):
            answer = detect(agent.stub(), inline_request(component, grey(51)))
            assert answer.is_anomalous and answer.anomaly_score == pytest.approx(0.8, abs=1e-3)
        assert len(list((tmp_path / "engines").glob("*.engine"))) == 1

    with agent_on(fake_cuda_library, tmp_path / "engines", gate) as agent:
        start(agent, "front", package)  # nobody opens the gate
        wait_for("the engine to be loaded", lambda: is_running(agent, "front"))


def test_a_worker_that_is_killed_in_a_build_leaves_nothing_and_the_next_one_builds(
    fake_cuda_library: Path, tmp_path: Path, gate: Path
) -> None:
    with agent_on(fake_cuda_library, tmp_path / "engines", gate) as agent:
        start(agent, "front", make_package(tmp_path / "package"))
        wait_for("the build", lambda: "building a TensorRT engine" in message(agent, "front"))
        (worker,) = agent.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_for("its end", lambda: status(agent.stub(), "front") == wire.FAILED)
        assert [path.name for path in (tmp_path / "engines").iterdir()] == ["build.lock"]
        agent.stub().StartModel(wire.StartModelRequest(model_component="front"))
        wait_for("the build", lambda: "building a TensorRT engine" in message(agent, "front"))
        gate.open("w").close()
        wait_for("it to run", lambda: is_running(agent, "front"))


def test_waiting_for_the_engine_of_another_model_takes_none_of_the_time_a_model_has(
    fake_cuda_library: Path, tmp_path: Path, gate: Path
) -> None:
    package = make_package(tmp_path / "package")
    with agent_on(fake_cuda_library, tmp_path / "engines", gate, "--load-time-limit", "4") as agent:
        start(agent, "front", package)
        wait_for("the build", lambda: "building a TensorRT engine in fp16" in message(agent, "front"))
        start(agent, "back", package)
        wait_for("its end", lambda: status(agent.stub(), "front") == wire.FAILED)
        assert "was not ready within 4 s" in message(agent, "front")
        wait_for("its turn", lambda: "building a TensorRT engine in fp16" in message(agent, "back"))
        gate.open("w").close()
        wait_for("it to run", lambda: is_running(agent, "back"))


def test_models_load_while_more_engines_than_may_load_at_a_time_are_waited_for(
    fake_cuda_library: Path, tmp_path: Path, gate: Path
) -> None:
    package = make_package(tmp_path / "package")
    with agent_on(fake_cuda_library, tmp_path / "engines", gate, "--model-devices", "other=cpu") as agent:
        fronts = [f"front-{number}" for number in range(LOADS_AT_ONCE)]
        for front in fronts:
            start(agent, front, package)
        start(agent, "other", package)
        wait_for("it to run", lambda: is_running(agent, "other"))
        assert {status(agent.stub(), front) for front in fronts} == {wire.STARTING}


def test_fp16_that_deviates_is_told_of_the_model_that_serves(fake_cuda_library: Path, tmp_path: Path) -> None:
    environment = {**pretended_tensorrt(fake_cuda_library), "PRETENDED_FP16_ERROR": "0.2"}
    flags = ("--device", "tensorrt", "--engine-cache", str(tmp_path / "engines"))
    with AgentProcess(*flags, environment=environment) as agent:
        agent.run_model("front", make_package(tmp_path / "package"))
        assert "fp16 deviates in the self-test, so it runs in fp32" in message(agent, "front")
        answer = detect(agent.stub(), inline_request("front", grey(51)))
        assert answer.anomaly_score == pytest.approx(0.8, abs=1e-3)


def test_a_fleet_loads_what_one_device_has_built(fake_cuda_library: Path, tmp_path: Path, gate: Path) -> None:
    package, with_engine = make_package(tmp_path / "package"), tmp_path / "with-engine"
    command = ["engines", "build", str(package), "--into", str(with_engine), "--engine-cache", str(tmp_path / "first")]
    environment = {**os.environ, **pretended_tensorrt(fake_cuda_library)}
    subprocess.run([sys.executable, "-m", "agent", *command], env=environment, check=True, capture_output=True)

    with agent_on(fake_cuda_library, tmp_path / "second", gate) as agent:
        start(agent, "front", with_engine)  # nobody opens the gate: a build would never end
        wait_for("the engine to be loaded", lambda: is_running(agent, "front"))
        assert message(agent, "front") == "version 1.0.0, TensorRT 10.3.0 on Fake GPU"
        answer = detect(agent.stub(), inline_request("front", grey(51)))
        assert answer.is_anomalous and answer.anomaly_score == pytest.approx(0.8, abs=1e-3)

    other = {**pretended_tensorrt(fake_cuda_library), "PRETENDED_TENSORRT": "10.16.1"}
    flags = ("--device", "tensorrt", "--engine-cache", str(tmp_path / "third"))
    with AgentProcess(*flags, environment=other) as agent:
        agent.run_model("front", with_engine)
        assert message(agent, "front") == (
            "version 1.0.0, TensorRT 10.16.1 on Fake GPU; "
            "the package's engines are for TensorRT 10.3.0 and 8.7 in fp16, so one was built here"
        )
        assert len(list((tmp_path / "third").glob("*.engine"))) == 1
