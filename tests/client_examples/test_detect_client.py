"""The sample client as a person runs it: a subprocess that talks to an agent (here a small fake one)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import TextIO

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from agent.wire import edge_agent_pb2 as messages
from agent.wire import edge_agent_pb2_grpc as services

SCRIPT = Path(__file__).parents[2] / "client_examples" / "detect" / "detect.py"
SHARED_MEMORY = Path("/dev/shm")
GREEN = (0x23, 0xA4, 0x36)
WIDTH, HEIGHT = 96, 64
ROW_OF_THE_MARK, COLUMN_OF_THE_MARK = slice(10, 30), slice(20, 60)


class FakeAgent(services.EdgeAgentServicer):
    """Answers like an agent whose model finds bright pictures anomalous, in a rectangle that is always the same."""

    def __init__(self) -> None:
        self.status = messages.RUNNING
        self.status_message = "version 1, fake runtime"
        self.next_statuses: list[int] = []  # what the following descriptions show, one each
        self.calls: list[str] = []
        self.unavailable_times = 0  # so many detections fail as in a restart
        self.status_after_restart = messages.RUNNING
        self.detecting = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.details: tuple[tuple[str, str], ...] = ()

    def ListModels(self, request, context):  # noqa: N802 - the wire's name
        self.calls.append("ListModels")
        return messages.ListModelsResponse(
            models=[
                messages.ModelMetadata(model_component="Bolts", status=self.status, status_message=self.status_message),
                messages.ModelMetadata(model_component="Seals", status=messages.STOPPED),
            ]
        )

    def DescribeModel(self, request, context):  # noqa: N802
        self.calls.append("DescribeModel")
        if request.model_component != "Bolts":
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.model_component!r}")
        if self.next_statuses:
            self.status = self.next_statuses.pop(0)
        return messages.DescribeModelResponse(
            model_description=messages.ModelDescription(
                model_component="Bolts", status=self.status, status_message=self.status_message
            )
        )

    def StartModel(self, request, context):  # noqa: N802
        self.calls.append("StartModel")
        self.status = messages.STARTING
        return messages.StartModelResponse(status=messages.STARTING)

    def StopModel(self, request, context):  # noqa: N802
        self.calls.append("StopModel")
        self.status = messages.STOPPED
        return messages.StopModelResponse(status=messages.STOPPED)

    def DetectAnomalies(self, request, context):  # noqa: N802
        by_handle = request.bitmap.WhichOneof("data") == "shared_memory_handle"
        self.calls.append("DetectAnomalies by handle" if by_handle else "DetectAnomalies by message")
        self.detecting.set()
        self.may_answer.wait(10)
        if self.unavailable_times:
            self.unavailable_times -= 1
            self.status = self.status_after_restart
            context.abort(grpc.StatusCode.UNAVAILABLE, "the agent is draining")
        if self.status != messages.RUNNING:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the model is not RUNNING")
        context.set_trailing_metadata(self.details)
        width, height = request.bitmap.width, request.bitmap.height
        if width < 64:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the image is {width} pixels wide, at least 64 are needed")
        pixels = self._pixels(request.bitmap)
        assert pixels.size == width * height * 3
        bright = float(pixels.mean()) / 255
        mask = np.full((height, width, 3), 255, np.uint8)
        if bright >= 0.5:
            mask[ROW_OF_THE_MARK, COLUMN_OF_THE_MARK] = GREEN
        area = float((mask != 255).any(axis=2).mean())
        result = messages.DetectAnomalyResult(
            is_anomalous=bright >= 0.5,
            confidence=max(bright, 1 - bright),
            anomaly_score=bright,
            anomaly_threshold=0.5,
            anomaly_mask=self._put(mask, request),
            anomalies=[_anomaly("background", 1 - area, "#FFFFFF")],
        )
        if area:
            result.anomalies.append(_anomaly("scratch", area, "#23A436"))
        return messages.DetectAnomaliesResponse(detect_anomaly_result=result)

    @staticmethod
    def _pixels(bitmap):
        if bitmap.WhichOneof("data") == "byte_data":
            return np.frombuffer(bitmap.byte_data, np.uint8)
        handle = bitmap.shared_memory_handle
        with (SHARED_MEMORY / handle.name).open("rb") as segment:
            return np.frombuffer(os.pread(segment.fileno(), handle.size, handle.offset), np.uint8)

    @staticmethod
    def _put(mask, request):
        answer = messages.Bitmap(width=mask.shape[1], height=mask.shape[0])
        if not request.HasField("anomaly_mask_params"):
            answer.byte_data = mask.tobytes()
            return answer
        handle = request.anomaly_mask_params.shared_memory_handle
        assert handle.size >= mask.size
        with (SHARED_MEMORY / handle.name).open("r+b") as segment:
            os.pwrite(segment.fileno(), mask.tobytes(), handle.offset)
        answer.shared_memory_handle.name = handle.name
        answer.shared_memory_handle.offset = handle.offset
        answer.shared_memory_handle.size = mask.size
        return answer


def _anomaly(name: str, area: float, colour: str) -> messages.Anomaly:
    return messages.Anomaly(
        name=name, pixel_anomaly=messages.PixelAnomaly(total_percentage_area=area, hex_color=colour)
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because the path of a socket ends at 107 bytes."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def agent(folder: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    services.add_EdgeAgentServicer_to_server(fake, server)
    server.add_insecure_port(f"unix://{folder}/agent.sock")
    server.start()
    yield fake
    fake.may_answer.set()
    server.stop(grace=0).wait()


def start_client(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """The script as a process, in another folder than its own."""
    command = [sys.executable, SCRIPT, "--socket", f"unix://{folder}/agent.sock", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_client(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    process = start_client(folder, *arguments)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def draw(path: Path, brightness: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (brightness, brightness, brightness)).save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def segments_of(process_id: int) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"edge-agent-client-{process_id}-*"))


BY_MESSAGE_AND_BY_SHARED_MEMORY = pytest.mark.parametrize("flags", [[], ["--shared-memory"]], ids=["message", "shared"])


@BY_MESSAGE_AND_BY_SHARED_MEMORY
def test_pictures_are_answered_in_a_table_with_overlays_masks_and_json(
    agent: FakeAgent, folder: Path, flags: list[str]
) -> None:
    draw(folder / "in" / "good.png", 20)
    draw(folder / "in" / "bad.png", 240)
    result = run_client(
        folder, "Bolts", "in", *flags, "--overlays", "out/overlays", "--masks", "out/masks", "--json", "answers.jsonl"
    )
    assert result.returncode == 0, result.stderr
    how = "DetectAnomalies by handle" if flags else "DetectAnomalies by message"
    assert agent.calls == ["DescribeModel", how, how]

    head, bad, good, summary = result.stdout.splitlines()
    assert head.split() == ["picture", "verdict", "confidence", "score", "threshold", "ms", "types", "and", "areas"]
    assert re.fullmatch(r"bad\.png +ANOMALOUS +0\.941 +0\.941 >= +0\.500 +[0-9.]+ +scratch 13\.0 %", bad)
    assert re.fullmatch(r"good\.png +normal +0\.922 +0\.078 < +0\.500 +[0-9.]+", good)
    assert summary.startswith("2 of 2 answered, 1 anomalous, median ")
    assert "images/s" in summary

    mask = pixels_of(folder / "out/masks/bad.png")
    assert mask.shape == (HEIGHT, WIDTH, 3)
    assert (mask[ROW_OF_THE_MARK, COLUMN_OF_THE_MARK] == GREEN).all()
    assert (pixels_of(folder / "out/masks/good.png") == 255).all()
    with Image.open(folder / "out/overlays/bad.png") as overlay:
        assert overlay.width == WIDTH
        assert overlay.height > HEIGHT
        pixels = np.asarray(overlay)
    inside, outside = pixels[20, 40].astype(int), pixels[40, 80]
    assert inside[1] > inside[0], "tinted with the type's green"
    assert (outside == 240).all()
    assert tuple(pixels[10, 40]) == GREEN, "outlined in it"

    records = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [record["image"] for record in records] == ["in/bad.png", "in/good.png"]
    assert records[0]["milliseconds"] > 0
    assert records[0] | {"milliseconds": 0} == {
        "image": "in/bad.png",
        "is_anomalous": True,
        "confidence": 0.9412,
        "anomaly_score": 0.9412,
        "anomaly_threshold": 0.5,
        "anomalies": [
            {"name": "background", "total_percentage_area": pytest.approx(1 - 800 / 6144), "hex_color": "#FFFFFF"},
            {"name": "scratch", "total_percentage_area": pytest.approx(800 / 6144), "hex_color": "#23A436"},
        ],
        "milliseconds": 0,
        "details": {},
        "overlay": "out/overlays/bad.png",
        "mask": "out/masks/bad.png",
    }


def test_a_segment_grows_with_its_pictures_and_is_gone_afterwards(agent: FakeAgent, folder: Path) -> None:
    sizes = [(WIDTH, HEIGHT), (640, 480), (100, 80)]
    pictures = [draw(folder / f"{size[0]}.png", 240, size) for size in sizes]
    process = start_client(folder, "Bolts", *pictures, "--shared-memory", "--masks", "masks")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "3 of 3 answered" in out
    assert [size_of(folder / "masks" / picture.name) for picture in pictures] == sizes
    assert not segments_of(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_segment_is_gone_when_the_client_is_interrupted(
    agent: FakeAgent, folder: Path, number: signal.Signals
) -> None:
    agent.may_answer.clear()
    process = start_client(folder, "Bolts", draw(folder / "one.png", 240), "--shared-memory")
    assert agent.detecting.wait(20)
    assert len(segments_of(process.pid)) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert not segments_of(process.pid)


def test_a_mask_beyond_the_default_message_limit_arrives(agent: FakeAgent, folder: Path) -> None:
    result = run_client(folder, "Bolts", draw(folder / "large.png", 240, (1400, 1300)), "--masks", "masks")
    assert result.returncode == 0, result.stderr
    assert size_of(folder / "masks" / "large.png") == (1400, 1300)


def test_a_folder_is_inspected_in_counting_order_and_only_its_pictures(agent: FakeAgent, folder: Path) -> None:
    for name in ("part-10.png", "part-2.jpg", "part-1.PNG"):
        draw(folder / "in" / name, 20)
    (folder / "in" / "notes.txt").write_text("not a picture")
    result = run_client(folder, "Bolts", "in")
    assert re.findall(r"part-\d+", result.stdout) == ["part-1", "part-2", "part-10"]


def test_options_may_stand_between_pictures_and_equal_names_do_not_collide(agent: FakeAgent, folder: Path) -> None:
    first, second = draw(folder / "a" / "one.png", 20), draw(folder / "b" / "one.png", 240)
    result = run_client(folder, "Bolts", first, "--masks", "masks", second)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (folder / "masks").iterdir()) == ["one-2.png", "one.png"]


def test_a_picture_is_sent_as_it_is_stored(agent: FakeAgent, folder: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(folder / "turned.jpg", exif=turned)
    result = run_client(folder, "Bolts", "turned.jpg", "--masks", "masks")
    assert result.returncode == 0, result.stderr
    assert size_of(folder / "masks" / "turned.png") == (WIDTH, HEIGHT)


def test_a_stopped_model_is_started_and_its_progress_shown(agent: FakeAgent, folder: Path) -> None:
    agent.status, agent.status_message = messages.STOPPED, "building the engine, 40 %"
    agent.next_statuses = [messages.STOPPED, messages.STARTING, messages.STARTING, messages.RUNNING]
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20))
    assert result.returncode == 0, result.stderr
    assert agent.calls.count("StartModel") == 1
    assert "Bolts STARTING  building the engine, 40 %" in result.stderr
    assert agent.calls[-1] == "DetectAnomalies by message"


def test_a_model_that_cannot_start_says_why(agent: FakeAgent, folder: Path) -> None:
    agent.status, agent.status_message = messages.FAILED, "the file model.onnx is missing"
    agent.next_statuses = [messages.FAILED, messages.STARTING, messages.FAILED]
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20))
    assert result.returncode == 1
    assert agent.calls.count("StartModel") == 1
    assert result.stderr.splitlines()[-1] == "Bolts is FAILED: the file model.onnx is missing"


def test_waiting_for_a_model_ends_at_the_start_timeout(agent: FakeAgent, folder: Path) -> None:
    agent.status, agent.status_message = messages.STARTING, "loading"
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20), "--start-timeout", "0.3")
    assert result.returncode == 1
    assert "Bolts is still STARTING after 0.3 s. loading" in result.stderr


def test_an_absent_agent_is_told_quickly_and_with_what_to_do(folder: Path) -> None:
    begin = time.monotonic()
    result = run_client(folder, "--list")
    assert time.monotonic() - begin < 5
    assert result.returncode == 1
    assert result.stderr.startswith("UNAVAILABLE: ")
    assert f"No agent answers at unix://{folder}/agent.sock. Start one with `edge-agent serve`" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_model_is_answered_with_those_that_exist(agent: FakeAgent, folder: Path) -> None:
    result = run_client(folder, "Nuts", draw(folder / "one.png", 20))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "NOT_FOUND: there is no model 'Nuts'",
        "Models on this device: Bolts, Seals.",
    ]


def test_an_agent_that_restarts_costs_no_picture(agent: FakeAgent, folder: Path) -> None:
    agent.unavailable_times = 2
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20))
    assert result.returncode == 0, result.stderr
    assert agent.calls.count("DetectAnomalies by message") == 3


def test_a_model_that_a_restart_left_stopped_is_started_again(agent: FakeAgent, folder: Path) -> None:
    agent.unavailable_times = 1
    agent.status_after_restart = messages.STOPPED
    agent.next_statuses = [messages.RUNNING, messages.STOPPED, messages.RUNNING]
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20))
    assert result.returncode == 0, result.stderr
    assert agent.calls.count("StartModel") == 1


def test_a_model_that_somebody_stopped_is_left_stopped(agent: FakeAgent, folder: Path) -> None:
    agent.next_statuses = [messages.RUNNING]
    agent.may_answer.clear()
    process = start_client(folder, "Bolts", draw(folder / "one.png", 20))
    assert agent.detecting.wait(20)
    agent.status = messages.STOPPED
    agent.may_answer.set()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.splitlines()[-2:] == [
        "FAILED_PRECONDITION: the model is not RUNNING",
        "The model is in another state than this needs; --describe shows it.",
    ]
    assert "StartModel" not in agent.calls


def test_a_refused_or_unreadable_picture_does_not_keep_the_others_from_being_answered(
    agent: FakeAgent, folder: Path
) -> None:
    draw(folder / "in" / "a-small.png", 20, (32, 32))
    (folder / "in" / "b-broken.png").write_bytes(b"no picture at all")
    draw(folder / "in" / "c-good.png", 20)
    result = run_client(folder, "Bolts", "in", "--json", "answers.jsonl")
    assert result.returncode == 1
    _, small, broken, good, summary = result.stdout.splitlines()
    assert small.endswith("no answer  INVALID_ARGUMENT: the image is 32 pixels wide, at least 64 are needed")
    assert "no answer  cannot be read as a picture" in broken
    assert good.startswith("c-good.png    normal")
    assert summary.startswith("1 of 3 answered, 0 anomalous")
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 1


def test_models_are_listed_and_described(agent: FakeAgent, folder: Path) -> None:
    listing, description = run_client(folder, "--list"), run_client(folder, "Bolts", "--describe")
    assert listing.stdout.splitlines() == ["Bolts  RUNNING   version 1, fake runtime", "Seals  STOPPED"]
    assert description.stdout.splitlines() == ["Bolts  RUNNING   version 1, fake runtime"]
    assert (listing.returncode, description.returncode) == (0, 0)


def test_a_model_is_stopped_when_asked(agent: FakeAgent, folder: Path) -> None:
    result = run_client(folder, "Bolts", draw(folder / "one.png", 20), "--stop")
    assert result.returncode == 0
    assert agent.calls[-1] == "StopModel"
    assert agent.status == messages.STOPPED


@pytest.mark.parametrize("arguments", [[], ["Bolts"]])
def test_an_incomplete_command_line_is_explained(folder: Path, arguments: list[str]) -> None:
    result = run_client(folder, *arguments)
    assert result.returncode == 2
    assert "error: name a" in result.stderr


def test_verbose_shows_what_answered_and_the_time_of_each_step(agent: FakeAgent, folder: Path) -> None:
    draw(folder / "in.png", 20)
    agent.details = (
        ("edge-agent-model-version", "2.0.0"),
        ("edge-agent-device", "CPU"),
        ("edge-agent-waiting-ms", "0.25"),
        ("edge-agent-inferring-ms", "9.00"),
        ("other", "x"),
    )
    shown = run_client(folder, "Bolts", "in.png", "--verbose").stdout
    assert "model version 2.0.0, device CPU; waiting 0.25, inferring 9.00 ms" in shown and "other" not in shown
    agent.details = ()  # an agent of another make
    result = run_client(folder, "Bolts", "in.png", "--verbose")
    assert result.returncode == 0 and "(this agent tells no more)" in result.stdout


def wait_for_line(lines: TextIO, told: str) -> None:
    while told not in (line := lines.readline()):
        assert line, "the client has ended"


def test_with_every_it_goes_on_whatever_fails_and_takes_new_pictures(agent: FakeAgent, folder: Path) -> None:
    process = start_client(folder, "Bolts", "in", "--every", "0.1", "--json", "answers.jsonl")
    answers = folder / "answers.jsonl"
    assert process.stdout is not None
    try:
        wait_for_line(process.stdout, "no answer")  # there is no folder yet
        draw(folder / "in" / "first.png", 20)
        wait_for_line(process.stdout, "first.png")
        draw(folder / "in" / "second.png", 20)
        wait_for_line(process.stdout, "2 of 2 answered")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    images = [json.loads(line)["image"] for line in answers.read_text().splitlines()]
    assert images[0] == "in/first.png"
    assert {"in/first.png", "in/second.png"} == set(images)


@pytest.mark.parametrize("arguments", [["--every", "0", "a.png"], ["--every", "5"]])
def test_every_needs_seconds_and_pictures(folder: Path, arguments: list[str]) -> None:
    result = run_client(folder, "Bolts", *arguments)
    assert result.returncode == 2
