"""The live view as a process: fed by the real camera client, beside a real agent, and by files with faults."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from agent.wire import edge_agent_pb2 as wire
from agent.workbench.part_pictures import Defect, draw_part
from tests.support.agent_process import AgentProcess, wait_for
from tests.support.camera_process import CameraProcess
from tests.support.live_view_process import SCRIPT, LiveViewProcess, append, needs_web, rejected, told, unanswered
from tests.support.nucleus import Nucleus
from tests.support.packages import make_package

pytestmark = needs_web
needs_sdk = pytest.mark.skipif(importlib.util.find_spec("awsiot") is None, reason="needs awsiotsdk")
NOBODY = ("--socket", "unix:///nonexistent/socket")
FLAGS = ("--results", "results", "--overlays", "found", "--store", "store", "--port", "0", *NOBODY)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """With a model fitted on drawn parts."""
    folder = tmp_path_factory.mktemp("fitted")
    for number in range(10):
        draw(folder / "good" / f"{number}.png", 300 + number)
    command = [sys.executable, "-m", "agent", "fit", "good", "--name", "Plates", "--output", "package", "--size", "192"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with AgentProcess() as agent:
        agent.run_model("Plates", folder / "package")
        yield agent


def draw(path: Path, seed: int, defect: Defect | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    Image.fromarray(draw_part(seed, defect, 320, 240).pixels).save(unfinished, "PNG", compress_level=1)
    unfinished.rename(path)  # a folder that is watched shows it whole


def settings_for(agent: AgentProcess) -> dict[str, Any]:
    """The camera client's."""
    return {"model": "Plates", "socket": f"unix://{agent.socket}", "source": {"address": "folder:in"}}


def test_what_a_camera_sees_is_on_the_page(agent: AgentProcess, tmp_path: Path) -> None:
    """From drawn parts by a fitted model, agent and camera client to counts, verdicts and pictures."""
    for number, defect in enumerate((None, Defect.SCRATCH, None, Defect.SCRATCH)):
        draw(tmp_path / "in" / f"{number}.png", 1000 + number, defect)
    settings = settings_for(agent) | {"name": "line-1", "overlays": {"folder": "found"}}
    with CameraProcess(tmp_path, settings) as camera:
        assert camera.wait() == 0
    flags = ("--results", "verdicts.jsonl", "--overlays", "found", "--port", "0", "--socket", f"unix://{agent.socket}")
    with LiveViewProcess(tmp_path, *flags) as view:
        view.wait_for_pictures(4)
        view.wait_for_text("Plates ✓ RUNNING version 1.0.0, ONNX Runtime", "/now")
        verdicts = [verdict["verdict"] for verdict in camera.verdicts]
        assert verdicts.count("reject") == int(view.row("last hour")[1]) >= 1
        assert verdicts.count("pass") == int(view.row("last hour")[-1]) >= 1
        pictures = re.findall(r'src="(/pictures/[^"]*)"', view.html("/now"))
        rejected_ids = [verdict["id"] for verdict in camera.verdicts if verdict["verdict"] == "reject"]
        assert {f"/pictures/{name}" for name in rejected_ids} == set(pictures)
        status, headers, content = view.ask(pictures[0])
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        assert content == (tmp_path / "found" / f"{rejected_ids[-1]}-reject.jpg").read_bytes()


def test_the_page_stays_while_the_agent_is_away_and_tells_of_a_model_that_failed(
    agent: AgentProcess, tmp_path: Path
) -> None:
    draw(tmp_path / "in" / "1.png", 1000)
    settings = settings_for(agent) | {"patience_s": 0.1, "source": {"address": "folder:in", "at_end": "wait"}}
    flags = ("--results", "verdicts.jsonl", "--port", "0", "--socket", f"unix://{agent.socket}")
    with CameraProcess(tmp_path, settings), LiveViewProcess(tmp_path, *flags) as view:
        view.wait_for_pictures(1)
        view.wait_for_text("The agent answers. Model State What it says Plates ✓ RUNNING", "/now")
        agent.kill()
        view.wait_for_text("The agent does not answer since", "/now")
        view.wait_for_text("Its models as they were last: Model State What it says Plates ✓ RUNNING", "/now")
        draw(tmp_path / "in" / "2.png", 1001)
        view.wait_for_text("! NO ANSWER", "/now")
        assert view.row("last hour") == ["2", "0", "0.0 %", "0", "0", "1", "1"]
        broken = make_package(tmp_path / "package")
        (broken / "model.onnx").write_bytes(b"no model")
        agent.register("broken", broken)
        agent.start()
        view.wait_for_text("The agent answers.", "/now")
        agent.stub().StartModel(wire.StartModelRequest(model_component="broken"))
        view.wait_for_text("▲ The model broken is FAILED:", "/now")


def test_nothing_is_counted_twice_or_left_out_over_restarts_and_rotations(tmp_path: Path) -> None:
    results = tmp_path / "results"
    append(results, [told(number) for number in range(20)])
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(20)
        append(results, [told(number) for number in range(20, 25)])
        results.rename(tmp_path / "results.1")
        append(results, [told(number) for number in range(25, 30)])
        view.wait_for_pictures(30)
        view.kill()
    append(results, [told(number) for number in range(30, 35)])
    results.rename(tmp_path / "results.1")
    append(results, [told(number) for number in range(35, 40)])
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(40)
        append(results, [rejected(40)])
        view.wait_for_pictures(41)


def test_a_file_that_is_not_there_yet_is_waited_for_and_damaged_lines_are_skipped(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_text("results is not there yet; the camera client writes it (json_lines)")
        assert "No results yet." in view.text()
        lines = [json.dumps(told(1)).encode(), b'{"id": "torn', b"\xff\x00", json.dumps(told(2)).encode(), b'{"half']
        results.write_bytes(b"\n".join(lines))
        view.wait_for_pictures(2)
        view.wait_for_text("2 damaged lines of results were skipped; the log says why")
        assert "not there yet" not in view.text()
    assert "2 damaged lines are skipped, the first because: Input data was truncated" in view.log.read_text()


def test_results_wait_in_their_file_while_the_disk_is_full(tmp_path: Path) -> None:
    """A limit on the size of files makes writes fail half-way, as a full disk does, and can be lifted."""
    results = tmp_path / "results"
    append(results, [told(1)])
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(1)
        pid = view.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        append(results, [told(number) for number in range(2, 300)])
        view.wait_for_text("cannot be written (disk I/O error); results wait in their files")
        assert view.row("last hour")[0] == "1", "what is there is still shown"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        view.wait_for_pictures(299)
        view.wait_for_text("last hour 299 0")
        assert "cannot be written" not in view.text()


def test_a_store_that_is_damaged_while_it_is_shown_is_made_anew(tmp_path: Path) -> None:
    append(tmp_path / "results", [told(number) for number in range(100)])
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(100)
        # All into the file itself: from what is beside it, SQLite would mend it.
        with closing(sqlite3.connect(tmp_path / "store")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (tmp_path / "store").write_bytes(b"overwritten by somebody" * 1000)
        assert "The stored results cannot be read (file is not a database)" in view.text()
        view.wait_for_pictures(100)
        assert "cannot be read" not in view.text()
    assert "store is put aside as store.damaged" in view.log.read_text()


EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"
IDS = ("../secret", "linked", "gone")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveViewProcess]:
    """For tests that only look: cameras that do well, one whose names are an attack, one that is quiet for long."""
    folder = tmp_path_factory.mktemp("view")
    (folder / "found").mkdir()
    (folder / "secret-reject.jpg").write_bytes(b"secret")
    (folder / "found/linked-reject.jpg").symlink_to(folder / "secret-reject.jpg")
    append(folder / "results", [told(1), rejected(2, camera="way 2", model="Lids")])
    append(folder / "results", [unanswered(3) | {"camera": "way 2"}])
    anomalies = [{"name": EVIL, "total_percentage_area": 0.5}]
    append(folder / "others", [rejected(4, camera=EVIL, model=EVIL, reason=EVIL, anomalies=anomalies)])
    append(folder / "others", [rejected(number, id=name, camera="evil") for number, name in enumerate(IDS)])
    long_ago = (datetime.now(timezone.utc) - timedelta(days=9)).isoformat()
    append(folder / "others", [told(5, camera="quiet", time=long_ago)])
    flags = ("--results", "results", "others", "--overlays", "found", "--names", "line7.plant.example", "--port", "0")
    with LiveViewProcess(folder, *flags, *NOBODY) as view:
        view.wait_for("the last result", lambda: view.row("2 weeks", "camera=quiet")[:1] == ["1"])
        yield view


def test_a_camera_a_model_and_a_window_are_chosen_by_the_address(view: LiveViewProcess) -> None:
    assert view.row("1 week", "camera=way+2&model=Lids&window=1w")[1:3] == ["1", "100.0 %"]
    assert view.row("1 week", "camera=way+2&model=Plates&window=1w")[4:6] == ["0", "1"]
    assert "way 2, 1 week" in view.text("/?camera=way+2&window=1w")
    assert view.row("1 day", "camera=nobody") == view.row("1 day"), "the first camera where there is no such"
    assert "line-1, last hour" in view.text("/?camera=line-1&window=nonsense")
    for zone in ("Europe/Berlin", "../../etc/passwd", "Nowhere", ""):
        assert view.ask(f"/history?zone={zone}")[0] == 200
    page = view.html("/?camera=way+2&model=Lids&window=1m")
    assert 'href="/?camera=line-1&amp;model=Plates&amp;window=1m"' in page


def test_an_old_verdict_is_not_shown_as_the_present_one(view: LiveViewProcess) -> None:
    page = view.html("/?camera=quiet")
    assert "Nothing was inspected since" in page
    assert 'class="verdict quiet-verdict"' in page


def test_names_and_reasons_are_shown_as_text(view: LiveViewProcess) -> None:
    page = view.html(f"/?camera={quote(EVIL)}")
    assert page.count("&lt;script&gt;") >= 4
    assert "<script>" not in page
    assert "<img src=x" not in page
    _, headers, _ = view.ask("/")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")


def test_pictures_come_from_the_folder_alone(view: LiveViewProcess) -> None:
    """Ids are untrusted: they are what a file says."""
    page = view.html("/?camera=evil")
    assert page.count("no picture kept") == len(IDS)
    assert "<img" not in page
    for path in ("../secret", "..%2Fsecret", "%252e%252e/secret", "linked", "gone", "unknown", "../../store"):
        status, _, body = view.ask(f"/pictures/{path}")
        assert (status, b"secret" in body) == (404, False), path


def test_only_names_of_this_device_are_answered(view: LiveViewProcess) -> None:
    """A page elsewhere may let its own name lead here (DNS rebinding)."""
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "evil.example:8420"):
        status, _, body = view.ask("/", Host=host)
        assert status == 421, host
        assert b"--names" in body
    for host in ("localhost:1", "127.0.0.1", "[::1]:8420", "192.168.7.20", "LINE7.plant.example", socket.gethostname()):
        assert view.ask("/", Host=host)[0] == 200, host


def test_nothing_can_be_changed_through_the_page(view: LiveViewProcess) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/", "/now", "/history", "/pictures/a"):
            assert view.ask(path, method)[0] == 405
    assert view.ask("/static/../live_view.py")[0] == 404


def test_requests_in_hand_do_not_keep_it_from_ending(tmp_path: Path) -> None:
    with LiveViewProcess(tmp_path, *FLAGS) as view, socket.create_connection(("127.0.0.1", view.port)) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        view.process.send_signal(signal.SIGINT)
        wait_for("its end", lambda: view.process.poll() is not None)
        assert view.process.returncode == 0


def test_a_wrong_setting_ends_it_with_a_sentence(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr == "results: name the file that the camera client writes (its json_lines.path)\n"


@needs_sdk
def test_a_wrong_configuration_is_waited_out_until_a_deployment_puts_it_right(tmp_path: Path) -> None:
    """A component that exits three times is given up by Greengrass; one without a nucleus waits, too."""
    with Nucleus({"results": ["results"], "port": 99999}) as nucleus:
        log = tmp_path / "log"
        with log.open("wb") as file:
            command = [sys.executable, SCRIPT, "--greengrass"]
            process = subprocess.Popen(command, cwd=tmp_path, stderr=file, env=os.environ | nucleus.environment)
        try:
            wait_for("its complaint", lambda: "port: Expected `int` <= 65535; tried again every 2 s" in log.read_text())
            nucleus.stop()
            wait_for("its complaint", lambda: "the nucleus is away" in log.read_text())
            nucleus.start()
            nucleus.change(port=0)
            wait_for("the page", lambda: "the page: http://127.0.0.1:" in log.read_text())
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
