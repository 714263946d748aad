"""Recipes of the client examples: that they fit each other, what they may do, and what their steps are told."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from agent.greengrass.client_recipe import (
    CAMERA,
    LIVE_VIEW,
    SAMPLE_CLIENT,
    ClientExample,
    camera_recipe,
    live_view_recipe,
    sample_client_recipe,
)
from agent.greengrass.recipe_check import findings
from agent.workbench.components.client_folder import client_files
from agent.workbench.components.layout import ComponentFiles
from agent.workbench.components.recipe_file import checked_recipe
from tests.support.checkout import ROOT
from tests.support.greengrass_device import GreengrassDevice

TELLS_ITS_ARGUMENTS = b"import sys; print('told', sys.argv[1:], flush=True)"
EACH = pytest.mark.parametrize(
    ("example", "recipe"),
    [
        (SAMPLE_CLIENT, sample_client_recipe("1.3.0", "com.example.Plates")),
        (CAMERA, camera_recipe("1.3.0", "com.example.Plates")),
        (LIVE_VIEW, live_view_recipe("1.3.0")),
    ],
    ids=lambda value: value.folder if isinstance(value, ClientExample) else "",
)
BOTH_NUCLEI = pytest.mark.parametrize("lite", [False, True], ids=["java", "lite"])


def defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    return found


@EACH
def test_both_nuclei_take_it_and_it_outlives_what_it_depends_on(example: ClientExample, recipe: dict[str, Any]) -> None:
    assert findings(recipe, 1000) == []
    assert {each["DependencyType"] for each in recipe["ComponentDependencies"].values()} == {"SOFT"}


@EACH
def test_every_file_of_the_program_is_in_the_component(example: ClientExample, recipe: dict[str, Any]) -> None:
    folder = ROOT / "client_examples" / example.folder
    no_program = re.compile(r"(^|/)(\.|__pycache__|greengrass-build|requirements|screenshot)")
    program = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    program = {name for name in program if not no_program.search(name)}
    assert program - set(client_files(folder)) == {"recipe.json", "gdk-config.json"}


def test_the_live_view_shows_what_the_camera_client_writes() -> None:
    camera, view = defaults(camera_recipe("1.3.0", "com.example.Plates")), defaults(live_view_recipe("1.3.0"))

    def seen_from(component: str, path: str) -> str:
        return os.path.normpath(f"/greengrass/v2/work/{component}/{path}")

    [results], [overlays] = view["results"], view["overlays"]
    assert seen_from(LIVE_VIEW.component, results) == seen_from(CAMERA.component, camera["json_lines"]["path"])
    assert seen_from(LIVE_VIEW.component, overlays) == seen_from(CAMERA.component, camera["overlays"]["folder"])


def test_the_camera_client_may_do_what_its_code_does_with_the_nucleus_and_nothing_else() -> None:
    policies = defaults(camera_recipe("1.3.0", "com.example.Plates"))["accessControl"]
    allowed = {
        (operation, resource)
        for service in policies.values()
        for policy in service.values()
        for operation in policy["operations"]
        for resource in policy["resources"]
    }
    sources = [path.read_text() for path in (ROOT / "client_examples/camera").rglob("*.py")]
    code = "".join(source for source in sources if "awsiot" in source)
    asked = set(re.findall(r"client\.(\w+)_async\(", code)) - {"get_configuration"}  # one's own needs no policy
    assert {operation.lower() for operation, _ in allowed} == {
        f"aws.greengrass#{name.replace('_', '')}" for name in asked
    }
    assert {resource for _, resource in allowed} == {"vision/camera/*"}


@BOTH_NUCLEI
@pytest.mark.parametrize("reader", [None, "gstreamer"])
def test_the_reader_that_is_configured_is_what_the_camera_client_installs(
    tmp_path: Path, lite: bool, reader: str | None
) -> None:
    files = ComponentFiles.in_folder(tmp_path, CAMERA.component, "1.3.0", CAMERA.archive)
    recipe = checked_recipe(camera_recipe("1.3.0", "com.example.Plates"))
    files.write({"install.py": TELLS_ITS_ARGUMENTS}, recipe)
    device = GreengrassDevice(tmp_path / "greengrass", lite)
    told = {"source": {"address": "rtsp://camera"} | ({"reader": reader} if reader else {})}
    device.deploy(files.recipe, tmp_path / "artifacts", told, start=False)
    arguments = ["--python", "auto", "--reader", reader or "opencv"]
    assert device.log(CAMERA.component) == f"told {arguments}\n"
