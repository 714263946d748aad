"""`edge-agent doctor`: every finding says what to do, and trials survive whatever a runtime does."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent import cli
from agent.greengrass.nucleus import SOCKET, TOKEN
from agent.metrics.catalogue import AgentFigures
from agent.metrics.endpoint import MetricsEndpoint
from agent.settings import Settings
from agent.workbench.doctor import machine, nvidia, trial, trials
from agent.workbench.doctor.access import access_findings
from agent.workbench.doctor.finding import Finding
from agent.workbench.doctor.greengrass import greengrass_findings
from agent.workbench.doctor.machine import machine_findings
from agent.workbench.doctor.metrics import metrics_finding
from agent.workbench.doctor.nvidia import nvidia_findings
from agent.workbench.doctor.packages import NEEDED, package_findings
from agent.workbench.doctor.trial import run_trial
from agent.workbench.doctor.trials import Outcome, trial_findings, tried
from tests.support.agent_process import wait_for
from tests.support.checkout import ROOT
from tests.support.pretended_gpu import GPU, pretend
from tests.support.scraping import free_port, is_served
from tests.support.trial_model import PATH, trial_model


def finding(findings: list[Finding], topic: str) -> Finding:
    (found,) = (each for each in findings if each.topic == topic)
    return found


def write(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# --- the command


def tried_as(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "tried", lambda device: outcome)


def test_the_page_and_the_json_tell_the_same_and_no_problem_is_exit_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried_as(Outcome("a runtime on a device", 1.0), monkeypatch)
    flags = ["--socket", f"unix://{tmp_path}/s", "--registry", str(tmp_path / "registry")]
    code = cli.main(["doctor", *flags])
    page = " ".join(capsys.readouterr().out.split())
    assert cli.main(["doctor", "--json", *flags]) == code
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["problems"] else 0)
    for each in told["findings"]:
        assert each["topic"] in page
        assert each["level"] == "ok" or each["todo"], each


def test_a_device_that_is_set_and_cannot_be_used_is_a_problem_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried_as(Outcome(reason="it is not there; install it"), monkeypatch)
    monkeypatch.setenv("EDGE_AGENT_DEVICE", "cuda")
    assert cli.main(["doctor", "--json", "--registry", str(tmp_path)]) == 1
    told = {each["topic"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert (told["device cuda"]["level"], told["device cuda"]["todo"]) == ("problem", "install it")
    assert told["device tensorrt"]["level"] == "note"
    assert told["models"]["level"] == "problem"


# --- trials


def test_the_cpu_is_tried_in_a_process_of_its_own() -> None:
    outcome = tried("cpu")
    assert outcome.runs_on.startswith("ONNX Runtime ") and outcome.runs_on.endswith(" on CPU")
    assert outcome.milliseconds > 0
    assert outcome.reason == ""


def test_a_gpu_runs_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("working", monkeypatch.setattr)
    assert run_trial("cuda").runs_on.endswith(f" on {GPU}")


def test_a_gpu_that_does_not_run_the_trial_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("no kernels", monkeypatch.setattr)
    assert "no kernels for this GPU" in run_trial("cuda").reason


def test_a_runtime_that_answers_wrongly_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_measured", lambda backend: (0.5, 1.0))
    assert run_trial("cpu").reason == "it answers 0.5 where 1 is right; update driver and runtime"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "the runtime crashed (SIGABRT); install a runtime made for this CUDA"),
        ("raise ImportError('no such thing')", "the trial ended: ImportError: no such thing; install the agent again"),
        ("print('chatter')", "the trial ended: without a word; install the agent again"),
        ("import time; time.sleep(60)", "it had not run after 0.2 s; restart the device"),
    ],
)
def test_a_trial_that_breaks_is_an_outcome(code: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run
    monkeypatch.setattr(trials.subprocess, "run", lambda command, **how: run([sys.executable, "-c", code], **how))
    if "sleep" in code:
        monkeypatch.setattr(trials, "TIME_LIMIT", 0.2)
    assert tried("cuda").reason.startswith(reason)


def test_a_device_nobody_asked_for_is_no_problem() -> None:
    findings = trial_findings(
        "auto", True, lambda device: Outcome("CPU", 1.0) if device == "cpu" else Outcome(reason="no; x")
    )
    assert {each.level for each in findings} == {"ok", "note"}
    assert finding(findings, "device cuda").todo == "only if it is wanted: x"


def test_the_trial_model_is_the_one_of_its_source() -> None:
    assert (ROOT / PATH).read_bytes() == trial_model().SerializeToString(deterministic=True)


# --- the computer


def test_the_computer_is_told_of(tmp_path: Path) -> None:
    root = write(tmp_path, **{"etc__os-release": 'NAME="x"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n'})
    findings = machine_findings(root)
    assert finding(findings, "system").what.startswith("Ubuntu 22.04.5 LTS, kernel ")
    assert "processors for this process" in finding(findings, "processor").what
    assert finding(findings, "shared memory").level == "problem"  # there is no such folder


def test_little_memory_and_little_shared_memory_are_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    monkeypatch.setattr(machine, "available_memory", lambda: 100 << 20)
    usage = type("Usage", (), {"total": 64 << 20, "free": 63 << 20})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    findings = machine_findings(tmp_path)
    assert finding(findings, "memory").level == "problem"
    assert finding(findings, "shared memory").todo.startswith(
        "enough for small images only; give a container --shm-size"
    )


# --- NVIDIA

ORIN = {
    "etc__nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc__device-tree__model": "NVIDIA Jetson Orin Nano Developer Kit\0",
}
XAVIER = {"etc__nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n"}
SERVER = {
    "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n",
    "proc__driver__nvidia__gpus__0000:01:00.0__information": "Model: \t\t NVIDIA L4\nIRQ:   \t\t 127\n",
}
OPEN_SERVER = {
    "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release\n"
}


def test_a_device_without_a_gpu_says_so(tmp_path: Path) -> None:
    (only,) = nvidia_findings(tmp_path)
    assert only == Finding("GPU", "no NVIDIA driver and no Jetson: models run on the processor")


@pytest.mark.parametrize(
    ("files", "topic", "what", "level"),
    [
        (ORIN, "Jetson", "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3 (JetPack 6), Python ", "ok"),
        (XAVIER, "Jetson", "a Jetson, Jetson Linux 35.4.1 (JetPack 5), Python ", "problem"),
        (SERVER, "GPU", "driver 550.54.15: NVIDIA L4", "ok"),
        (OPEN_SERVER, "GPU", "driver 580.159.03: no GPU", "ok"),
    ],
)
def test_driver_gpu_and_jetpack_are_told(
    files: dict[str, str], topic: str, what: str, level: str, tmp_path: Path
) -> None:
    found = finding(nvidia_findings(write(tmp_path, **files)), topic)
    assert found.what.startswith(what)
    assert found.level == level


def test_cuda_says_what_it_has_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise nvidia.CudaNotUsable("there is no CUDA runtime (libcudart) on this device; install CUDA")

    root = write(tmp_path, **SERVER)
    monkeypatch.setattr(nvidia, "open_cuda_runtime", missing)
    found = finding(nvidia_findings(root), "CUDA")
    assert (found.what, found.todo) == ("there is no CUDA runtime (libcudart) on this device", "install CUDA")


def test_a_gpu_that_is_closed_to_this_user_is_told_with_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path, **SERVER, dev__nvidia0="")
    monkeypatch.setattr(nvidia.os, "access", lambda file, how: False)
    found = finding(nvidia_findings(root), "GPU access")
    assert found.level == "problem"
    assert "usermod -aG video" in found.todo


# --- packages


def test_packages_that_overwrite_each_other_are_told() -> None:
    def findings(**installed: str) -> list[str]:
        needed = dict.fromkeys(NEEDED, "1.0")
        found = package_findings(lambda name: {**needed, **installed}.get(name))
        return [each.what for each in found if each.level == "problem"]

    assert findings() == []
    assert findings(**{"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}) == [
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
    ]
    assert findings(**{"tensorrt-cu12": "10.3", "tensorrt-cu13": "10.16"}) == [
        "tensorrt-cu12 and tensorrt-cu13 are installed and overwrite each other's files"
    ]
    assert findings(numpy=None) == ["missing: numpy"]  # type: ignore[arg-type]


# --- access


def test_places_that_cannot_be_are_problems(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    findings = access_findings(Settings(socket=f"unix://{tmp_path}/missing/s", registry=tmp_path / "file"))
    assert finding(findings, "socket").todo == f"make it: mkdir -p {tmp_path}/missing"
    assert finding(findings, "registry").level == "problem"
    findings = access_findings(Settings(socket=f"unix://{tmp_path}/file", registry=tmp_path))
    assert finding(findings, "socket").what.endswith("is there and no socket")
    assert finding(findings, "registry").what == f"{tmp_path}, 0 models registered"


def test_a_socket_that_answers_and_one_that_was_left_behind_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "s"
    settings = Settings(socket=f"unix://{path}", registry=tmp_path / "new")
    assert finding(access_findings(settings), "socket").what == f"{path} is free"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert finding(access_findings(settings), "socket").what == f"an agent serves {path}"
    assert "was left behind" in finding(access_findings(settings), "socket").what


# --- Greengrass


def test_a_component_is_told_what_it_lacks() -> None:
    component = {SOCKET: "/greengrass/ipc.socket", TOKEN: "t", "GGC_VERSION": "2.17.0", "AWS_IOT_THING_NAME": "line-7"}
    assert greengrass_findings({}, lambda name: True)[0].level == "ok"
    (well,) = greengrass_findings(component, lambda name: True)
    assert (well.level, well.what) == ("ok", "a component of nucleus 2.17.0, thing line-7")
    (without_sdk,) = greengrass_findings(component, lambda name: False)
    assert without_sdk.todo.startswith("pip install 'vision-edge-agent[greengrass]'")
    del component[TOKEN]
    (without_token,) = greengrass_findings(component, lambda name: True)
    assert without_token.level == "problem"
    assert without_token.todo.startswith("start the agent from the component's run script")


# --- metrics


def test_metrics_are_told_where_they_are_and_where_something_else_is() -> None:
    assert metrics_finding(Settings()).what == "none are served (setting metrics_port)"
    port = free_port()
    at_port = Settings(metrics_port=port)
    free = metrics_finding(at_port)
    assert free.level == "ok" and f"port {port} is free" in free.what
    endpoint = MetricsEndpoint(lambda: AgentFigures("1.3.0", {}, 0, 0, ()))
    endpoint.use_port(port)
    wait_for("the endpoint", lambda: is_served(port))
    assert metrics_finding(at_port).what == f"an agent serves http://127.0.0.1:{port}/metrics"
    endpoint.close()
    with socketserver.TCPServer(("127.0.0.1", 0), Greeter) as other:
        threading.Thread(target=other.handle_request).start()
        taken = metrics_finding(Settings(metrics_port=other.server_address[1]))
    assert taken.level == "problem" and taken.todo.startswith("set another metrics_port")


class Greeter(socketserver.BaseRequestHandler):
    """A service that is no HTTP."""

    def handle(self) -> None:
        self.request.sendall(b"220 mail.example.com ESMTP\r\n")
