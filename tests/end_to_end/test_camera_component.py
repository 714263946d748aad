"""The camera client by deployment alone, on both nuclei. `test_installation` shows that its install step works."""

from __future__ import annotations

import json

import pytest

from agent.greengrass.client_recipe import CAMERA
from agent.greengrass.recipe_parts import AGENT
from tests.support.agent_process import wait_for
from tests.support.greengrass_line import Line

TOPIC = "vision/camera/line-9"
on_both = pytest.mark.parametrize("line", ["java", "lite"], indirect=True)
on_lite = pytest.mark.parametrize("line", ["lite"], indirect=True)


def log_says(line: Line, text: str) -> None:
    wait_for(f"the camera's log to say {text}", lambda: text in line.device.log(CAMERA.component))


def told(line: Line) -> set[tuple[str, str]]:
    return {(verdict["file"], verdict["verdict"]) for verdict in line.verdicts}


@on_both
def test_it_is_there_before_the_agent_and_goes_on_after_both_were_restarted(line: Line) -> None:
    line.deploy_camera(patience_s=0.2)
    assert line.verdict_of("dark")["verdict"] == "uncertain", "nobody has answered yet"
    line.deploy_agent()
    line.deploy_model()
    log_says(line, "RUNNING version 1.0.0")
    line.put_picture("dark-1", 0)
    line.put_picture("light-1", 255)
    assert line.verdict_of("dark-1")["verdict"] == "reject"
    assert line.verdict_of("light-1")["verdict"] == "pass"
    overlays = line.device.work_folder(CAMERA.component) / "overlays"
    wait_for("its overlay", lambda: [file.name for file in overlays.glob("*-reject.jpg")] != [])

    line.device.remove(AGENT)
    line.put_picture("dark-2", 0)
    assert line.verdict_of("dark-2")["verdict"] == "uncertain"
    line.deploy_agent()
    line.device.restart_nucleus()

    def is_rejected() -> bool:
        line.put_picture("dark-3", 0)  # written anew, it is inspected anew
        return ("dark-3.png", "reject") in told(line)

    wait_for("the new agent to answer", is_rejected, patience=60)
    assert line.device.state(CAMERA.component) == "RUNNING"


@on_lite
def test_a_changed_configuration_is_followed_and_a_wrong_one_changes_nothing(line: Line) -> None:
    """Whether or not the nucleus restarts it: the versions of the two differ in that."""
    line.deploy_agent()
    line.deploy_model()
    line.deploy_camera(overlays={"verdicts": []}, json_lines={"most_megabytes": 5})
    line.verdict_of("light")
    process = line.device.process(CAMERA.component)
    line.camera_nucleus.change(in_flight=99)
    log_says(line, "in_flight: Expected `int` <= 8; the last good one stays in force")
    line.put_picture("light-1", 255)
    assert line.verdict_of("light-1")["camera"] == "camera"

    before = len(line.verdicts)
    line.camera_nucleus.change(in_flight=1, name="line-9", iot_core={"topic": TOPIC})
    log_says(line, "it has changed; beginning anew")
    wait_for("messages by the new configuration", lambda: len(line.camera_nucleus.published) >= 3)
    topic, payload = line.camera_nucleus.published[0]
    assert topic == TOPIC
    assert json.loads(payload)["camera"] == "line-9"
    assert len({verdict["id"] for verdict in line.verdicts}) == len(line.verdicts), "none has the id of another"
    assert process.poll() is None, "for the nucleus it is the same process"
    assert list((line.device.work_folder(CAMERA.component) / "overlays").glob("*")) == []

    line.camera_nucleus.stop()
    log_says(line, "cannot be read: the nucleus is away")
    line.put_picture("light-2", 255)
    assert line.verdict_of("light-2")["camera"] == "line-9"
    line.camera_nucleus.start()
    log_says(line, "configuration: again as it should be")
    wait_for("what waited", lambda: len(line.camera_nucleus.published) == len(line.verdicts) - before)
