"""The C++ client, built from a copy of its folder and run against a real agent with a fitted model.

Built with the address and undefined-behaviour sanitizers: what they find ends the program with another exit code.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.agent_process import AgentProcess, names, status, wait_for, wire
from tests.support.checkout import ROOT
from tests.support.fitted_model import HEIGHT, WIDTH, plate
from tests.support.packages import make_package

pytestmark = pytest.mark.slow  # building takes some twenty seconds of processor time

FOLDER = ROOT / "client_examples" / "cpp"
SAMPLE_CLIENT = ROOT / "client_examples" / "detect" / "detect.py"
NEEDED = ("cmake", "g++", "pkg-config", "protoc", "grpc_cpp_plugin")
FLAGS = "-Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
MILLISECONDS = re.compile(r" +[0-9]+\.[0-9](?=  |$)", re.MULTILINE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program."""
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing or subprocess.run(["pkg-config", "--exists", "grpc++"], check=False).returncode:
        pytest.skip("not installed: cmake g++ pkg-config libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev")
    source = Path(shutil.copytree(FOLDER, tmp_path_factory.mktemp("cpp") / "source"))
    build = source / "build"
    flags = ["-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={FLAGS}"]
    for step in (["cmake", "-S", source, "-B", build, *flags], ["cmake", "--build", build]):
        ran = subprocess.run(step, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return build / "detect"


@pytest.fixture(scope="module")
def agent(plates: Path) -> Iterator[AgentProcess]:
    """For tests that leave the agent as it is."""
    with AgentProcess() as running:
        running.run_model("plates", plates)
        yield running


def start(client: Path, agent: AgentProcess, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [client, "--socket", f"unix://{agent.socket}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(client: Path, agent: AgentProcess, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    process = start(client, agent, *arguments)
    out, err = process.communicate(timeout=60)
    assert not segments_of(process.pid)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def segments_of(process_id: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"edge-agent-client-{process_id}-*"))


def put_plate(path: Path, seed: int = 100, scratched: bool = False) -> Path:
    Image.fromarray(plate(seed, scratched)).save(path, quality=95)
    return path


def formats_built_in(client: Path, agent: AgentProcess, folder: Path) -> list[str]:
    """By what it says of a file that is none of them."""
    (folder / "notes.txt").write_text("no picture")
    said = run(client, agent, "plates", folder / "notes.txt").stdout
    return [name for name in ("ppm", "png", "jpeg") if name.upper() in said]


@pytest.mark.parametrize("flags", [[], ["--message"]], ids=["shared", "message"])
def test_it_says_what_the_sample_client_says(
    client: Path, agent: AgentProcess, tmp_path: Path, flags: list[str]
) -> None:
    for suffix in formats_built_in(client, agent, tmp_path):
        put_plate(tmp_path / f"good.{suffix}")
        put_plate(tmp_path / f"scratched.{suffix}", scratched=True)
    Image.fromarray(plate(101)).convert("L").save(tmp_path / "grey.pgm")
    Image.fromarray(plate(102)[:64, :64]).save(tmp_path / "small.ppm")
    pictures = [path for path in sorted(tmp_path.iterdir()) if path.suffix != ".txt"]
    ours = run(client, agent, "plates", *pictures, *flags)
    command = [sys.executable, SAMPLE_CLIENT, "--socket", f"unix://{agent.socket}", "plates", *pictures]
    theirs = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ours.returncode == theirs.returncode == 1, "one picture is too small"
    rows, expected = (MILLISECONDS.sub("", out).splitlines()[:-1] for out in (ours.stdout, theirs.stdout))
    assert rows == expected
    assert any(re.match(r"good\.ppm +normal ", row) for row in rows)
    assert any(re.match(r"scratched\.ppm +ANOMALOUS .* anomaly [0-9.]+ %$", row) for row in rows)
    assert any("no answer  INVALID_ARGUMENT: The image is 64 x 64" in row for row in rows)
    answered = len(pictures) - 1
    assert ours.stdout.splitlines()[-1].startswith(f"{answered} of {len(pictures)} answered, ")


@pytest.mark.parametrize("flags", [[], ["--message"]], ids=["shared", "message"])
def test_overlays_tint_what_the_mask_shows(client: Path, agent: AgentProcess, tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "other").mkdir()
    scratched = put_plate(tmp_path / "one.ppm", 103, scratched=True)
    good = put_plate(tmp_path / "other" / "one.ppm")
    ran = run(client, agent, "plates", scratched, good, "--overlays", tmp_path / "found", *flags)
    assert ran.returncode == 0, ran.stderr
    with Image.open(tmp_path / "found" / "one.ppm") as overlay:
        drawn = np.asarray(overlay).astype(int)
    stub = agent.stub()
    bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=plate(103, True).tobytes())
    answer = stub.DetectAnomalies(wire.DetectAnomaliesRequest(model_component="plates", bitmap=bitmap))
    mask = np.frombuffer(answer.detect_anomaly_result.anomaly_mask.byte_data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    found = (mask != 255).any(axis=2)
    pixels = plate(103, True).astype(int)
    assert 0 < found.sum() < found.size
    assert (drawn[~found] == pixels[~found]).all()
    assert (drawn[found] == (3 * pixels[found] + 2 * mask[found].astype(int)) // 5).all()
    with Image.open(tmp_path / "found" / "one-2.ppm") as overlay:
        assert (np.asarray(overlay) == plate(100)).all(), "nothing was found on the good one, and nothing overwritten"


def test_a_classification_model_has_no_areas(client: Path, tmp_path: Path) -> None:
    """Its score is the red of the first pixel."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "red.ppm")
    with AgentProcess() as agent:
        agent.run_model("red", make_package(tmp_path / "package", task="classification", any_size=True))
        ran = run(client, agent, "red", tmp_path / "red.ppm", "--overlays", tmp_path / "found")
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^red\.ppm +ANOMALOUS +1\.000 +1\.000 >= +0\.500 +[0-9.]+$", ran.stdout, re.MULTILINE)
    with Image.open(tmp_path / "found" / "red.ppm") as overlay:
        assert (np.asarray(overlay) == pixels).all()


def test_models_are_listed_and_described(client: Path, agent: AgentProcess) -> None:
    for arguments in (["--list"], ["plates", "--describe"]):
        ran = run(client, agent, *arguments)
        assert ran.returncode == 0, ran.stderr
        assert re.fullmatch(r"plates +RUNNING +version 1\.0\.0, .*\n", ran.stdout)


def test_a_stopped_model_is_started(client: Path, plates: Path, tmp_path: Path) -> None:
    with AgentProcess() as agent:
        agent.run_model("plates", plates)
        agent.stub().StopModel(wire.StopModelRequest(model_component="plates"))
        ran = run(client, agent, "plates", put_plate(tmp_path / "good.ppm"))
        assert ran.returncode == 0, ran.stderr
        assert status(agent.stub(), "plates") == wire.RUNNING


def test_a_model_that_cannot_start_says_why(client: Path, plates: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(plates, tmp_path / "broken"))
    os.truncate(broken / "model.onnx", 100)
    with AgentProcess() as agent:
        agent.register("plates", broken)
        wait_for("the model to be listed", lambda: "plates" in names(agent.stub()))
        ran = run(client, agent, "plates", put_plate(tmp_path / "good.ppm"))
    assert ran.returncode == 1
    assert re.search(r"^plates is FAILED: .*model\.onnx", ran.stderr, re.MULTILINE)


def test_what_cannot_be_read_is_told_and_the_next_picture_answered(
    client: Path, agent: AgentProcess, tmp_path: Path
) -> None:
    (tmp_path / "cut.ppm").write_bytes(put_plate(tmp_path / "good.ppm").read_bytes()[:-1])
    (tmp_path / "deep.ppm").write_bytes(b"P6 98 66 65535\n" + bytes(2 * 3 * 98 * 66))
    (tmp_path / "huge.ppm").write_bytes(b"P6 100000 100000 255\n")
    names = ("cut.ppm", "deep.ppm", "huge.ppm", "absent.ppm", "good.ppm")
    ran = run(client, agent, "plates", *[tmp_path / name for name in names])
    assert ran.returncode == 1
    rows = ran.stdout.splitlines()[1:-1]
    reasons = ("the file ends too early", "8 bits is needed", "100000 x 100000", "cannot be opened", "normal")
    for row, name, reason in zip(rows, names, reasons, strict=True):
        assert row.startswith(name)
        assert reason in row


def test_an_unknown_model_is_told_with_what_to_do(client: Path, agent: AgentProcess, tmp_path: Path) -> None:
    ran = run(client, agent, "pipes", put_plate(tmp_path / "good.ppm"))
    assert ran.returncode == 1
    assert ran.stderr.startswith('NOT_FOUND: There is no model component "pipes"')
    assert "--list shows the models" in ran.stderr


def test_an_absent_agent_is_told_with_what_to_do(client: Path, tmp_path: Path) -> None:
    ran = run(client, AgentProcess(), "plates", put_plate(tmp_path / "good.ppm"))
    assert ran.returncode == 1
    assert ran.stderr.startswith("UNAVAILABLE: ")
    assert "Start one with `edge-agent serve`" in ran.stderr


@pytest.mark.parametrize("arguments", [[], ["plates"], ["--nonsense"], ["plates", "x", "--start-timeout", "soon"]])
def test_a_wrong_command_line_ends_with_two(client: Path, agent: AgentProcess, arguments: list[str]) -> None:
    ran = run(client, agent, *arguments)
    assert ran.returncode == 2
    assert "usage: detect" in ran.stderr


def wait_until_it_reads(fifo: Path) -> int:
    """A descriptor to write to; opening succeeds once the client has opened the other end."""
    descriptor = -1

    def is_read() -> bool:
        nonlocal descriptor
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    wait_for("the client to read the second picture", is_read)
    os.set_blocking(descriptor, True)
    return descriptor


@pytest.mark.parametrize("flags", [[], ["--message"]], ids=["shared", "message"])
def test_an_agent_that_restarts_costs_no_picture(client: Path, plates: Path, tmp_path: Path, flags: list[str]) -> None:
    """The second picture is a pipe: it comes when the agent has been killed, and the agent only after it."""
    good, second = put_plate(tmp_path / "good.ppm"), tmp_path / "second.ppm"
    os.mkfifo(second)
    with AgentProcess() as agent:
        agent.run_model("plates", plates)
        process = start(client, agent, "plates", good, second, good, "--patience", "60", *flags)
        with os.fdopen(wait_until_it_reads(second), "wb") as pipe:
            agent.kill()
            pipe.write(good.read_bytes())
        agent.start()
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, out + err
        assert out.count(" normal ") == 3
    assert not segments_of(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_in_shared_memory_after_a_signal(
    client: Path, agent: AgentProcess, tmp_path: Path, number: signal.Signals
) -> None:
    good, second = put_plate(tmp_path / "good.ppm"), tmp_path / "second.ppm"
    os.mkfifo(second)
    process = start(client, agent, "plates", good, second)
    with os.fdopen(wait_until_it_reads(second), "wb"):
        assert len(segments_of(process.pid)) == 1
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert " normal " in out, "what was answered is printed"
    assert not segments_of(process.pid)


def test_other_clients_that_tidy_up_see_that_the_segment_is_in_use(
    client: Path, agent: AgentProcess, tmp_path: Path
) -> None:
    """In another container our process cannot be seen; `remove_abandoned_segments` goes by the lock there."""
    good, second = put_plate(tmp_path / "good.ppm"), tmp_path / "second.ppm"
    os.mkfifo(second)
    process = start(client, agent, "plates", good, second)
    with os.fdopen(wait_until_it_reads(second), "wb") as pipe:
        [segment] = segments_of(process.pid)
        with segment.open("rb") as opened, pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pipe.write(good.read_bytes())
    process.communicate(timeout=60)
    assert process.returncode == 0
