"""The live view by deployment alone, beside the camera client. `test_installation` shows that it can be installed."""

from __future__ import annotations

import re

import pytest

from agent.greengrass.client_recipe import CAMERA, LIVE_VIEW
from tests.support.agent_process import wait_for
from tests.support.greengrass_line import Line
from tests.support.live_view_process import needs_web
from tests.support.scraping import free_port

pytestmark = [needs_web, pytest.mark.parametrize("line", ["java", "lite"], indirect=True)]


def log_says(line: Line, text: str) -> None:
    wait_for(f"the live view's log to say {text}", lambda: text in line.device.log(LIVE_VIEW.component))


def test_it_shows_the_cameras_verdicts_and_follows_its_configuration_through_restarts(line: Line) -> None:
    line.deploy_live_view()
    line.page().wait_for_text("com.example.vision.Camera/verdicts.jsonl is not there yet")
    line.deploy_agent()
    line.deploy_model()
    line.deploy_camera()
    wait_for("the model to run", lambda: "RUNNING version 1.0.0" in line.device.log(CAMERA.component))
    line.put_picture("dark-1", 0)
    line.put_picture("light-1", 255)
    line.page().wait_for_pictures(4)
    verdicts = [verdict["verdict"] for verdict in line.verdicts]
    assert (line.verdict_of("dark-1")["verdict"], line.verdict_of("light-1")["verdict"]) == ("reject", "pass")
    row = line.page().row("last hour")
    assert (row[1], row[-1]) == (str(verdicts.count("reject")), str(verdicts.count("pass")))
    line.page().wait_for_text("com.example.Plates ✓ RUNNING version 1.0.0", "/now")
    [picture, *_] = re.findall(r'src="(/pictures/[^"]*)"', line.page().html("/now"))
    assert line.page().ask(picture)[:2][0] == 200

    process, before = line.device.process(LIVE_VIEW.component), line.page()
    line.view_nucleus.change(port=99999)
    log_says(line, "port: Expected `int` <= 65535; the last good one stays in force")
    assert before.row("last hour") == row
    port = free_port()
    line.view_nucleus.change(port=port)
    wait_for("the page to move", lambda: line.page().port == port)
    line.page().wait_for_pictures(4)
    assert process.poll() is None, "for the nucleus it is the same process"

    line.device.restart_nucleus()  # and the folder's pictures are inspected anew
    wait_for("the page to be back", lambda: line.device.log(LIVE_VIEW.component).count(f":{port}/") == 2)
    line.page().wait_for_pictures(8)
    assert len(line.verdicts) == 8
