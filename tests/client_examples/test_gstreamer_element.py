"""The GStreamer element as an engineer runs it: `gst-launch-1.0`, and a real agent with a fitted model."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.agent_process import AgentProcess, detect, freeze, inline_request, wait_for
from tests.support.checkout import ROOT
from tests.support.fitted_model import HEIGHT, WIDTH, plate

FOLDER = ROOT / "client_examples" / "gstreamer"
PACKAGES = "gstreamer1.0-python3-plugin-loader python3-gst-1.0 gstreamer1.0-tools gstreamer1.0-plugins-good"
GREEN, RED = (30, 123, 52), (179, 38, 30)
FRAME = 2  # pixels that are drawn around the picture

Environment = dict[str, str]

ROW_BYTES = 320
WIDE_ROWS = """
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import Gst, GstVideo

element, width, height, row = sys.argv[1], *map(int, sys.argv[2:])
Gst.init(None)
caps = f"video/x-raw,format=RGB,width={width},height={height},framerate=1/1"
pipeline = Gst.parse_launch(f"appsrc name=frames format=time caps={caps} ! {element} ! fakesink")
buffer = Gst.Buffer.new_wrapped(Path("frame.raw").read_bytes())
GstVideo.buffer_add_video_meta_full(
    buffer, GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.RGB, width, height, 1, [0, 0, 0, 0], [row, 0, 0, 0]
)
pipeline.set_state(Gst.State.PLAYING)
source = pipeline.get_by_name("frames")
source.emit("push-buffer", buffer)
source.emit("end-of-stream")
wanted = Gst.MessageType.ELEMENT | Gst.MessageType.ERROR
message = pipeline.get_bus().timed_pop_filtered(20 * Gst.SECOND, wanted)
print(message.get_structure().get_value("anomaly_score"))
pipeline.set_state(Gst.State.NULL)
"""


@pytest.fixture(scope="module")
def gstreamer(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which GStreamer finds the element, and the element what this Python has installed."""
    system = shutil.which("python3", path="/usr/bin")
    version = system and subprocess.run([system, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    if not version or version.split(".")[:2] != [str(number) for number in sys.version_info[:2]]:
        pytest.skip(f"the system's Python, GStreamer's, is {version}: this one's packages are not for it")
    environment = {
        "GST_PLUGIN_PATH": str(FOLDER / "plugins"),
        "GST_REGISTRY": str(tmp_path_factory.mktemp("gstreamer") / "registry"),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip(f"not installed: {PACKAGES}")
    for element in ("edgeagent", "pngdec", "videoconvert"):
        asked = ["gst-inspect-1.0", "--exists", element]
        if subprocess.run(asked, env=os.environ | environment, capture_output=True, check=False).returncode:
            pytest.skip(f"GStreamer has no {element}: {PACKAGES}")
    return environment


@pytest.fixture(scope="module")
def agent(plates: Path) -> Iterator[AgentProcess]:
    """For tests that leave the agent as it is."""
    with AgentProcess() as running:
        running.run_model("plates", plates)
        yield running


class Pipeline:
    """`gst-launch-1.0 -m` with a pipeline; killed, where it still runs, on leaving."""

    def __init__(self, folder: Path, environment: Environment, description: str) -> None:
        self._log = folder / "launch.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["gst-launch-1.0", "-m", *description.split()],
                cwd=folder,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
            )

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(20)

    def interrupt(self) -> int:
        """Asks it to end, as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def verdicts(self) -> list[str]:
        return re.findall(r"edge-agent, .*verdict=\(string\)(\w+)", self.said)

    @property
    def scores(self) -> list[float]:
        return [float(score) for score in re.findall(r"anomaly_score=\(double\)([0-9.e-]+)", self.said)]

    @property
    def anomalies(self) -> list[list[dict[str, Any]]]:
        """The anomaly types of each answer; gst-launch puts backslashes before whatever is no letter or number."""
        told = re.findall(r'anomalies=\(string\)"((?:\\.|[^"])*)"', self.said)
        return [json.loads(re.sub(r"\\(.)", r"\1", text)) for text in told]

    @property
    def segments(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"edge-agent-client-{self.process.pid}-*"))

    def wait_for_verdicts(self, verdict: str, count: int) -> None:
        wait_for(
            f"{count} times {verdict}",
            lambda: self.verdicts.count(verdict) >= count or self.process.poll() is not None,
        )
        assert self.process.poll() is None, self.said


def run(folder: Path, environment: Environment, description: str) -> tuple[int, Pipeline]:
    """The exit code of a pipeline that ends by itself, and what it said."""
    with Pipeline(folder, environment, description) as pipeline:
        code = pipeline.wait()
        assert not pipeline.segments
        return code, pipeline


def element(agent: AgentProcess, properties: str = "") -> str:
    return f"edgeagent model=plates socket=unix://{agent.socket} patience=20 {properties}"


def put_plate(path: Path, seed: int = 100, scratched: bool = False) -> NDArray[np.uint8]:
    pixels = plate(seed, scratched)
    Image.fromarray(pixels).save(path)
    return pixels


def through_element(
    folder: Path, environment: Environment, agent: AgentProcess, properties: str = ""
) -> tuple[Pipeline, NDArray[np.uint8]]:
    """What became of `in.png`, and what was said of it."""
    front = "filesrc location=in.png ! pngdec ! videoconvert"
    code, pipeline = run(
        folder,
        environment,
        f"{front} ! {element(agent, properties)} ! videoconvert ! pngenc ! filesink location=out.png",
    )
    assert code == 0, pipeline.said
    with Image.open(folder / "out.png") as picture:
        return pipeline, np.asarray(picture.convert("RGB"))


def steady(agent: AgentProcess, properties: str = "") -> str:
    """A camera that sees `in.png`, for ever."""
    camera = "filesrc location=in.png ! pngdec ! imagefreeze is-live=true ! video/x-raw,framerate=25/1 ! videoconvert"
    return f"{camera} ! queue leaky=downstream max-size-buffers=1 ! {element(agent, properties)} ! fakesink"


def test_the_files_shared_with_the_sample_client_are_the_same() -> None:
    detect, ours = (ROOT / "client_examples" / folder / "edge_agent_client.py" for folder in ("detect", "gstreamer"))
    assert ours.read_text() == detect.read_text(), f"copy {detect} to {ours}"


def test_the_readmes_line_runs(agent: AgentProcess, tmp_path: Path, gstreamer: Environment) -> None:
    line = re.search(r"^gst-launch-1\.0 -m (videotestsrc .*)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    description = line[1]
    for documented, ours in (
        ("model=Plates", f"model=plates socket=unix://{agent.socket}"),
        ("width=640,height=480", f"width={WIDTH},height={HEIGHT}"),
        ("autovideosink", "fakesink"),
    ):
        assert documented in description
        description = description.replace(documented, ours)
    code, pipeline = run(tmp_path, gstreamer, description)
    assert code == 0, pipeline.said
    assert 1 <= pipeline.verdicts.count("reject") == len(pipeline.verdicts) <= 30, "a test picture is no plate"


def test_a_good_frame_passes_and_gets_a_green_frame(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment
) -> None:
    pixels = put_plate(tmp_path / "in.png")
    pipeline, drawn = through_element(tmp_path, gstreamer, agent)
    assert pipeline.verdicts == ["pass"]
    assert (drawn[FRAME:-FRAME, FRAME:-FRAME] == pixels[FRAME:-FRAME, FRAME:-FRAME]).all()
    for side in (drawn[:FRAME], drawn[-FRAME:], drawn[:, :FRAME], drawn[:, -FRAME:]):
        assert (side == GREEN).all()


def test_an_anomalous_frame_is_rejected_and_shows_where(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment
) -> None:
    pixels = put_plate(tmp_path / "in.png", 101, scratched=True)
    pipeline, drawn = through_element(tmp_path, gstreamer, agent)
    answer = detect(agent.stub(), inline_request("plates", pixels))
    assert pipeline.verdicts == ["reject"]
    assert pipeline.scores == [pytest.approx(answer.anomaly_score)]
    [found_types] = pipeline.anomalies
    assert [anomaly["name"] for anomaly in found_types] == ["background", "anomaly"]
    assert found_types[1]["total_percentage_area"] == answer.anomalies[1].pixel_anomaly.total_percentage_area
    mask = np.frombuffer(answer.anomaly_mask.byte_data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    expected = pixels.copy()
    found = (mask != 255).any(axis=2)
    expected[found] = (0.6 * pixels[found] + 0.4 * mask[found]).astype(np.uint8)
    assert found.any()
    assert (drawn[FRAME:-FRAME, FRAME:-FRAME] == expected[FRAME:-FRAME, FRAME:-FRAME]).all()
    assert (drawn[:FRAME] == RED).all()


def test_frames_stay_as_they_are_where_nothing_is_to_be_drawn(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment
) -> None:
    pixels = put_plate(tmp_path / "in.png", 101, scratched=True)
    pipeline, passed = through_element(tmp_path, gstreamer, agent, "draw=false")
    assert pipeline.verdicts == ["reject"]
    assert (passed == pixels).all()


@pytest.mark.parametrize("drawing", ["true", "false"])
def test_rows_may_have_a_length_of_their_own(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment, drawing: str
) -> None:
    """As hardware gives them; what fills them up must not be taken for pixels."""
    pixels = plate(100)
    rows = np.zeros((HEIGHT, ROW_BYTES), np.uint8)
    rows[:, : 3 * WIDTH] = pixels.reshape(HEIGHT, -1)
    (tmp_path / "frame.raw").write_bytes(rows.tobytes())
    ran = subprocess.run(
        ["/usr/bin/python3", "-c", WIDE_ROWS, element(agent, f"draw={drawing}"), *map(str, (WIDTH, HEIGHT, ROW_BYTES))],
        cwd=tmp_path,
        env=os.environ | gstreamer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    answer = detect(agent.stub(), inline_request("plates", pixels))
    assert float(ran.stdout) == pytest.approx(answer.anomaly_score)


def test_a_frame_of_another_size_is_uncertain_and_why_is_said_once(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment
) -> None:
    source = "videotestsrc num-buffers=3 ! video/x-raw,width=128,height=96"
    code, pipeline = run(tmp_path, gstreamer, f"{source} ! {element(agent)} ! fakesink")
    assert code == 0, pipeline.said
    assert pipeline.verdicts == ["uncertain"] * 3
    assert len(re.findall(r"^WARNING: .*INVALID_ARGUMENT: The image is 128 x 96", pipeline.said, re.MULTILINE)) == 1


def test_the_pipeline_can_be_asked_to_end_with_an_error(
    agent: AgentProcess, tmp_path: Path, gstreamer: Environment
) -> None:
    source = "videotestsrc num-buffers=3 ! video/x-raw,width=128,height=96"
    code, pipeline = run(tmp_path, gstreamer, f"{source} ! {element(agent, 'stop-on-error=true')} ! fakesink")
    assert code != 0
    assert re.search(r"^ERROR: .*INVALID_ARGUMENT: The image is 128 x 96", pipeline.said, re.MULTILINE)


def test_a_model_is_started_and_a_restart_of_the_agent_ends_no_pipeline(
    plates: Path, tmp_path: Path, gstreamer: Environment
) -> None:
    put_plate(tmp_path / "in.png")
    with AgentProcess() as agent:
        agent.register("plates", plates)
        with Pipeline(tmp_path, gstreamer, steady(agent, "patience=5")) as pipeline:
            pipeline.wait_for_verdicts("pass", 3)
            # There may be some already: from before the agent had seen the record.
            unanswered = pipeline.verdicts.count("uncertain")
            agent.kill()
            pipeline.wait_for_verdicts("uncertain", unanswered + 3)
            answered = pipeline.verdicts.count("pass")
            agent.start()
            pipeline.wait_for_verdicts("pass", answered + 3)
            assert pipeline.interrupt() == 0
            assert not pipeline.segments
    assert re.search(r"^WARNING: .*UNAVAILABLE", pipeline.said, re.MULTILINE)
    assert "reject" not in pipeline.verdicts


def test_ending_does_not_wait_for_an_agent_that_hangs(plates: Path, tmp_path: Path, gstreamer: Environment) -> None:
    put_plate(tmp_path / "in.png")
    with AgentProcess() as agent:
        agent.run_model("plates", plates)
        with Pipeline(tmp_path, gstreamer, steady(agent, "patience=600")) as pipeline:
            pipeline.wait_for_verdicts("pass", 3)
            freeze(agent.running.pid)
            assert pipeline.interrupt() == 0
            assert not pipeline.segments
        agent.kill()


@pytest.mark.parametrize("properties", ["", "model=plates"], ids=["no model named", "no grpcio"])
def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, gstreamer: Environment, properties: str) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError(\"No module named 'grpc'\")")
    without = gstreamer | {"PYTHONPATH": f"{tmp_path}:{gstreamer['PYTHONPATH']}"}
    code, pipeline = run(tmp_path, without, f"videotestsrc num-buffers=1 ! edgeagent {properties} ! fakesink")
    assert code != 0
    expected = "No module named 'grpc': install .*requirements.txt" if properties else "edgeagent model=NAME"
    assert re.search(f"^ERROR: .*{expected}", pipeline.said, re.MULTILINE)
