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
from agent.backends import cuda_runtime
from agent.greengrass.nucleus import SOCKET, TOKEN
from agent.metrics.catalogue import AgentFigures
from agent.metrics.endpoint import MetricsEndpoint
from agent.settings import Settings
from agent.workbench.doctor import access, machine, nvidia, trial, trials
from agent.workbench.doctor.access import access_findings
from agent.workbench.doctor.finding import Finding
from agent.workbench.doctor.greengrass import greengrass_findings
from agent.workbench.doctor.jetson import jetson_findings
from agent.workbench.doctor.machine import machine_findings
from agent.workbench.doctor.metrics import metrics_finding
from agent.workbench.doctor.nvidia import kernel_findings, nvidia_findings
from agent.workbench.doctor.packages import NEEDED, package_findings
from agent.workbench.doctor.trial import run_trial
from agent.workbench.doctor.trials import Outcome, choice_findings, device_findings, tried
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
    monkeypatch.setattr(trials, "tried", lambda device, allows_fallback: outcome)


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
    assert (told["models"]["level"], told["models"]["what"]) == ("problem", "device cuda: FAILED; it is not there")
    assert told["models"]["todo"].endswith("install it")
    assert {each["level"] for topic, each in told.items() if topic.startswith("device ")} == {"note"}


def test_the_page_ends_with_the_names_of_the_problems_and_breaks_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    tried_as(Outcome(reason=f"it is not there; {'x' * 40} {command} {command}"), monkeypatch)
    flags = ["--device", "cuda", "--model-devices", "front=cpu", "--registry", str(tmp_path)]
    assert cli.main(["doctor", *flags, "--socket", f"unix://{tmp_path}/s"]) == 1
    page = capsys.readouterr().out
    assert page.rstrip().splitlines()[-1].startswith("2 problems: models, front")
    assert page.count("'onnxruntime-gpu[cuda,cudnn]'") == 6


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


def test_what_goes_to_the_log_of_an_agent_is_told_here(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import json, sys; print('libnvinfer.so.10: version mismatch', file=sys.stderr);"
        "print(json.dumps({'reason': \"it does not load (the agent's log says why); install it again\"}))"
    )
    run = subprocess.run
    monkeypatch.setattr(trials.subprocess, "run", lambda command, **how: run([sys.executable, "-c", code], **how))
    assert tried("tensorrt").reason == (
        "it does not load (it says: libnvinfer.so.10: version mismatch); install it again"
    )


def only_the_cpu(device: str, allows_fallback: bool) -> Outcome:
    if device in ("cpu", "auto") or allows_fallback:
        return Outcome("ONNX Runtime on CPU", 1.0, "" if device == "cpu" else "no GPU; add one")
    return Outcome(reason="no GPU; add one")


def test_devices_that_cannot_be_used_are_no_problem_by_themselves() -> None:
    findings = device_findings(only_the_cpu, has_gpu=True)
    assert {each.level for each in findings} == {"ok", "note"}
    assert finding(findings, "device cuda").todo == "only if it is wanted: add one"
    without_gpu = device_findings(only_the_cpu, has_gpu=False)
    assert finding(without_gpu, "device cuda").todo.startswith("nothing, unless an NVIDIA GPU is there")


@pytest.mark.parametrize(
    ("device", "fallback", "level", "what"),
    [
        ("cpu", "auto", "ok", "device cpu: ONNX Runtime on CPU"),
        ("auto", "auto", "note", "device auto: ONNX Runtime on CPU, since no GPU"),
        ("cuda", "allow", "note", "device cuda: ONNX Runtime on CPU, since no GPU"),
        ("cuda", "auto", "problem", "device cuda: FAILED; no GPU"),
        ("tensorrt", "forbid", "problem", "device tensorrt: FAILED; no GPU"),
    ],
)
def test_what_models_run_on_follows_the_settings(device: str, fallback: str, level: str, what: str) -> None:
    (found,) = choice_findings(only_the_cpu, True, Settings(device=device, fallback=fallback))
    assert (found.topic, found.level, found.what) == ("models", level, what)
    assert found.todo == ("" if level == "ok" else "add one")


def test_models_with_a_device_of_their_own_are_told_apart() -> None:
    findings = choice_findings(only_the_cpu, True, Settings(device="cpu", model_devices="front=cuda,back=cpu"))
    assert [(each.topic, each.level) for each in findings] == [("models", "ok"), ("front", "problem"), ("back", "ok")]


def test_where_no_driver_is_nobody_is_sent_to_install_a_runtime_first() -> None:
    (found,) = choice_findings(only_the_cpu, False, Settings(device="cuda"))
    assert found.todo == "set device cpu or auto, since no NVIDIA driver is here; or install it, then: add one"


def test_a_trial_of_auto_tells_what_stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("no driver", monkeypatch.setattr)
    outcome = run_trial("auto", allows_fallback=True)
    assert outcome.runs_on.endswith(" on CPU")
    assert "there is no NVIDIA driver" in outcome.reason


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


def test_shared_memory_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    monkeypatch.setattr(machine.os, "access", lambda path, how: False)
    found = finding(machine_findings(tmp_path), "shared memory")
    assert (found.level, found.what) == ("problem", "/dev/shm cannot be written by this user")


# --- NVIDIA

ORIN = {
    "etc__nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc__device-tree__model": "NVIDIA Jetson Orin Nano Developer Kit\0",
}
ORIN_7 = {**ORIN, "etc__nv_tegra_release": "# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic\n"}
THOR = {
    "etc__nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n",
    "proc__device-tree__model": "NVIDIA Jetson AGX Thor Developer Kit\0",
}
IN_A_CONTAINER = {
    "proc__device-tree__model": "NVIDIA Jetson AGX Orin\0",
    "proc__device-tree__compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
}
XAVIER = {"etc__nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n"}
SERVER = {
    "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n",
    "proc__driver__nvidia__gpus__0000:01:00.0__information": "Model: \t\t NVIDIA L4\nIRQ:   \t\t 127\n",
}
OPEN_SERVER = {
    "proc__driver__nvidia__version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release\n"
}


def test_a_device_without_a_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_runtime, "libraries_of_device", lambda: [])
    (only,) = nvidia_findings(tmp_path)
    assert only == Finding("GPU", "no NVIDIA driver and no Jetson: models run on the processor")


@pytest.mark.parametrize(
    ("files", "topic", "what", "level"),
    [
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


@pytest.mark.parametrize(
    ("files", "python", "what", "level"),
    [
        (
            ORIN,
            "3.10.12",
            "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.3 (JetPack 6), Python 3.10.12",
            "ok",
        ),
        (ORIN, "3.11.7", "TensorRT is for Python 3.10", "note"),
        (ORIN_7, "3.12.3", "Jetson Linux 39.2.1 (JetPack 7), Python 3.12.3", "ok"),
        (THOR, "3.12.3", "AGX Thor Developer Kit, Jetson Linux 38.2.0 (JetPack 7), Python 3.12.3", "ok"),
        (THOR, "3.1.2", "TensorRT is for Python 3.12", "note"),
        (XAVIER, "3.10.1", "a Jetson, Jetson Linux 35.4.1 (JetPack 5), Python 3.10.1", "problem"),
        (IN_A_CONTAINER, "3.10.12", "NVIDIA Jetson AGX Orin, Jetson Linux of an unknown release, Python 3.10.12", "ok"),
    ],
)
def test_the_jetpack_and_its_python_are_told(
    files: dict[str, str], python: str, what: str, level: str, tmp_path: Path
) -> None:
    (found,) = jetson_findings(write(tmp_path, **files), python)
    assert found.what.endswith(what)
    assert (found.level, found.todo == "") == (level, level == "ok")


ZONE = "sys__class__thermal__thermal_zone"
COOL = {
    f"{ZONE}0__type": "cpu-thermal\n",
    f"{ZONE}0__temp": "45250\n",
    f"{ZONE}0__trip_point_0_type": "passive\n",
    f"{ZONE}0__trip_point_0_temp": "99000\n",
    f"{ZONE}0__trip_point_1_type": "active\n",
    f"{ZONE}0__trip_point_1_temp": "40000\n",
    f"{ZONE}1__type": "cv0-thermal\n",
    f"{ZONE}1__temp": "",
}


def test_the_temperature_of_a_jetson_is_told_and_a_problem_where_it_slows_the_device_down(tmp_path: Path) -> None:
    cool = finding(jetson_findings(write(tmp_path / "cool", **ORIN, **COOL)), "temperature")
    assert cool == Finding("temperature", "45 °C at cpu-thermal, the hottest place")
    hot = {**COOL, f"{ZONE}0__temp": "99500\n"}
    slow = finding(jetson_findings(write(tmp_path / "hot", **ORIN, **hot)), "temperature")
    assert (slow.level, slow.what) == (
        "problem",
        "100 °C at cpu-thermal, the hottest place; cpu-thermal slows the device down",
    )


@pytest.mark.parametrize(
    ("compute_capability", "installed", "machine", "is_foreseen"),
    [
        ("8.7", "1.31.1", "aarch64", True),  # Orin
        ("11.0", "1.31.1", "aarch64", True),  # Thor
        ("12.1", "1.31.1", "aarch64", False),
        ("8.7", "1.23.0", "aarch64", False),  # NVIDIA's own, of that time
        ("8.7", None, "aarch64", False),
        ("8.9", "1.31.1", "x86_64", False),
        ("8.7", "1.31.1", "x86_64", False),  # runs what was made for 8.6
        ("6.1", "1.31.1", "x86_64", True),
        ("10.0", "1.27", "x86_64", True),
        ("6.1", "1.26.0", "x86_64", False),
        ("8.9", "1.31.1", "riscv64", False),
    ],
)
def test_kernels_that_a_wheel_lacks_are_foreseen(
    compute_capability: str, installed: str | None, machine: str, is_foreseen: bool
) -> None:
    findings = kernel_findings(compute_capability, installed, machine)
    assert [each.topic for each in findings] == ["CUDA kernels"] * is_foreseen
    assert all(compute_capability in each.what and "device tensorrt" in each.todo for each in findings)


def test_a_gpu_that_no_file_tells_of_is_found(tmp_path: Path, gpu_without_tensorrt: object) -> None:
    assert [each.topic for each in nvidia_findings(tmp_path)] == ["CUDA"]


def test_a_gpu_without_kernels_is_foreseen_where_the_wheel_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu_without_tensorrt: object
) -> None:
    monkeypatch.setattr(nvidia, "version_of", {"onnxruntime-gpu": "1.31.1"}.get)
    monkeypatch.setattr(nvidia.platform, "machine", lambda: "aarch64")
    findings = nvidia_findings(write(tmp_path, **ORIN))
    assert finding(findings, "CUDA").what.startswith("Fake GPU, compute capability 8.7, ")
    assert finding(findings, "CUDA kernels").level == "note"


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
    assert finding(findings, "registry").what == f"{tmp_path}, registered models: 0"


def test_a_socket_that_answers_and_one_that_was_left_behind_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "s"
    settings = Settings(socket=f"unix://{path}", registry=tmp_path / "new")
    assert finding(access_findings(settings), "socket").what == f"{path} is free"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert finding(access_findings(settings), "socket").what == f"an agent serves {path}"
    assert "was left behind" in finding(access_findings(settings), "socket").what


def test_places_in_folders_that_are_closed_to_this_user_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, **how: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)  # as root may search every folder
    settings = Settings(socket="unix:///root/s", registry=tmp_path, engine_cache=tmp_path)
    found = access_findings(settings)[1:]
    assert [(each.topic, each.level) for each in found] == [
        *(("socket", "problem"), ("registry", "problem"), ("engine cache", "problem")),
    ]
    assert all("closed to this user" in each.what for each in found)


def test_the_engine_cache_is_told_of_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "engines"
    settings = Settings(socket=f"unix://{tmp_path}/s", registry=tmp_path, engine_cache=cache)
    assert "engine cache" not in {each.topic for each in access_findings(settings)}
    cache.mkdir()
    (cache / "a.engine").write_bytes(bytes(3 << 20))
    (cache / "b.engines").mkdir()
    (cache / "b.engines" / "of ONNX Runtime").write_bytes(bytes(2 << 20))
    found = finding(access_findings(settings), "engine cache")
    assert found.what.startswith(f"{cache}; engines: 2, 5 MiB; ")
    uid = access.os.geteuid()
    monkeypatch.setattr(access.os, "geteuid", lambda: uid + 1)
    assert finding(access_findings(settings), "engine cache").level == "note"


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
