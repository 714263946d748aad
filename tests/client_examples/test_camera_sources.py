"""Videos, GStreamer pipelines and RTSP streams, from the decoder to the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_process import AgentProcess
from tests.support.camera_process import CameraProcess
from tests.support.gstreamer import RtspCamera, needs_opencv
from tests.support.packages import make_package

WIDTH, HEIGHT = 98, 66  # rows that GStreamer pads: 294 bytes become 296


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """The score is the red of the first pixel: red is anomalous, blue is not."""
    with AgentProcess() as running:
        package = make_package(
            tmp_path_factory.mktemp("packages") / "red",
            task="classification",
            width=WIDTH,
            height=HEIGHT,
            any_size=True,
        )
        running.run_model("red", package)
        yield running


def settings_for(agent: AgentProcess, address: str, **source: Any) -> dict[str, Any]:
    return {
        "model": "red",
        "socket": f"unix://{agent.socket}",
        "source": {"address": address, "reconnect_s": 0.1, **source},
    }


def make_video(path: Path, red: int, blue: int, frames: int = 20, rate: float = 50) -> None:
    import cv2

    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:] = (blue, 0, red)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (WIDTH, HEIGHT))
    for _ in range(frames):
        writer.write(pixels)
    writer.release()


@needs_opencv
@pytest.mark.parametrize(("red", "blue", "verdict"), [(255, 0, "reject"), (0, 255, "pass")])
def test_every_frame_of_a_video_is_inspected_with_red_first(
    agent: AgentProcess, tmp_path: Path, red: int, blue: int, verdict: str
) -> None:
    make_video(tmp_path / "line.avi", red, blue)
    with CameraProcess(tmp_path, settings_for(agent, "video:line.avi", skip_frames=False)) as camera:
        assert camera.wait() == 0
    assert [told["verdict"] for told in camera.verdicts] == [verdict] * 20
    assert {(told["width"], told["height"]) for told in camera.verdicts} == {(WIDTH, HEIGHT)}
    assert camera.counts()["replaced"] == 0


@needs_opencv
def test_frames_of_a_played_video_are_inspected_or_counted_as_replaced(agent: AgentProcess, tmp_path: Path) -> None:
    make_video(tmp_path / "line.avi", 255, 0, frames=200)
    with CameraProcess(tmp_path, settings_for(agent, "video:line.avi", frame_rate=2000)) as camera:
        assert camera.wait() == 0
    counts = camera.counts()
    assert counts["read"] == counts["inspect"] == 200
    assert counts["verdicts"] + counts["replaced"] == 200
    assert counts["verdicts"] == len(camera.verdicts) > 0


@needs_opencv
@pytest.mark.parametrize("address", ["camera:/dev/video99", "rtsp://operator:s3cret@127.0.0.1:1/camera"])
def test_a_camera_that_is_not_there_is_said_once_and_tried_again(
    agent: AgentProcess, tmp_path: Path, address: str
) -> None:
    with CameraProcess(tmp_path, settings_for(agent, address), "--report-every", "0.3") as camera:
        camera.wait_for_log(r"cannot be opened: .*; tried again every 0.1 s\n(.*\n)*.*rates: (.*\n)*.*rates: ")
        assert camera.stop() == 0
    lines = camera.log.read_text().splitlines()
    assert len([line for line in lines if "cannot be opened" in line]) == 1
    assert not [line for line in lines if not line.startswith("20")], "nothing but our own words, each with its time"
    assert "s3cret" not in camera.log.read_text()


@needs_opencv
def test_a_video_is_repeated_and_one_that_is_not_there_is_waited_for(agent: AgentProcess, tmp_path: Path) -> None:
    settings = settings_for(agent, "video:line.avi", at_end="repeat")
    with CameraProcess(tmp_path, settings) as camera:
        camera.wait_for_log("source: line.avi cannot be opened: it is not there; tried again every 0.1 s")
        make_video(tmp_path / "other.avi", 255, 0, frames=5)
        (tmp_path / "other.avi").rename(tmp_path / "line.avi")
        camera.wait_for_verdicts(11)
        assert camera.stop() == 0


def test_a_gstreamer_pipeline_is_inspected_with_red_first(
    agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str]
) -> None:
    """Rows are padded, and blue comes first in the pipeline's own format."""
    caps = f"video/x-raw,format=BGR,width={WIDTH},height={HEIGHT},framerate=30/1"
    settings = settings_for(agent, f"gstreamer:videotestsrc num-buffers=20 pattern=red ! {caps}", skip_frames=False)
    with CameraProcess(tmp_path, settings, environment=gstreamer) as camera:
        assert camera.wait() == 0
    assert [told["anomaly_score"] for told in camera.verdicts] == [1.0] * 20
    assert {(told["width"], told["height"]) for told in camera.verdicts} == {(WIDTH, HEIGHT)}


def test_a_pipeline_that_cannot_be_is_said_and_tried_again(
    agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str]
) -> None:
    with CameraProcess(tmp_path, settings_for(agent, "gstreamer:nonsense"), environment=gstreamer) as camera:
        camera.wait_for_log('source: GStreamer does not take the pipeline: no element "nonsense"')
        assert camera.stop() == 0


@needs_opencv
def test_gstreamer_reads_videos_too(agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str]) -> None:
    make_video(tmp_path / "line.avi", 255, 0)
    settings = settings_for(agent, "video:line.avi", reader="gstreamer", skip_frames=False)
    with CameraProcess(tmp_path, settings, environment=gstreamer) as camera:
        assert camera.wait() == 0
    assert [told["verdict"] for told in camera.verdicts] == ["reject"] * 20


@pytest.mark.slow
@pytest.mark.parametrize("reader", [pytest.param("opencv", marks=needs_opencv), "gstreamer"])
def test_an_rtsp_camera_may_be_switched_off_and_on(
    agent: AgentProcess, tmp_path: Path, gstreamer: Mapping[str, str], reader: str
) -> None:
    with RtspCamera() as network_camera:
        settings = settings_for(agent, network_camera.address, reader=reader, silence_s=3)
        with CameraProcess(tmp_path, settings, environment=gstreamer) as camera:
            camera.wait_for_verdicts(5)
            network_camera.switch_off()
            camera.wait_for_log("source: .*tried again every 0.1 s")
            before = len(camera.verdicts)
            network_camera.switch_on()
            told = camera.wait_for_verdicts(before + 5)
            assert camera.stop() == 0
    assert {verdict["verdict"] for verdict in told} == {"reject"}
