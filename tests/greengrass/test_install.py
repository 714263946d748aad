"""The install step of a component, run as the nucleus runs it: with the system's Python, in the work folder."""

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agent.greengrass import artifacts

SCRIPT = Path(artifacts.__file__).parent / "install.py"


def make_wheel(folder, name, version, code):
    """A wheel of one module, without any build tool."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for path, text in content.items()
    )
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        for path, text in content.items():
            opened.writestr(path, text)
        opened.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return wheel


def pin(wheel):
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def component(tmp_path):
    """Unpacked artifacts: a client that needs one package, which it brings along; and an empty work folder."""
    unpacked, work = tmp_path / "un packed", tmp_path / "work"
    work.mkdir()
    wheel = make_wheel(unpacked / "wheels", "needed", "1.0", "WORD = 'first'\n")
    (unpacked / "requirements.txt").write_text(pin(wheel))
    shutil.copy(SCRIPT, unpacked)
    return unpacked


def install(component, *options):
    command = [sys.executable, "-u", component / "install.py", *options]
    # No package index is within reach: a proxy that nobody serves.
    environment = {"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:9", "PIP_CONFIG_FILE": os.devnull}
    work = component.parent / "work"
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=110)


def word(component):
    python = component.parent / "work" / "venv" / "bin" / "python"
    return subprocess.check_output([python, "-c", "import needed; print(needed.WORD)"], text=True).strip()


def test_a_component_is_installed_without_a_network_left_alone_when_it_is_there_and_renewed_when_it_changes(component):
    first = install(component)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "from the wheels in this component, without a network" in first.stdout
    assert word(component) == "first"

    environment = component.parent / "work" / "venv"
    made_at = environment.stat().st_ino
    again = install(component)
    assert "already installed: nothing to do" in again.stdout
    assert environment.stat().st_ino == made_at

    # The power goes between the two renames of an update.
    environment.rename(environment.with_name("venv.new"))
    assert "already installed: nothing to do" in install(component).stdout
    assert environment.stat().st_ino == made_at

    newer = make_wheel(component / "wheels", "needed", "2.0", "WORD = 'second'\n")
    (component / "requirements.txt").write_text(pin(newer))
    assert install(component).returncode == 0
    assert word(component) == "second"
    assert sorted(path.name for path in environment.parent.iterdir()) == ["venv"]


def test_a_file_that_is_not_the_pinned_one_is_not_installed_and_the_old_environment_stays(component):
    make_wheel(component / "wheels", "needed", "1.0", "WORD = 'forged'\n")
    refused = install(component)
    assert refused.returncode == 1
    assert "install: packages could not be installed" in refused.stdout
    assert not (component.parent / "work" / "venv").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--python", "/nowhere/python3"], "correct PythonPath"),
        (["--runtime", "tpu"], "Runtime is 'tpu'; it must be one of auto, cpu, gpu"),
        (["--reader", "eye"], "source.reader is 'eye'; it must be one of opencv, gstreamer"),
        (["--runtime", "gpu"], "brings no requirements-gpu.txt (it has: requirements-cpu.txt)"),
    ],
)
def test_what_cannot_be_installed_is_one_sentence_and_exit_code_1(component, options, told):
    (component / "requirements.txt").rename(component / "requirements-cpu.txt")
    refused = install(component, *options)
    assert refused.returncode == 1
    assert told in refused.stdout
    assert refused.stderr == ""


# --- what a device is


@pytest.fixture
def script(tmp_path):
    """The script as a module, in a component with both runtimes."""
    folder = tmp_path / "component"
    folder.mkdir()
    copy = Path(shutil.copy(SCRIPT, folder))
    for runtime in ("cpu", "gpu"):
        (folder / f"requirements-{runtime}.txt").touch()
    spec = importlib.util.spec_from_file_location("install_step", copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("file", "content", "is_jetson"),
    [
        ("etc/nv_tegra_release", "# R36", True),
        ("proc/device-tree/model", "NVIDIA Jetson Orin Nano\0", True),
        ("proc/device-tree/model", "Raspberry Pi 5\0", False),
        ("etc/hostname", "x", False),
    ],
)
def test_a_jetson_is_known_by_what_nvidia_puts_there(script, tmp_path, file, content, is_jetson):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    assert script.is_jetson(tmp_path) is is_jetson


@pytest.mark.parametrize(
    ("wanted", "jetson", "driver", "runtime", "told"),
    [
        ("auto", False, False, "cpu", "there is no NVIDIA driver"),
        ("auto", False, True, "gpu", "the NVIDIA driver is loaded"),
        ("auto", True, True, "cpu", "this is a Jetson"),
        ("cpu", False, True, "cpu", "as configured"),
        ("gpu", False, False, "gpu", "as configured"),
    ],
)
def test_the_runtime_is_the_one_asked_for_or_what_the_device_has(
    script, tmp_path, capsys, wanted, jetson, driver, runtime, told
):
    if driver:
        (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
        (tmp_path / "proc/driver/nvidia/version").touch()
    chosen = script.choose_requirements(wanted, None, jetson, tmp_path)
    assert chosen.name == f"requirements-{runtime}.txt"
    assert told in capsys.readouterr().out


def test_a_driver_without_the_gpu_runtime_in_the_component_takes_the_cpu(script, tmp_path, capsys):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    (Path(script.__file__).parent / "requirements-gpu.txt").unlink()
    assert script.choose_requirements("auto", None, False, tmp_path).name == "requirements-cpu.txt"
    assert "built without the gpu runtime" in capsys.readouterr().out


@pytest.mark.parametrize("reader", ["opencv", "gstreamer"])
def test_a_camera_client_installs_what_its_reader_needs(script, reader):
    for name in ("opencv", "gstreamer"):
        (Path(script.__file__).parent / f"requirements-{name}.txt").touch()
    assert script.choose_requirements("auto", reader, False).name == f"requirements-{reader}.txt"


def test_gstreamer_gets_an_environment_that_sees_the_systems_bindings(component):
    (component / "requirements.txt").rename(component / "requirements-gstreamer.txt")
    installed = install(component, "--reader", "gstreamer", "--python", sys.executable)
    assert "a virtual environment that sees the system packages" in installed.stdout
    configuration = (component.parent / "work/venv/pyvenv.cfg").read_text()
    assert "include-system-site-packages = true" in configuration
    assert word(component) == "first"


def test_the_best_python_is_taken_where_it_fits_else_one_on_the_path(script):
    assert script.find_python("auto", sys.executable) == sys.executable
    assert script.find_python("auto", "/nowhere/python3").startswith("python3.")


def test_the_script_is_readable_to_old_pythons():
    """It has to tell them what is missing; so nothing that is newer than 3.6 may stand in it."""
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
