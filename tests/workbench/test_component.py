"""A package becomes a component: ZIP and recipe."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from agent import cli
from agent.errors import BadComponentName
from agent.models.registry import Registry
from agent.packages.archive import opened_package
from agent.packages.manifest import TargetDevice
from agent.packages.package import Package, read_package, verify_files
from agent.workbench.errors import OutputExists, OutputNotWritable, RecipeHasFindings, SettingOutOfRange
from agent.workbench.packaging.component import Component, check_component, refuse_existing_component, write_component
from tests.support.packages import make_package


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return read_package(make_package(tmp_path / "package"))


def component(name: str = "front.plate", version: str = "1.2.3", **fields: object) -> Component:
    told = {"description": "", "tags": {}, "target": None, **fields}
    return Component(name, version, **told)  # type: ignore[arg-type]


def test_zip_and_recipe_lie_where_tools_look_for_them(package: Package, tmp_path: Path) -> None:
    written = write_component(package, component(), tmp_path / "out")
    assert written.archive == tmp_path / "out/artifacts/front.plate/1.2.3/model.zip"
    assert written.recipe == tmp_path / "out/recipes/front.plate-1.2.3.json"
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert [name for name in files if not name.endswith(("front.plate", "1.2.3"))] == [
        "artifacts/front.plate/1.2.3/model.zip",
        "recipes/front.plate-1.2.3.json",
    ]
    recipe = json.loads(written.recipe.read_text())
    assert (recipe["ComponentName"], recipe["ComponentVersion"]) == ("front.plate", "1.2.3")


def test_the_zip_is_a_package_with_its_registration_script(package: Package, tmp_path: Path) -> None:
    (package.folder / "notes.txt").write_text("not listed")
    archive = write_component(package, component(), tmp_path / "out").archive
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["manifest.json", "model.onnx", "register_model.sh", "self-test/good.rgb"]
    with opened_package(archive) as unpacked:
        verify_files(unpacked)
        assert unpacked.manifest == package.manifest


def test_the_zip_is_registered_by_hand_too(package: Package, tmp_path: Path) -> None:
    archive = write_component(package, component(), tmp_path / "out").archive
    arguments = ["models", "register", str(archive), "--component", "plate", "--registry", str(tmp_path / "registry")]
    assert cli.main(arguments) == 0
    assert "plate" in Registry(tmp_path / "registry").records()


def test_the_same_package_gives_the_same_bytes(package: Package, tmp_path: Path) -> None:
    first = write_component(package, component(), tmp_path / "first")
    for file in package.folder.rglob("*"):
        file.touch()
    second = write_component(package, component(), tmp_path / "second")
    assert first.archive.read_bytes() == second.archive.read_bytes()
    assert first.recipe.read_bytes() == second.recipe.read_bytes()


@pytest.mark.parametrize("there", ["artifacts/front.plate/1.2.3/model.zip", "recipes/front.plate-1.2.3.json"])
def test_the_same_name_and_version_is_never_overwritten(there: str, package: Package, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(OutputExists):
        refuse_existing_component(component(), tmp_path)
    with pytest.raises(OutputExists):
        write_component(package, component(), tmp_path)
    assert (tmp_path / there).read_text() == "mine"
    write_component(package, component(version="1.2.4"), tmp_path)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "ä", "x" * 129, "quo'te"])
def test_names_that_greengrass_does_not_take_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadComponentName):
        check_component(component(name))


@pytest.mark.parametrize("version", ["1", "1.0", "01.0.0", "1.0.0-a", "1.0.0\n", "1.0.1000000", "1.0.0.0"])
def test_versions_that_greengrass_does_not_take_are_refused(version: str, tmp_path: Path) -> None:
    with pytest.raises(SettingOutOfRange, match="--version"):
        check_component(component(version=version))


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"description": "x" * 1001}, "--description"),
        ({"description": "two\nlines"}, "--description"),
        ({"tags": {"aws:mine": "x"}}, "--tag"),
        ({"tags": {str(number): "" for number in range(51)}}, "--tag"),
        ({"tags": {f"{number}": "x" * 400 for number in range(50)}}, "--tag"),
    ],
)
def test_what_makes_a_recipe_too_large_is_refused(fields: dict[str, object], option: str, tmp_path: Path) -> None:
    with pytest.raises(SettingOutOfRange, match=option):
        check_component(component(**fields))


def test_the_recipe_tells_description_tags_and_target(package: Package, tmp_path: Path) -> None:
    told = component(description="Front plates, line 4: größer", tags={"line": "4"}, target=TargetDevice("arm_cpu"))
    recipe = json.loads(write_component(package, told, tmp_path).recipe.read_text(encoding="utf-8"))
    assert recipe["ComponentDescription"] == "Front plates, line 4: größer"
    configuration = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    assert (configuration["Tags"], configuration["Target"]["name"]) == ({"line": "4"}, "arm_cpu")


@pytest.mark.parametrize("step", ["startup", "run"])
def test_the_package_is_registered_in_the_step_that_was_asked_for(step: str, package: Package, tmp_path: Path) -> None:
    recipe = json.loads(write_component(package, component(step=step), tmp_path).recipe.read_text())
    assert list(recipe["Manifests"][0]["Lifecycle"]) == [step]


def test_a_failure_leaves_nothing_behind(package: Package, tmp_path: Path) -> None:
    (tmp_path / "recipes").write_text("a file where the folder should be")
    with pytest.raises(OutputNotWritable):
        write_component(package, component(), tmp_path)
    assert not [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


def test_agent_and_bucket_are_those_that_were_named(package: Package, tmp_path: Path) -> None:
    told = component(agent="com.example.Agent", bucket="line-one")
    recipe = json.loads(write_component(package, told, tmp_path).recipe.read_text())
    assert list(recipe["ComponentDependencies"]) == ["com.example.Agent"]
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["Registry"] == "../com.example.Agent/registry"
    assert recipe["Manifests"][0]["Artifacts"][0]["Uri"] == "s3://line-one/front.plate/1.2.3/model.zip"


@pytest.mark.parametrize(
    ("fields", "place"),
    [({"agent": "an agent"}, "ComponentDependencies.an agent"), ({"bucket": "a bucket"}, "Artifacts[0].Uri")],
)
def test_a_recipe_that_a_nucleus_would_not_take_is_not_written(
    fields: dict[str, object], place: str, package: Package, tmp_path: Path
) -> None:
    with pytest.raises(RecipeHasFindings, match=re.escape(place)):
        write_component(package, component(**fields), tmp_path / "out")
    assert not (tmp_path / "out").exists()
