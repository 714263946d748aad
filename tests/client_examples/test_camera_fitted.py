"""The camera client in front of a model that `edge-agent fit` has made, from every kind of source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.workbench.part_pictures import Defect, draw_part
from tests.support.agent_process import AgentProcess
from tests.support.camera_process import CameraProcess
from tests.support.gstreamer import RtspCamera, needs_opencv

SIZE = {"width": 160, "height": 120}
GOOD, CHIPPED = draw_part(100, **SIZE).pixels, draw_part(100, Defect.CHIP, **SIZE).pixels


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    photographs = tmp_path_factory.mktemp("photographs")
    for seed in range(8):
        Image.fromarray(draw_part(seed, **SIZE).pixels).save(photographs / f"{seed}.png")
    package = photographs.with_name("fitted")
    command = [sys.executable, "-m", "agent", "fit", str(photographs), "--size", "160", "--output", str(package)]
    subprocess.run(command, check=True, capture_output=True)
    with AgentProcess() as running:
        running.run_model("part", package)
        yield running


def settings_for(agent: AgentProcess, address: str, **source: Any) -> dict[str, Any]:
    return {"model": "part", "socket": f"unix://{agent.socket}", "source": {"address": address, **source}}


def test_a_folder(agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, pixels in (("1-good", GOOD), ("2-chipped", CHIPPED), ("3-good", GOOD)):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    with CameraProcess(tmp_path, settings_for(agent, "folder:in")) as camera:
        assert camera.wait() == 0
    assert [told["verdict"] for told in camera.verdicts] == ["pass", "reject", "pass"]
    assert camera.verdicts[1]["anomaly_score"] > camera.verdicts[0]["anomaly_score"]
    assert [area["name"] for area in camera.verdicts[1]["anomalies"]] == ["background", "anomaly"]


@needs_opencv
def test_a_video(agent: AgentProcess, tmp_path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "line.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, tuple(SIZE.values()))
    for pixels in (GOOD, GOOD, CHIPPED, GOOD):
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    writer.release()
    with CameraProcess(tmp_path, settings_for(agent, "video:line.avi", skip_frames=False)) as camera:
        assert camera.wait() == 0
    assert [told["verdict"] for told in camera.verdicts] == ["pass", "pass", "reject", "pass"]


def test_gstreamers_test_source(agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str]) -> None:
    caps = f"video/x-raw,width={SIZE['width']},height={SIZE['height']},framerate=30/1"
    settings = settings_for(agent, f"gstreamer:videotestsrc num-buffers=5 ! {caps}", skip_frames=False)
    with CameraProcess(tmp_path, settings, environment=gstreamer) as camera:
        assert camera.wait() == 0
    assert [told["verdict"] for told in camera.verdicts] == ["reject"] * 5, "colour bars are no good part"


@needs_opencv
def test_an_rtsp_camera(agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str]) -> None:
    with (
        RtspCamera(**SIZE) as network_camera,
        CameraProcess(tmp_path, settings_for(agent, network_camera.address)) as camera,
    ):
        told = camera.wait_for_verdicts(3)
        assert camera.stop() == 0
    assert {verdict["verdict"] for verdict in told} == {"reject"}, "plain red is no good part"
    assert {(verdict["width"], verdict["height"]) for verdict in told} == {(SIZE["width"], SIZE["height"])}
