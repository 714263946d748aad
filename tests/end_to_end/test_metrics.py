"""A real agent, real calls, and what Prometheus reads of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import (
    AgentProcess,
    answers,
    describe,
    detect,
    inline_request,
    names,
    refusal,
    status,
    wait_for,
)
from tests.support.component_process import ComponentProcess
from tests.support.nucleus import Nucleus
from tests.support.packages import grey, make_package
from tests.support.pretended_gpu import GPU, pretended_gpu
from tests.support.scraping import Scrape, free_port, is_served, scrape
from tests.support.slow_worker import slow_workers

CODES = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")


@contextmanager
def measured(*flags: str, environment: dict[str, str] | None = None) -> Iterator[tuple[AgentProcess, int]]:
    """An agent, and the port of its metrics."""
    port = free_port()
    with AgentProcess("--metrics-port", str(port), *flags, environment=environment) as agent:
        wait_for("the metrics", lambda: is_served(port))
        yield agent, port


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("packages") / "dark")


def runs_on(told: Scrape, component: str) -> dict[str, str]:
    (labels,) = (labels for labels in told.series("edge_agent_model_info") if labels["model"] == component)
    return labels


# --- one agent, from the first call to a model that leaves


def test_what_is_called_is_what_is_counted(package: Path) -> None:
    with measured() as (agent, port):
        assert scrape(port).models() == set()
        agent.run_model("front", package)
        agent.register("back", package)
        wait_for("it to be listed", lambda: "back" in names(agent.stub()))
        stub = agent.stub()
        for value in (255, 255, 204, 51, 0):  # scores 0, 0, 0.2, 0.8, 1
            detect(stub, inline_request("front", grey(value)))
        cut = inline_request("front", grey(0))
        cut.bitmap.byte_data = b"123"
        requests = (inline_request("front", grey(1, 97)), cut, inline_request("back", grey(1)))
        codes = [refusal(lambda request=request: detect(stub, request))[0] for request in requests]
        assert codes == [
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        ]
        for made_up in ("nobody", 'x"} 1\nevil{a="', ""):
            refusal(lambda name=made_up: detect(stub, inline_request(name, grey(1))))

        told = scrape(port)
        assert told.models() == {"front", "back"}
        assert told.value("edge_agent_images_total", model="front", verdict="normal") == 3
        assert told.value("edge_agent_images_total", model="front", verdict="anomalous") == 2
        assert told.value("edge_agent_images_total", model="back", verdict="normal") == 0
        assert told.value("edge_agent_anomaly_score_sum", model="front") == pytest.approx(2.0, abs=1e-3)
        bounds = ("0.05", "0.2", "0.75", "0.8", "0.95", "1.0")
        buckets = [told.value("edge_agent_anomaly_score_bucket", model="front", le=bound) for bound in bounds]
        assert buckets == [2, 3, 3, 4, 4, 5]
        steps = ("waiting", "preprocessing", "inferring", "postprocessing")
        assert [told.value("edge_agent_step_seconds_count", model="front", step=step) for step in steps] == [5] * 4
        took = told.value("edge_agent_answer_seconds_sum", model="front") or 0
        assert took > (told.value("edge_agent_step_seconds_sum", model="front", step="inferring") or 0) > 0
        refused = {
            (labels["model"], labels["code"], labels["reason"])
            for labels in told.series("edge_agent_refused_images_total")
        }
        assert refused == {
            ("front", "INVALID_ARGUMENT", "WrongImageSize"),
            ("front", "INVALID_ARGUMENT", "WrongByteCount"),
            ("back", "FAILED_PRECONDITION", "ModelNotRunning"),
        }
        detected = {code: told.value("edge_agent_calls_total", method="DetectAnomalies", code=code) for code in CODES}
        assert detected == {"OK": 5, "INVALID_ARGUMENT": 4, "NOT_FOUND": 1, "FAILED_PRECONDITION": 1}
        assert told.value("edge_agent_calls_total", method="StartModel", code="OK") == 1
        assert [
            told.value("edge_agent_model_state", model="back", state=state) for state in ("STOPPED", "RUNNING")
        ] == [
            1,
            0,
        ]
        assert [told.value("edge_agent_model_ready", model=model) for model in ("front", "back")] == [1, 0]
        labels = runs_on(told, "front")
        assert (labels["device"], labels["wanted_device"], labels["instead_of"]) == ("CPU", "auto", "")
        assert labels["runtime"] in describe(stub, "front").status_message
        assert (told.value("edge_agent_worker_memory_bytes", model="front") or 0) > 1 << 20

        agent.remove("front")
        wait_for("it to leave", lambda: "front" not in names(stub))
        assert scrape(port).models() == {"back"}
        assert agent.stop() == 0


def test_a_worker_that_is_killed_is_a_restart_and_the_counts_go_on(package: Path) -> None:
    with measured() as (agent, port):
        agent.run_model("front", package)
        for deaths in (1, 2):
            (worker,) = agent.worker_pids()
            os.kill(worker, signal.SIGKILL)
            assert not detect(agent.stub(), inline_request("front", grey(255))).is_anomalous
            told = scrape(port)
            assert told.value("edge_agent_worker_restarts_total", model="front") == deaths
            assert told.value("edge_agent_images_total", model="front", verdict="normal") == deaths
            assert told.value("edge_agent_model_ready", model="front") == 1
            assert told.value("edge_agent_model_state", model="front", state="RUNNING") == 1


# --- devices


@pytest.mark.parametrize(
    ("flags", "surroundings", "expected"),
    [
        (("--device", "auto"), "no driver", ("CPU", "auto", "cuda", "DeviceNotUsable")),
        (("--device", "cuda", "--fallback", "allow"), "memory full", ("CPU", "cuda", "cuda", "NotEnoughGpuMemory")),
        (("--model-devices", "front=cuda"), "working", (GPU, "cuda", "", "")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_device_and_what_it_stands_in_for_are_told(
    flags: tuple[str, ...], surroundings: str, expected: tuple[str, ...], package: Path
) -> None:
    with measured(*flags, environment=pretended_gpu(surroundings)) as (agent, port):
        agent.run_model("front", package)
        told = scrape(port)
        labels = runs_on(told, "front")
        assert tuple(labels[name] for name in ("device", "wanted_device", "instead_of", "reason")) == expected
        assert told.value("edge_agent_model_fallback", model="front") == (1 if expected[2] else 0)


# --- scrapes at any time


def test_a_scrape_answers_while_a_model_loads_and_while_calls_are_in_hand_and_wait(package: Path) -> None:
    never = make_package(package.parent / "never-loads")
    slow = slow_workers(run=0.5, never_loads=never.name)
    with measured("--calls-in-flight", "1", environment=slow) as (agent, port), ThreadPoolExecutor(3) as threads:
        agent.run_model("front", package)
        agent.register("back", never)
        wait_for("it to be listed", lambda: "back" in names(agent.stub()))
        agent.stub().StartModel(wire.StartModelRequest(model_component="back"))
        calls = [threads.submit(detect, agent.stub(), inline_request("front", grey(255))) for _ in range(3)]

        def load() -> tuple[float | None, ...]:
            told = scrape(port)
            assert told.value("edge_agent_model_state", model="back", state="STARTING") == 1
            assert told.value("edge_agent_model_ready", model="back") == 0
            assert [labels["model"] for labels in told.series("edge_agent_model_info")] == ["front"]
            return (
                told.value("edge_agent_model_calls_in_hand", model="front"),
                told.value("edge_agent_model_calls_waiting", model="front"),
                told.value("edge_agent_images_in_hand"),
            )

        wait_for("one in hand and two that wait", lambda: load() == (1, 2, 3))
        for call in calls:
            call.result()
        wait_for("none", lambda: load() == (0, 0, 0))
        told = scrape(port)
        waited = told.value("edge_agent_step_seconds_sum", model="front", step="waiting") or 0
        assert waited > 0.5, "the last one waited for all of the second's run"


# --- ports


def test_a_port_that_is_taken_keeps_no_agent_from_serving(package: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with AgentProcess("--metrics-port", str(taken.getsockname()[1])) as agent:
            agent.run_model("front", package)
            wait_for("the line", lambda: "cannot be used (Address already in use)" in agent.log_text())
            assert detect(agent.stub(), inline_request("front", grey(0))).is_anomalous
            assert agent.stop() == 0


def test_a_deployment_turns_metrics_on_moves_them_and_turns_them_off_while_the_agent_serves(package: Path) -> None:
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")
    first, second = free_port(), free_port()
    with Nucleus(lite=True) as nucleus, ComponentProcess(nucleus) as agent:
        agent.run_model("front", package)
        detect(agent.stub(), inline_request("front", grey(0)))
        nucleus.change(MetricsPort=first)
        wait_for("the metrics", lambda: is_served(first))
        before = scrape(first).value("edge_agent_images_total", model="front", verdict="anomalous")
        assert before == 1, "counted before anybody asked"
        nucleus.change(MetricsPort=second)
        wait_for("the other port", lambda: is_served(second) and not is_served(first))
        nucleus.change(MetricsPort=0)
        wait_for("the end of metrics", lambda: not is_served(second))
        assert answers(lambda: status(agent.stub(), "front") == wire.RUNNING)
