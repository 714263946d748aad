"""A package that does not answer its own images as it says never serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from agent.packages.manifest import Manifest, SelfTestImage
from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import AgentProcess, describe, detect, inline_request, names, status, wait_for
from tests.support.packages import changed, grey, make_package


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        yield running


def expecting(**expected: object) -> Callable[[Manifest], Manifest]:
    """The white image really scores 0, is normal, and is all background."""

    def change(manifest: Manifest) -> Manifest:
        test: SelfTestImage = msgspec.structs.replace(manifest.self_test[0], **expected)
        return changed(manifest, self_test=[test])

    return change


@pytest.mark.parametrize(
    ("name", "expected", "told"),
    [
        ("score", {"score": 0.01}, "expected a score within 0.005 of 0.01, got 0.0"),
        ("verdict", {"is_anomalous": True}, "expected the verdict anomalous, got normal"),
        ("area", {"areas": {"anomaly": 0.5}}, "expected an area of 'anomaly' within 0.005 of 0.5, got 0.0"),
    ],
)
def test_a_package_with_a_wrong_expectation_is_failed_and_says_which_image(
    agent: AgentProcess, tmp_path: Path, name: str, expected: dict[str, object], told: str
) -> None:
    agent.register(name, make_package(tmp_path / "p", change=expecting(**expected)))
    stub = agent.stub()
    wait_for("the model to be listed", lambda: name in names(stub))
    stub.StartModel(wire.StartModelRequest(model_component=name))
    seen: list[int] = []

    def has_ended_starting() -> bool:
        seen.append(status(stub, name))
        return seen[-1] != wire.STARTING

    wait_for("the model to be done with starting", has_ended_starting)
    assert seen[-1] == wire.FAILED
    message = describe(stub, name).status_message
    assert 'Self-test image "self-test/good.rgb"' in message
    assert told in message


def test_an_update_with_a_wrong_expectation_leaves_the_old_version_serving(agent: AgentProcess, tmp_path: Path) -> None:
    agent.run_model("updated", make_package(tmp_path / "good"))
    bad = make_package(tmp_path / "bad", version="2.0.0", change=expecting(score=0.9))
    agent.register("updated", bad, "2.0.0")
    stub = agent.stub()
    wait_for(
        "the new version to be refused", lambda: "2.0.0 does not take over" in describe(stub, "updated").status_message
    )
    assert status(stub, "updated") == wire.RUNNING
    assert "Self-test image" in describe(stub, "updated").status_message
    assert detect(stub, inline_request("updated", grey(0))).is_anomalous
