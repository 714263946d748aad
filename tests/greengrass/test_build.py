"""`edge-agent greengrass build|client|check`, as its user gives it; what would need a network is played.

That its components install and run is shown in tests/end_to_end/test_installation.py.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from agent import __version__, cli
from agent.greengrass.client_recipe import CAMERA, LIVE_VIEW, SAMPLE_CLIENT, ClientExample
from agent.greengrass.recipe_parts import AGENT
from agent.workbench import client_examples
from agent.workbench.components import build
from agent.workbench.components.wheels import DevicePlatform
from tests.support.checkout import ROOT

WHEEL = f"vision_edge_agent-{__version__}-py3-none-any.whl"
ARCHIVE = f"artifacts/{AGENT}/{__version__}/lookoutvision_edge_agent.zip"
CLIENT = SAMPLE_CLIENT.component


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / WHEEL
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("agent/wire/edge-agent.proto", "syntax = 'proto3';")
    return path


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package index that has what anybody wants, in one file a platform; and what was wanted of it."""
    wanted: list[str] = []

    def pinned(requirements: str) -> str:
        wanted.append(requirements)
        return "# pinned\n" + requirements

    def download(requirements: str, platform: DevicePlatform, folder: Path) -> None:
        (folder / f"needed-1.0-{platform}.whl").write_text(requirements)

    monkeypatch.setattr(build, "pinned_requirements", pinned)
    monkeypatch.setattr(build, "download_wheels", download)
    return wanted


def run(wheel: Path, *options: str) -> int:
    return cli.main(["greengrass", "build", "--output", str(wheel.parent / "out"), "--wheel", str(wheel), *options])


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


def test_the_agents_component_lies_where_tools_look_for_it(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(wheel) == 0
    out = wheel.parent / "out"
    assert names(out / ARCHIVE) == [
        "edge-agent.proto",
        "install.py",
        "protos/edge-agent.proto",
        "requirements-cpu.txt",
        WHEEL,
    ]
    recipe = out / f"recipes/{AGENT}-{__version__}.json"
    assert json.loads(recipe.read_text()) == json.loads((ROOT / "recipes/agent/recipe.json").read_text())
    printed = capsys.readouterr().out
    assert str(out / ARCHIVE) in printed and str(recipe) in printed
    assert cli.main(["greengrass", "check", str(recipe)]) == 0


def test_each_runtime_has_its_requirements_and_each_platform_its_wheels(wheel: Path, index: list[str]) -> None:
    platforms = ["--bundle-wheels", "aarch64-py310", "--bundle-wheels", "x86_64-py312"]
    assert run(wheel, "--runtime", "cpu", "--runtime", "gpu", "--runtime", "cpu", *platforms) == 0
    packed = names(wheel.parent / "out" / ARCHIVE)
    assert [name for name in packed if name.startswith("requirements")] == [
        "requirements-cpu.txt",
        "requirements-gpu.txt",
    ]
    assert [name for name in packed if name.startswith("wheels/")] == [
        "wheels/needed-1.0-aarch64-py310.whl",
        "wheels/needed-1.0-x86_64-py312.whl",
    ]
    extras = [wanted.partition(" @ ")[0] for wanted in index]
    assert extras == ["vision-edge-agent[cpu,greengrass]", "vision-edge-agent[gpu,greengrass]"]


def test_the_sample_client_is_for_the_model_and_the_agent_that_were_named(wheel: Path) -> None:
    assert run(wheel, "--name", "com.example.Agent", "--sample-client", "com.example.Plates", "--bucket", "line") == 0
    out = wheel.parent / "out"
    packed = names(out / f"artifacts/{CLIENT}/{__version__}/sample_client.zip")
    assert {"detect.py", "edge_agent_client.py", "install.py", "requirements.txt"} <= set(packed)
    recipe = json.loads((out / f"recipes/{CLIENT}-{__version__}.json").read_text())
    assert list(recipe["ComponentDependencies"]) == ["com.example.Agent", "com.example.Plates"]
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["ModelComponentName"] == "com.example.Plates"
    artifact = recipe["Manifests"][0]["Artifacts"][0]
    assert artifact["Uri"] == f"s3://line/{CLIENT}/{__version__}/sample_client.zip"


def test_the_camera_client_brings_a_set_of_packages_for_each_reader(wheel: Path, index: list[str]) -> None:
    assert run(wheel, "--source", str(ROOT), "--camera", "com.example.Plates", "--bucket", "line") == 0
    out = wheel.parent / "out"
    packed = names(out / f"artifacts/{CAMERA.component}/{__version__}/camera.zip")
    assert {"camera.py", "camera_client/sinks/mqtt.py", "edge_agent_pb2.py", "install.py", "README.md"} <= set(packed)
    assert not {"recipe.json", "gdk-config.json", "requirements.txt"} & set(packed)
    assert [name for name in packed if name.startswith("requirements")] == [
        "requirements-gstreamer.txt",
        "requirements-opencv.txt",
    ]
    with_opencv, without = index[-2:]
    assert set(with_opencv.splitlines()) - set(without.splitlines()) == {"opencv-python-headless>=4.9"}
    for needed in ("grpcio", "msgspec", "Pillow", "paho-mqtt", "awsiotsdk"):
        assert needed in without
    recipe = json.loads((out / f"recipes/{CAMERA.component}-{__version__}.json").read_text())
    assert list(recipe["ComponentDependencies"]) == [AGENT, "com.example.Plates"]
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["model"] == "com.example.Plates"


def make_client(folder: Path, example: ClientExample = LIVE_VIEW) -> Path:
    """A client of one's own, made of the recipe of an example."""
    (folder / "templates").mkdir(parents=True)
    for name in ("live_view.py", "templates/page.html", "verdicts.jsonl", "part.png"):
        (folder / name).write_text(name)
    for name, packages in (("requirements.txt", "flask>=3\n"), ("requirements-more.txt", "waitress>=3\n")):
        (folder / name).write_text(packages)
    for name in ("venv/lib/flask.py", "venv/pyvenv.cfg", "__pycache__/live_view.py", "greengrass-build/old.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    shutil.copy(ROOT / "client_examples" / example.folder / "recipe.json", folder)
    return folder


def test_the_live_view_is_made_of_the_checkout_that_is_named(wheel: Path, index: list[str]) -> None:
    make_client(wheel.parent / "checkout/client_examples/live_view")
    assert run(wheel, "--source", str(wheel.parent / "checkout"), "--live-view") == 0
    packed = names(wheel.parent / f"out/artifacts/{LIVE_VIEW.component}/{__version__}/live_view.zip")
    assert packed == ["install.py", "live_view.py", "requirements.txt", "templates/page.html"]
    assert index[-1].splitlines() == ["waitress>=3", "flask>=3"]


def test_a_client_of_ones_own_is_built_by_the_recipe_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_client(tmp_path / "mine", CAMERA)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe |= {"ComponentName": "com.mine.Camera", "ComponentVersion": "2.0.0"}
    recipe["ComponentConfiguration"]["DefaultConfiguration"] = {
        "PythonPath": "auto",
        "source": {"address": "folder:/srv/in", "reader": "opencv"},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    monkeypatch.chdir(folder)
    for _ in range(2):  # gdk may build again
        assert cli.main(["greengrass", "client", ".", "--gdk"]) == 0
    assert cli.main(["greengrass", "client", ".", "--output", str(tmp_path / "out"), "--bucket", "line"]) == 0
    built = json.loads((tmp_path / "out/recipes/com.mine.Camera-2.0.0.json").read_text())
    assert built["ComponentConfiguration"] == recipe["ComponentConfiguration"]
    assert built["Manifests"][1]["Artifacts"][0]["Uri"] == "s3://line/com.mine.Camera/2.0.0/camera.zip"
    assert (folder / "greengrass-build/recipes/recipe.json").is_file()
    archive = (folder / "greengrass-build/artifacts/com.mine.Camera/2.0.0/camera.zip").read_bytes()
    assert (tmp_path / "out/artifacts/com.mine.Camera/2.0.0/camera.zip").read_bytes() == archive


@pytest.mark.parametrize("example", [SAMPLE_CLIENT, CAMERA, LIVE_VIEW], ids=lambda example: example.folder)
def test_gdks_configuration_of_a_client_example_names_what_it_builds(
    example: ClientExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_client(tmp_path / "copy", example)
    configuration = json.loads((ROOT / "client_examples" / example.folder / "gdk-config.json").read_text())
    [(name, configured)] = configuration["component"].items()
    program, *arguments = configured["build"]["custom_build_command"]
    assert program == "edge-agent"
    monkeypatch.chdir(folder)
    assert cli.main(arguments) == 0
    assert (folder / f"greengrass-build/artifacts/{name}/{configured['version']}/{example.archive}.zip").is_file()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ComponentVersion": "2"}, "The recipe of 'com.example.vision.LiveView' is not written. ComponentVersion: "),
        ({"Manifests": [{"Platform": {"runtime": "*"}, "Lifecycle": {"run": "true"}}]}, "one artifact, a ZIP"),
        (None, "recipe.json cannot be read as a recipe: No such file"),
    ],
)
def test_a_client_that_is_no_component_yet_is_one_sentence_and_leaves_nothing(
    change: dict[str, object] | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_client(tmp_path / "mine")
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").unlink()
    if change is not None:
        (folder / "recipe.json").write_text(json.dumps(recipe | change))
    assert cli.main(["greengrass", "client", str(folder), "--output", str(tmp_path / "out")]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_client_examples_are_built_in_a_checkout_only(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_examples.agent, "__file__", str(wheel.parent / "site-packages/agent/__init__.py"))
    assert run(wheel, "--source", str(wheel.parent), "--camera", "com.example.Plates") == 1
    assert "client_examples/camera is not here. Run this in a checkout" in capsys.readouterr().err
    assert not (wheel.parent / "out").exists()


def test_the_same_content_gives_the_same_bytes(wheel: Path) -> None:
    assert run(wheel) == 0
    first = (wheel.parent / "out" / ARCHIVE).read_bytes()
    (wheel.parent / "out").rename(wheel.parent / "earlier")
    wheel.touch()
    assert run(wheel) == 0
    assert (wheel.parent / "out" / ARCHIVE).read_bytes() == first


@pytest.mark.parametrize("there", [ARCHIVE, f"recipes/{AGENT}-{__version__}.json"])
def test_a_version_that_is_there_is_never_overwritten(
    wheel: Path, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wheel.parent / "out" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert run(wheel) == 1
    assert "is never overwritten" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run(wheel, "--version", "1.999.0") == 0


def test_gdk_finds_its_recipe_under_the_name_it_knows_and_may_build_again(wheel: Path) -> None:
    assert run(wheel, "--gdk") == 0
    assert run(wheel, "--gdk") == 0
    recipe = wheel.parent / "out/recipes/recipe.json"
    assert json.loads(recipe.read_text())["ComponentName"] == AGENT


def test_gdks_configuration_calls_this_command_and_names_what_it_builds(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = json.loads((ROOT / "recipes/agent/gdk-config.json").read_text())["component"][AGENT]
    program, *arguments = configured["build"]["custom_build_command"]
    assert program == "edge-agent"
    monkeypatch.chdir(wheel.parent)  # gdk runs it in its project's folder
    assert cli.main([*arguments, "--wheel", str(wheel)]) == 0
    assert (wheel.parent / f"greengrass-build/artifacts/{AGENT}/{configured['version']}").is_dir()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--name", "a b"], "The recipe of 'a b' is not written. ComponentName: It must be 1 to 128 letters"),
        (["--version", "1"], "ComponentVersion: It must be major.minor.patch"),
        (["--bundle-wheels", "windows"], "one of aarch64-py310, "),
        (["--gdk", "--sample-client", "com.example.Plates"], "gdk builds one component at a time. Leave out --gdk"),
        (["--wheel", "/nowhere.whl"], "/nowhere.whl is no wheel of the agent"),
        (["--wheel", __file__], "is no wheel of the agent: File is not a zip file"),
    ],
)
def test_what_cannot_be_built_is_one_sentence_and_leaves_nothing(
    wheel: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong_option = 2 if "--bundle-wheels" in options else 1
    assert run(wheel, *options) == wrong_option
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("edge-agent greengrass: ") and told in line
    assert not (wheel.parent / "out").exists()


def test_another_zip_is_no_wheel_of_the_agent(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr("other.py", "")
    assert run(wheel) == 1
    assert "it holds no agent/wire/edge-agent.proto" in capsys.readouterr().err


def test_a_wheel_is_built_from_a_checkout_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert cli.main(["greengrass", "build", "--source", str(tmp_path), "--output", str(output)]) == 1
    assert (
        "Run this in a checkout of the project, name one with --source, or give a wheel with --wheel."
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("option", [["--runtime", "tpu"], ["--bundle"], ["--unknown"]])
def test_a_wrong_option_is_exit_code_2(wheel: Path, option: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(wheel, *option)
    assert ended.value.code == 2


def test_where_nothing_can_be_written_is_a_sentence(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (wheel.parent / "out").touch()
    assert run(wheel) == 1
    assert "lookoutvision_edge_agent.zip cannot be written" in capsys.readouterr().err


# --- check


def test_our_recipes_are_taken_by_both_nuclei(capsys: pytest.CaptureFixture[str]) -> None:
    recipes = [str(path) for folder in ("recipes", "client_examples") for path in (ROOT / folder).glob("*/recipe.json")]
    assert cli.main(["greengrass", "check", *recipes]) == 0
    assert capsys.readouterr().out == "8 recipes, no findings\n"


def test_findings_name_file_and_place_and_make_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = json.loads((ROOT / "recipes/model/recipe.json").read_text())
    del recipe["Manifests"][0]["Platform"]["runtime"]
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe))  # JSON is YAML
    assert cli.main(["greengrass", "check", str(file)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{file}: Manifests[0].Platform.runtime: Set it to")
    assert last == "1 recipe, 1 finding"


@pytest.mark.parametrize(("name", "content"), [("a.json", "{"), ("a.yaml", "a: [b"), ("a.yaml", "\x00"), ("b", None)])
def test_what_is_no_recipe_is_a_sentence(
    tmp_path: Path, name: str, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert cli.main(["greengrass", "check", str(tmp_path / name)]) == 1
    assert "cannot be read as a recipe" in capsys.readouterr().err
