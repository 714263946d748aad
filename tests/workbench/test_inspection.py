"""A package and the agent that serves it inspect alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.wire import edge_agent_pb2 as wire
from agent.workbench.errors import AgentRefuses, ImageNotInspected, ModelCannotStart, NoSharedMemory
from agent.workbench.inspection import segment
from agent.workbench.inspection.agent_inspector import agent_inspector
from agent.workbench.inspection.package_inspector import package_inspector
from tests.support.agent_process import AgentProcess, names, status, wait_for
from tests.support.packages import HEIGHT, WIDTH, changed, constant_score_model, grey, make_package, zip_package

ARN = "arn:aws:lookoutvision:eu-central-1:123456789012:model/tiny/1"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentProcess, Path]]:
    """An agent with the components `spots` (STOPPED), `numbers`, `nan` and `broken`; and the package of `spots`."""
    folder = tmp_path_factory.mktemp("served")
    spots = make_package(folder / "spots", version="2.3.4")
    with AgentProcess() as agent:
        agent.register("spots", spots, version="2.3.4")
        agent.register("numbers", make_package(folder / "numbers", task="classification"))
        not_a_number = constant_score_model(float("nan"))
        agent.register("nan", make_package(folder / "nan", task="classification", model=not_a_number))
        broken = make_package(folder / "broken", change=lambda manifest: changed(manifest, self_test=_wrong(manifest)))
        agent.register("broken", broken)
        stub = agent.stub()
        wait_for("the models to be listed", lambda: len(stub.ListModels(wire.ListModelsRequest()).models) == 4)
        yield agent, spots


def _wrong(manifest):
    return [changed(test, score=0.9) for test in manifest.self_test]


def spotted() -> np.ndarray:
    pixels = grey(255)
    pixels[:16] = 30
    return pixels


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("pixels", [spotted(), grey(200)], ids=["anomalous", "normal"])
def test_both_give_the_same_answer(served, shared_memory: bool, pixels: np.ndarray) -> None:
    agent, package = served
    with package_inspector(package) as inspector:
        alone = inspector.inspect(pixels)
    with agent_inspector("spots", f"unix://{agent.socket}", shared_memory, silent) as inspector:
        through_agent = inspector.inspect(pixels)
    assert (through_agent.is_anomalous, through_agent.score) == (alone.is_anomalous, alone.score)
    assert (through_agent.confidence, through_agent.threshold) == (alone.confidence, alone.threshold)
    assert [region.name for region in through_agent.regions] == [region.name for region in alone.regions]
    assert alone.mask is not None and through_agent.mask is not None
    assert (through_agent.mask == alone.mask).all()


def test_the_agent_starts_a_model_that_is_not_running_and_tells_of_it(served) -> None:
    agent, _ = served
    told: list[str] = []
    with agent_inspector("numbers", str(agent.socket), False, told.append) as inspector:
        answer = inspector.inspect(grey(255))
    assert told[-1] == "numbers is RUNNING"
    assert answer.mask is None and answer.regions == ()
    assert status(agent.stub(), "numbers") == wire.RUNNING


def test_both_tell_what_they_are(served) -> None:
    agent, package = served
    with package_inspector(package) as inspector:
        alone = inspector.model
    assert (alone.name, alone.version, alone.arn, alone.threshold) == ("tiny", "2.3.4", ARN, 0.5)
    assert alone.labels == ("background", "anomaly") and alone.training_images == 0
    with agent_inspector("spots", str(agent.socket), False, silent) as inspector:
        inspector.inspect(grey(255))
        served_model = inspector.model
    assert (served_model.name, served_model.version, served_model.arn) == ("spots", "2.3.4", ARN)
    assert served_model.threshold == 0.5 and served_model.training_images is None


@pytest.mark.parametrize("shared_memory", [False, True])
def test_an_image_of_the_wrong_size_gets_no_answer_and_the_next_one_does(served, shared_memory: bool) -> None:
    agent, package = served
    small, right = grey(255, 64, 64), grey(255)
    with package_inspector(package) as inspector, pytest.raises(ImageNotInspected, match="64 x 64"):
        inspector.inspect(small)
    with agent_inspector("spots", str(agent.socket), shared_memory, silent) as inspector:
        with pytest.raises(ImageNotInspected, match="64 x 64"):
            inspector.inspect(small)
        assert not inspector.inspect(right).is_anomalous


def test_an_answer_that_is_no_number_is_none(served, tmp_path: Path) -> None:
    agent, _ = served
    model = constant_score_model(float("nan"))
    package = make_package(tmp_path / "package", task="classification", model=model)
    with package_inspector(package) as inspector, pytest.raises(ImageNotInspected, match="not a finite number"):
        inspector.inspect(grey(255))
    with (
        agent_inspector("nan", str(agent.socket), False, silent) as inspector,
        pytest.raises(ImageNotInspected, match="not a finite number"),
    ):
        inspector.inspect(grey(255))


def test_a_zip_inspects_too(served, tmp_path: Path) -> None:
    with package_inspector(zip_package(served[1], tmp_path / "package.zip")) as inspector:
        assert inspector.inspect(spotted()).is_anomalous


def test_a_model_that_cannot_start_says_why(served) -> None:
    with (
        pytest.raises(ModelCannotStart, match=r"broken is FAILED, not RUNNING: .*self-test/good\.rgb"),
        agent_inspector("broken", str(served[0].socket), False, silent),
    ):
        pass


def test_an_unknown_component_and_an_absent_agent_say_what_to_do(served, tmp_path: Path) -> None:
    with (
        pytest.raises(AgentRefuses, match=r"NOT_FOUND.*models list"),
        agent_inspector("nobody", str(served[0].socket), False, silent),
    ):
        pass
    with (
        pytest.raises(AgentRefuses, match=r"UNAVAILABLE.*edge-agent serve.*--agent"),
        agent_inspector("spots", str(tmp_path / "absent.sock"), True, silent),
    ):
        pass


def test_no_segment_is_left_behind(served) -> None:
    with agent_inspector("spots", str(served[0].socket), True, silent) as inspector:
        inspector.inspect(grey(255, WIDTH, HEIGHT))
        assert list(Path("/dev/shm").glob(f"edge-agent-evaluate-{os.getpid()}-*"))
    assert not list(Path("/dev/shm").glob(f"edge-agent-evaluate-{os.getpid()}-*"))


def test_no_room_in_shared_memory_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SHARED_MEMORY", tmp_path / "absent")
    with pytest.raises(NoSharedMemory, match=r"No such file or directory\. Free some, or leave out --shared-memory"):
        segment.Segment(group=None)


def test_an_agent_that_restarts_costs_no_image(tmp_path: Path) -> None:
    with AgentProcess() as agent:
        agent.register("spots", make_package(tmp_path / "spots"))
        wait_for("the model to be listed", lambda: names(agent.stub()) == ["spots"])
        with agent_inspector("spots", str(agent.socket), True, silent) as inspector:
            before = inspector.inspect(spotted())
            agent.kill()
            agent.launch()  # and does not wait for it
            assert inspector.inspect(spotted()).score == before.score
