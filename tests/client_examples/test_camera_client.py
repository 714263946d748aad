"""The camera client as a line runs it: a process that talks to a real agent with a tiny model."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agent.wire import edge_agent_pb2 as wire
from tests.support.agent_process import AgentProcess, names, wait_for
from tests.support.camera_process import CameraProcess, put_picture
from tests.support.packages import HEIGHT, WIDTH, grey, make_package

Settings = dict[str, Any]


@pytest.fixture(scope="module")
def shared_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """For tests that leave the agent as it is. Its model calls dark pictures anomalous."""
    with AgentProcess() as agent:
        agent.run_model("parts", make_package(tmp_path_factory.mktemp("packages") / "parts"))
        yield agent


def settings_for(agent: AgentProcess, address: str = "folder:in", **source: Any) -> Settings:
    return {
        "model": "parts",
        "socket": f"unix://{agent.socket}",
        "source": {"address": address, "reconnect_s": 0.1, **source},
    }


def test_a_folder_is_inspected_in_counting_order_and_the_client_ends(
    shared_agent: AgentProcess, tmp_path: Path
) -> None:
    for number in (1, 2, 10):
        put_picture(tmp_path / "in", f"part-{number}.png", 0 if number == 2 else 255)
    settings = settings_for(shared_agent) | {"overlays": {"folder": "found"}, "name": "line-1"}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
        assert not camera.segments
    first, second, third = camera.verdicts
    assert [first["file"], second["file"], third["file"]] == ["part-1.png", "part-2.png", "part-10.png"]
    assert [first["verdict"], second["verdict"], third["verdict"]] == ["pass", "reject", "pass"]
    assert second["anomaly_score"] == 1.0
    assert second["anomalies"][1] == {"name": "anomaly", "total_percentage_area": 1.0, "hex_color": "#23A436"}
    assert second["model_version"] == "1.0.0"
    assert (second["width"], second["height"], second["camera"]) == (WIDTH, HEIGHT, "line-1")
    assert len({first["id"], second["id"], third["id"]}) == 3
    assert camera.counts() == {
        "read": 3, "inspect": 3, "replaced": 0, "verdicts": 3, "pass": 2, "reject": 1, "uncertain": 0, "without": 0,
    }  # fmt: skip
    [overlay] = (tmp_path / "found").iterdir()
    assert overlay.name == f"{second['id']}-reject.jpg"
    with Image.open(overlay) as image:
        assert image.width == WIDTH
        assert image.height > HEIGHT


def test_pictures_are_cropped_and_then_rotated(shared_agent: AgentProcess, tmp_path: Path) -> None:
    """What is kept for the next model is what the agent has seen."""
    frame = np.full((WIDTH + 20, HEIGHT + 30, 3), 128, np.uint8)
    frame[10, 20] = (255, 0, 7)  # the crop's corner, top left; after a quarter turn clockwise, top right
    (tmp_path / "in").mkdir()
    Image.fromarray(frame).save(tmp_path / "in" / "one.png")
    settings = settings_for(shared_agent) | {
        "picture": {"crop": {"x": 20, "y": 10, "width": HEIGHT, "height": WIDTH}, "rotate": 90},
        "capture": {"folder": "kept", "one_in": 1},
    }
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    [kept] = (path for path in (tmp_path / "kept/pictures").iterdir() if "mask" not in path.name)
    with Image.open(kept) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert tuple(pixels[0, -1]) == (255, 0, 7)
    assert (pixels.reshape(-1, 3) == 128).all(axis=1).sum() == HEIGHT * WIDTH - 1


def test_uncertain_pictures_and_a_sample_of_the_rest_are_kept_with_request_and_answer(
    shared_agent: AgentProcess, tmp_path: Path
) -> None:
    for number, brightness in enumerate((255, 130, 255, 0, 120, 255), start=1):
        put_picture(tmp_path / "in", f"{number}.png", brightness)
    settings = settings_for(shared_agent) | {"capture": {"folder": "kept", "uncertain_band": 0.05, "one_in": 2}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    lines = [json.loads(line) for line in (tmp_path / "kept/capture.manifest").read_text().splitlines()]
    assert [line["inspection"]["file"] for line in lines] == ["2.png", "3.png", "5.png", "6.png"]
    line = lines[2]
    with Image.open(tmp_path / "kept" / line["source-ref"]) as image:
        assert (np.asarray(image) == grey(120)).all(), "stored losslessly"
    with Image.open(tmp_path / "kept" / line["anomaly-mask-ref-detected"]) as mask:
        assert mask.getpixel((0, 0)) == (0x23, 0xA4, 0x36)
    assert line["anomaly-label-detected"] == 1
    detected = line["anomaly-label-detected-metadata"]
    assert (detected["class-name"], detected["human-annotated"]) == ("anomaly", "no")
    assert detected["type"] == "groundtruth/image-classification"
    assert detected["model-arn"] == "arn:aws:lookoutvision:eu-central-1:123456789012:model/tiny/1"
    assert (detected["project-name"], detected["model-version"]) == ("tiny", "1.0.0")
    colours = line["anomaly-mask-ref-detected-metadata"]["internal-color-map"]
    assert colours["1"] == {"class-name": "anomaly", "hex-color": "#23A436", "total-percentage-area": 1.0}
    inspection = line["inspection"]
    assert (inspection["model"], inspection["anomaly_threshold"]) == ("parts", 0.5)
    assert inspection["details"]["model-version"] == "1.0.0"
    assert not [key for key in line if key.startswith("anomaly-") and "-detected" not in key], "no label is made up"


def test_kept_pictures_stay_within_their_budget_and_the_manifest_names_those_that_are_there(
    shared_agent: AgentProcess, tmp_path: Path
) -> None:
    """Each picture of noise takes some 18 KB, and its mask one more."""
    noise = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(1, 13):
        pixels = noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    settings = settings_for(shared_agent) | {"capture": {"folder": "kept", "one_in": 1, "most_megabytes": 0.1}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    lines = [json.loads(line) for line in (tmp_path / "kept/capture.manifest").read_text().splitlines()]
    assert camera.sink_counts("capture")["written"] == 12
    assert [line["inspection"]["file"] for line in lines] == [f"{n}.png" for n in range(13 - len(lines), 13)]
    assert 2 <= len(lines) <= 6
    for line in lines:
        assert (tmp_path / "kept" / line["source-ref"]).is_file()
        assert (tmp_path / "kept" / line["anomaly-mask-ref-detected"]).is_file()
    assert sum(path.stat().st_size for path in (tmp_path / "kept/pictures").iterdir()) <= 100_000


def test_the_line_goes_on_while_the_agent_is_killed_and_restarted(tmp_path: Path) -> None:
    with AgentProcess() as agent:
        agent.run_model("parts", make_package(tmp_path / "package"))
        settings = settings_for(agent, at_end="wait") | {"patience_s": 60}
        put_picture(tmp_path / "in", "1-before.png")
        with CameraProcess(tmp_path, settings, "--report-every", "0.1") as camera:
            camera.wait_for_verdicts(1)
            agent.kill()
            put_picture(tmp_path / "in", "2-meanwhile.png", 0)
            camera.wait_for_log("1 to inspect, 0 replaced by newer ones, 0 verdicts")
            agent.start()
            put_picture(tmp_path / "in", "3-after.png")
            verdicts = camera.wait_for_verdicts(3)
            assert camera.stop() == 0
        assert [(told["file"], told["verdict"]) for told in verdicts] == [
            ("1-before.png", "pass"), ("2-meanwhile.png", "reject"), ("3-after.png", "pass"),
        ]  # fmt: skip
        assert camera.counts()["verdicts"] == 3
        assert camera.counts()["without"] == 0


def test_a_frame_that_nobody_answers_in_time_is_uncertain(tmp_path: Path) -> None:
    """The client may be there before the agent; when that comes, its model is started."""
    with AgentProcess() as agent:
        agent.kill()
        settings = settings_for(agent, at_end="wait") | {"patience_s": 0.2}
        put_picture(tmp_path / "in", "early.png")
        with CameraProcess(tmp_path, settings) as camera:
            [early] = camera.wait_for_verdicts(1)
            assert early["verdict"] == "uncertain"
            address = f"unix://{agent.socket}"
            said = (f"no agent is at {address}; start it, or name", f"the agent at {address} does not answer; if")
            assert early["reason"].startswith(tuple(f"no answer: UNAVAILABLE: {sentence}" for sentence in said))
            agent.register("parts", make_package(tmp_path / "package"))
            agent.start()
            camera.wait_for_log("parts RUNNING")
            put_picture(tmp_path / "in", "late.png")
            assert camera.wait_for_verdicts(2)[1]["verdict"] == "pass"
            assert camera.stop() == 0
        assert camera.counts()["without"] == 1


def test_the_first_picture_waits_until_a_model_that_never_ran_is_started(tmp_path: Path) -> None:
    """And pictures after somebody has stopped it."""
    with AgentProcess() as agent:
        agent.register("parts", make_package(tmp_path / "package"))
        wait_for("the model to be listed", lambda: names(agent.stub()) == ["parts"])
        put_picture(tmp_path / "in", "1.png")
        with CameraProcess(tmp_path, settings_for(agent, at_end="wait") | {"patience_s": 60}) as camera:
            camera.wait_for_verdicts(1)
            agent.stub().StopModel(wire.StopModelRequest(model_component="parts"))
            put_picture(tmp_path / "in", "2.png", 0)
            assert [told["verdict"] for told in camera.wait_for_verdicts(2)] == ["pass", "reject"]
            assert camera.stop() == 0
        assert camera.counts()["without"] == 0
        assert camera.log.read_text().count("model: parts did not run: it is started") == 2


def test_a_picture_the_agent_refuses_is_uncertain_and_the_next_is_inspected(
    shared_agent: AgentProcess, tmp_path: Path
) -> None:
    put_picture(tmp_path / "in", "1.png", size=(WIDTH + 1, HEIGHT))
    put_picture(tmp_path / "in", "2.png")
    with CameraProcess(tmp_path, settings_for(shared_agent)) as camera:
        assert camera.wait() == 0
    refused, fine = camera.verdicts
    assert refused["verdict"] == "uncertain"
    assert "INVALID_ARGUMENT" in refused["reason"]
    assert fine["verdict"] == "pass"


def test_the_line_goes_on_when_the_camera_is_away_for_a_while(shared_agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "1.png")
    with CameraProcess(tmp_path, settings_for(shared_agent, at_end="wait")) as camera:
        camera.wait_for_verdicts(1)
        shutil.rmtree(tmp_path / "in")
        camera.wait_for_log("source: in: No such file or directory; tried again every 0.1 s")
        put_picture(tmp_path / "in", "2.png")
        assert [told["file"] for told in camera.wait_for_verdicts(2)] == ["1.png", "2.png"]
        camera.wait_for_log("source: again as it should be")
        assert camera.segments
        assert camera.stop() == 0
        assert not camera.segments, "memory is given back"


def test_a_half_written_picture_is_inspected_when_it_is_whole(shared_agent: AgentProcess, tmp_path: Path) -> None:
    whole = put_picture(tmp_path / "elsewhere", "one.png").read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.png").write_bytes(whole[: len(whole) // 2])
    put_picture(tmp_path / "in", "two.png")
    with CameraProcess(tmp_path, settings_for(shared_agent, at_end="wait")) as camera:
        camera.wait_for_verdicts(1)
        (tmp_path / "in" / "one.png").write_bytes(whole)
        assert [told["file"] for told in camera.wait_for_verdicts(2)] == ["two.png", "one.png"]
        assert camera.stop() == 0


def test_a_full_disk_costs_lines_and_pictures_but_not_the_line(shared_agent: AgentProcess, tmp_path: Path) -> None:
    """A limit on the size of files makes writes fail half-way, as a full disk does, and can be lifted."""
    for number in (1, 2, 3):  # as many as there are segments, which count as files
        put_picture(tmp_path / "in", f"{number}.png", 0)
    settings = settings_for(shared_agent, at_end="wait") | {"overlays": {"folder": "found"}, "in_flight": 1}
    with CameraProcess(tmp_path, settings) as camera:
        before = camera.wait_for_verdicts(3)
        wait_for("the overlays", lambda: len(list((tmp_path / "found").glob("camera-*.jpg"))) == 3)
        pid, size = camera.process.pid, (tmp_path / "verdicts.jsonl").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
        put_picture(tmp_path / "in", "4.png", 0)
        camera.wait_for_log("json_lines: .*(File too large|No space left)")
        camera.wait_for_log("overlays: .*File too large")
        assert camera.verdicts == before
        assert (tmp_path / "verdicts.jsonl").stat().st_size == size, "no half line is left"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        put_picture(tmp_path / "in", "5.png", 0)
        assert [told["file"] for told in camera.wait_for_verdicts(4)] == ["1.png", "2.png", "3.png", "5.png"]
        assert camera.stop() == 0
    assert camera.counts()["verdicts"] == 5
    assert camera.sink_counts("json_lines") == {"written": 4, "failed": 1, "dropped": 0}
    assert camera.sink_counts("overlays") == {"written": 4, "failed": 1, "dropped": 0}
    assert len(list((tmp_path / "found").iterdir())) == 4


def test_a_file_triggers_and_is_removed(shared_agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "one.png")
    settings = settings_for(shared_agent, frame_rate=50, skip_frames=True, at_end="repeat") | {
        "trigger": {"kind": "file", "path": "now"}
    }
    with CameraProcess(tmp_path, settings) as camera:
        camera.wait_for_log("parts RUNNING")
        assert camera.verdicts == []
        for count in (1, 2):
            (tmp_path / "now").touch()
            camera.wait_for_verdicts(count)
            assert not (tmp_path / "now").exists()
        assert camera.stop() == 0
    assert camera.counts()["verdicts"] == camera.counts()["inspect"] == 2


def test_the_gate_is_moved_for_rejected_parts_only(shared_agent: AgentProcess, tmp_path: Path) -> None:
    for number, brightness in enumerate((255, 0, 255), start=1):
        put_picture(tmp_path / "in", f"{number}.png", brightness)
    script = 'echo "$VERDICT $ID" >> moved'
    settings = settings_for(shared_agent) | {"gate": {"command": ["sh", "-c", script], "within_ms": 20_000}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    assert (tmp_path / "moved").read_text() == f"reject {camera.verdicts[1]['id']}\n"


def test_a_gate_that_would_hit_the_next_part_stays(shared_agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "1.png", 0)
    settings = settings_for(shared_agent) | {"gate": {"command": ["touch", "moved"], "within_ms": 0.001}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    assert not (tmp_path / "moved").exists()
    assert camera.sink_counts("gate") == {"written": 0, "failed": 1, "dropped": 0}


def test_a_program_that_fails_is_said_and_the_line_goes_on(shared_agent: AgentProcess, tmp_path: Path) -> None:
    for number in (1, 2):
        put_picture(tmp_path / "in", f"{number}.png", 0)
    settings = settings_for(shared_agent) | {"gate": {"command": ["false"], "within_ms": 20_000}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    assert camera.log.read_text().count("false ended with code 1") == 1, "said once"
    assert camera.sink_counts("gate")["failed"] == 2


def test_rates_are_logged(shared_agent: AgentProcess, tmp_path: Path) -> None:
    put_picture(tmp_path / "in", "one.png")
    with CameraProcess(tmp_path, settings_for(shared_agent, at_end="wait"), "--report-every", "0.2") as camera:
        camera.wait_for_log(
            r"1 to inspect, 0 replaced by newer ones, 1 verdicts \(\d+\.\d/s\).*frame to verdict \d+ ms"
        )
        assert camera.stop() == 0


def test_a_library_that_is_missing_is_named_with_where_it_is_required(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text('raise ImportError("not installed")')
    settings = {"model": "parts", "source": {"address": "video:line.mp4"}}
    with CameraProcess(tmp_path, settings, environment={"PYTHONPATH": str(tmp_path)}) as camera:
        assert camera.wait() == 2
    assert camera.log.read_text() == "source: this needs OpenCV (requirements-opencv.txt): not installed\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source": {"address": "usb:1"}}, "source.address: 'usb:1' is none of camera:DEVICE, rtsp://"),
        ({"rules": {"confidence": 2}}, "rules.confidence: Expected `float` <= 1.0"),
        ({"sink": {}}, "sink: there is no such setting; there are model, source, name,"),
    ],
)
def test_wrong_settings_end_it_with_a_sentence(tmp_path: Path, change: Settings, sentence: str) -> None:
    with CameraProcess(tmp_path, {"model": "parts", "source": {"address": "folder:in"}} | change) as camera:
        assert camera.wait() == 2
    assert sentence in camera.log.read_text()
    assert "Traceback" not in camera.log.read_text()
