"""The command line: its names are a contract."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import agent
from agent import cli
from agent.models.registry import Registry
from tests.support.packages import HEIGHT, WIDTH, grey, make_package


def run(*arguments: str) -> int:
    return cli.main([str(argument) for argument in arguments])


def zipped(package: Path, archive: Path) -> Path:
    return Path(shutil.make_archive(str(archive), "zip", package))


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(command, "--help")
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


@pytest.mark.parametrize("command", [["doctor"], ["engines", "list"], ["verify", "package"]])
def test_a_setting_that_is_not_allowed_is_exit_code_2(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_AGENT_DEVICE", "gpu")
    assert run(*command) == 2
    assert "EDGE_AGENT_DEVICE is 'gpu'; it must be auto or cpu or cuda" in capsys.readouterr().err


def test_python_dash_m_is_the_same_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "agent", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"edge-agent {agent.__version__}"


def test_an_unknown_command_exits_2() -> None:
    with pytest.raises(SystemExit) as ended:
        run("sever")
    assert ended.value.code == 2


def test_a_folder_is_registered_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package, registry = make_package(tmp_path / "package", version="2.3.4"), tmp_path / "registry"
    assert run("models", "register", package, "--component", "front.plate", "--registry", registry) == 0
    record = Registry(registry).records()["front.plate"]
    assert (record.version, record.path) == ("2.3.4", str(package))
    assert run("models", "list", "--registry", registry) == 0
    assert "front.plate" in (listed := capsys.readouterr().out) and "2.3.4" in listed and str(package) in listed
    assert run("models", "remove", "front.plate", "--registry", registry) == 0
    assert Registry(registry).records() == {}
    assert package.is_dir()


def test_a_zip_is_unpacked_below_the_registry_and_removed_with_the_record(tmp_path: Path) -> None:
    archive, registry = zipped(make_package(tmp_path / "package"), tmp_path / "p"), tmp_path / "registry"
    assert run("models", "register", archive, "--component", "plate", "--registry", registry) == 0
    folder = Path(Registry(registry).records()["plate"].path)
    assert (folder / "model.onnx").is_file() and registry in folder.parents
    assert run("models", "register", archive, "--component", "plate", "--registry", registry) == 0  # the same again
    assert run("models", "remove", "plate", "--registry", registry) == 0
    assert not folder.exists()


def test_the_same_version_with_other_content_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "registry"
    first = zipped(make_package(tmp_path / "1"), tmp_path / "first")
    second = zipped(make_package(tmp_path / "2", any_size=True), tmp_path / "second")
    assert run("models", "register", first, "--component", "plate", "--registry", registry) == 0
    assert run("models", "register", second, "--component", "plate", "--registry", registry) == 1
    assert "never overwritten" in capsys.readouterr().err


def test_a_damaged_package_is_not_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package, registry = make_package(tmp_path / "package"), tmp_path / "registry"
    (package / "model.onnx").write_bytes(b"x")
    assert run("models", "register", package, "--component", "plate", "--registry", registry) == 1
    error = capsys.readouterr().err
    assert "model.onnx" in error and "1 bytes" in error
    assert Registry(registry).records() == {}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 129])
def test_a_bad_component_name_is_not_registered(tmp_path: Path, name: str) -> None:
    package = make_package(tmp_path / "package")
    assert run("models", "register", package, "--component", name, "--registry", tmp_path / "registry") == 1


def test_removing_what_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "remove", "nobody", "--registry", tmp_path) == 1
    assert "'nobody' is not registered" in capsys.readouterr().err


@pytest.mark.parametrize("archived", [False, True])
def test_verify_runs_the_self_test(tmp_path: Path, archived: bool, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "package")
    assert run("verify", zipped(package, tmp_path / "p") if archived else package) == 0
    out = capsys.readouterr().out
    assert "self-test/good.rgb" in out and "can be served" in out


def test_verify_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "package")
    manifest = json.loads((package / "manifest.json").read_text())
    manifest["self_test"][0]["score"] = 0.9
    (package / "manifest.json").write_text(json.dumps(manifest))
    assert run("verify", package) == 1
    assert "self-test/good.rgb" in capsys.readouterr().err


def test_detect_answers_as_the_service_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = make_package(tmp_path / "package")
    spotted = grey(255)
    spotted[:16] = 0
    Image.fromarray(spotted).save(tmp_path / "spotted.png")
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(tmp_path / "white.png")
    assert run("detect", package, tmp_path / "spotted.png", tmp_path / "white.png") == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows[0].split()[:6] == ["spotted.png", "anomalous", "1.0000", "1.0000", "/", "0.5000"]
    assert "anomaly 25.00%" in rows[0]
    assert rows[1].split()[:3] == ["white.png", "normal", "1.0000"]


def test_detect_names_a_picture_of_the_wrong_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "square.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "fits.png")
    package = make_package(tmp_path / "package")
    assert run("detect", package, tmp_path / "square.png", tmp_path / "absent.png", tmp_path / "fits.png") == 1
    square, absent, fits = capsys.readouterr().out.splitlines()[2:]
    assert square.startswith("square.png") and "no answer" in square and "100 x 100" in square
    assert absent.startswith("absent.png") and "there is no such file" in absent
    assert fits.split()[:2] == ["fits.png", "anomalous"]  # the others do not take its answer away


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("onnx", ["fit", "photos"]),
        ("onnx", ["package", "onnx", "model.onnx", "--component", "plate"]),
        ("onnx", ["inspect", "model.onnx"]),
        ("sklearn", ["evaluate", "package", "photos"]),
        ("tqdm", ["demo"]),
    ],
)
def test_a_bench_without_its_libraries_is_told_what_to_install(
    library: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert run(*words) == 1
    assert f"needs '{library}', which a device does not. Install it with" in capsys.readouterr().err
