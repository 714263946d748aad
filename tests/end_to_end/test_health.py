"""The standard health service and reflection, as a generic tool sees them."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import PATIENCE, AgentProcess, names, status, wait_for
from tests.support.packages import make_package

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_follows_the_agent_and_each_model(tmp_path: Path) -> None:
    with AgentProcess() as agent, grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def check(service: str) -> int:
            return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE).status

        assert check("") == SERVING
        assert check("AWS.LookoutVision.EdgeAgent") == SERVING
        try:
            check("nobody")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND
        agent.register("model", make_package(tmp_path / "p"))
        stub = agent.stub()
        wait_for("the model to be there", lambda: bool(stub.ListModels(wire.ListModelsRequest()).models))
        assert check("model") == NOT_SERVING

        seen: list[int] = []
        watch = health.Watch(health_pb2.HealthCheckRequest(service="model"), timeout=PATIENCE)
        watching = threading.Thread(target=lambda: collect(watch, seen))
        watching.start()
        agent.run_model("model", tmp_path / "p")
        assert check("model") == SERVING
        (worker,) = agent.worker_pids()
        os.kill(worker, signal.SIGKILL)
        wait_for(
            "the death and the new worker to be told", lambda: seen == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]
        )
        assert status(stub, "model") == wire.RUNNING  # a restart is no move, and still nothing was answered meanwhile
        stub.StopModel(wire.StopModelRequest(model_component="model"))
        assert check("model") == NOT_SERVING
        watch.cancel()
        watching.join()


def test_reflection_names_the_services_and_their_messages() -> None:
    with AgentProcess() as agent, grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = database.get_services()
        assert {"AWS.LookoutVision.EdgeAgent", "grpc.health.v1.Health"} <= set(services)
        file = database.FindFileContainingSymbol("AWS.LookoutVision.EdgeAgent")
        assert [method.name for method in file.service[0].method] == [
            "DetectAnomalies",
            "DescribeModel",
            "ListModels",
            "StartModel",
            "StopModel",
        ]


def collect(watch: grpc.RpcContext, seen: list[int]) -> None:
    try:
        for response in watch:  # type: ignore[attr-defined]
            if not seen or seen[-1] != response.status:
                seen.append(response.status)
    except grpc.RpcError:  # cancelled
        pass


def test_watchers_that_come_and_go_hold_up_nobody_and_not_the_end_of_the_agent() -> None:
    """With the health service's default way of answering watchers, two of them froze the whole server."""
    with AgentProcess() as agent, grpc.insecure_channel(f"unix:{agent.socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def watch(times: int) -> None:
            for _ in range(times):
                answers = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
                assert next(answers).status == health_pb2.HealthCheckResponse.SERVING
                answers.cancel()

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(watch, 100) for _ in range(2)]:
                done.result()
        assert names(agent.stub()) == []
        left = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(left).status == health_pb2.HealthCheckResponse.SERVING
        assert agent.stop() == 0
