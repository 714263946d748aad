"""A line by deployment alone, on both nuclei. That its install steps work is shown in `test_installation`."""

from __future__ import annotations

import re
import threading

import grpc
import pytest

from agent.greengrass.client_recipe import SAMPLE_CLIENT
from agent.greengrass.recipe_parts import AGENT
from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import answers, detect, gone, inline_request, names, status, wait_for
from tests.support.greengrass_line import NEWER, PLATES, SLOW, Line
from tests.support.packages import grey

FAILED_CALL = re.compile(r"no answer|[A-Z]+_[A-Z]+: |UNAVAILABLE|INTERNAL|Traceback")
"""In the sample client's log."""


on_lite = pytest.mark.parametrize("line", ["lite"], indirect=True)
on_java = pytest.mark.parametrize("line", ["java"], indirect=True)
on_both = pytest.mark.parametrize("line", ["java", "lite"], indirect=True)


@on_both
def test_the_client_lists_and_inspects_while_models_come_and_go_without_a_failed_call(line: Line) -> None:
    line.deploy_agent()
    line.deploy_model()
    line.deploy_model(SLOW)
    wait_for("both models", lambda: answers(lambda: names(line.agent) == [PLATES, SLOW]))
    assert f"Model {PLATES} 1.0.0 is registered" in line.device.log(PLATES)
    line.deploy_client()
    line.wait_for_detections()
    for told in (rf"{PLATES} +STOPPED", r"dark\.png +ANOMALOUS ", r"light\.png +normal "):
        assert re.search(rf"^{told}", line.client_log(), re.MULTILINE), told
    assert line.runs(PLATES, "1.0.0")

    for version in ("1.1.0", "1.0.0"):  # an update; and the rollback, which runs the old version's steps again
        line.deploy_model(version=version)
        wait_for(version, lambda version=version: line.runs(PLATES, version))
        line.wait_for_detections()
    line.device.remove(SLOW)
    wait_for("the other model to go", lambda: names(line.agent) == [PLATES])
    line.wait_for_detections()
    assert not FAILED_CALL.search(line.client_log())

    line.device.remove(PLATES)
    wait_for("the client to learn of it", lambda: f'no model component "{PLATES}"' in line.client_log())
    assert line.device.state(SAMPLE_CLIENT.component) == "RUNNING"
    line.deploy_model()
    line.wait_for_detections("detections when the model is back")


@on_java
def test_any_order_will_do_and_a_restart_of_the_nucleus_loses_no_call_in_hand(line: Line) -> None:
    line.deploy_client()
    line.deploy_model()
    line.deploy_model(SLOW)
    line.deploy_agent()
    line.wait_for_detections()
    line.agent.StartModel(wire.StartModelRequest(model_component=SLOW))
    wait_for("the slow model", lambda: status(line.agent, SLOW) == wire.RUNNING)

    refusals: list[grpc.RpcError] = []
    answered = threading.Semaphore(0)

    def call() -> None:
        """Slow images, one at a time: one is in hand whenever the nucleus stops the agent, but for microseconds."""
        while not refusals:
            try:
                detect(line.agent, inline_request(SLOW, grey(255)))
                answered.release()
            except grpc.RpcError as error:
                refusals.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert answered.acquire(timeout=60)
    line.device.restart_nucleus()
    caller.join()
    assert refusals[0].code() is grpc.StatusCode.UNAVAILABLE
    assert re.search("failed to connect|is stopping", str(refusals[0].details())), "else it was taken, and then lost"
    line.wait_for_detections()
    wait_for("what was RUNNING", lambda: status(line.agent, SLOW) == wire.RUNNING)


@on_java
def test_configuration_is_followed_and_the_agent_upgraded_and_removed_under_the_running_client(line: Line) -> None:
    line.deploy_agent()
    wait_for("the report", lambda: line.nucleus.states == ["RUNNING"])
    line.deploy_model()
    line.deploy_client()
    line.wait_for_detections()
    assert "no such settings" not in line.device.log(AGENT)
    line.nucleus.change(QueueLength=5, LogLevel="loud")
    wait_for("the change", lambda: "QueueLength 5, was 16" in line.device.log(AGENT))
    assert "LogLevel info stays in force" in line.device.log(AGENT)

    line.deploy_agent(NEWER)
    line.wait_for_detections()
    assert line.nucleus.states == ["RUNNING"] * 2
    assert "no answer" not in line.client_log()

    process = line.device.process(AGENT)
    line.device.remove(AGENT)
    assert gone(process.pid) and not line.socket.exists()
    assert line.device.state(SAMPLE_CLIENT.component) == "RUNNING"
    line.deploy_agent(NEWER)
    line.wait_for_detections("detections when the agent is back")
