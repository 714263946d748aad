"""Client recipes that are out in the field: what the two nuclei make of them, and of ours.

The client that the guide for the original agent had its readers write is a component with three plain files and a HARD
dependency on the model's component; it has neither a `runtime` nor keys in the case that nucleus lite wants.
(https://docs.aws.amazon.com/lookout-for-vision/latest/developer-guide/edge-inference-create-custom-component.html)
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.greengrass.model_recipe import ARCHIVE, REGISTRATION_SCRIPT, Step, model_recipe, registration_script
from agent.greengrass.recipe_check import findings
from agent.greengrass.recipe_parts import AGENT, rendered
from agent.workbench.components.layout import ComponentFiles
from tests.support.agent_process import AgentProcess, answers, names, wait_for
from tests.support.checkout import ROOT
from tests.support.greengrass_device import GreengrassDevice, NotDeployable
from tests.support.packages import make_package

MODEL, CLIENT = "com.example.Plates", "com.example.GuideClient"
FILES = ("list_models.py", "edge_agent_pb2.py", "edge_agent_pb2_grpc.py")
LISTS_MODELS = """
import sys

import edge_agent_pb2
import grpc
from edge_agent_pb2_grpc import EdgeAgentStub

with grpc.insecure_channel("unix://{socket}") as channel:
    for model in EdgeAgentStub(channel).ListModels(edge_agent_pb2.ListModelsRequest()).models:
        print("found", model, flush=True)
"""
STAYS = "import time\nwhile True:\n    time.sleep(60)\n"
"""For a client that goes on, as those do that inspect."""


def guide_recipe() -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": CLIENT,
        "ComponentVersion": "1.0.0",
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": "Lists the models of the edge agent",
        "ComponentPublisher": "Example",
        "ComponentDependencies": {MODEL: {"VersionRequirement": ">=1.0.0", "DependencyType": "HARD"}},
        "Manifests": [
            {
                "Platform": {"os": "linux"},
                "Lifecycle": {
                    "install": "pip3 install grpcio protobuf",
                    "run": {"script": "python3 {artifacts:path}/list_models.py"},
                },
                "Artifacts": [{"URI": f"s3://bucket/{name}"} for name in FILES],
            }
        ],
        "Lifecycle": {},
    }


def for_lite(recipe: dict[str, Any]) -> dict[str, Any]:
    """With what docs/greengrass.md says has to be changed for nucleus lite."""
    mended = copy.deepcopy(recipe)
    del mended["Lifecycle"]
    manifest = mended["Manifests"][0]
    manifest["Platform"]["runtime"] = "*"
    manifest["Lifecycle"]["run"] = {"Script": manifest["Lifecycle"]["run"]["script"]}
    manifest["Artifacts"] = [{"Uri": artifact["URI"]} for artifact in manifest["Artifacts"]]
    return mended


class Site:
    """A device with an agent beside it, whose registry is where its component would have it."""

    def __init__(self, folder: Path, agent: AgentProcess, lite: bool) -> None:
        self._folder, self.agent = folder, agent
        tools = folder / "tools"
        tools.mkdir()
        # What the published steps call: a pip that has nothing to do, and a Python that has gRPC.
        for name, script in (("pip3", "exit 0"), ("python3", f"exec '{sys.executable}' \"$@\"")):
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        self.device = GreengrassDevice(folder / "greengrass", lite, {"PATH": f"{tools}:/usr/bin:/bin"})
        (folder / f"greengrass/work/{AGENT}").mkdir(parents=True)
        (folder / f"greengrass/work/{AGENT}/registry").symlink_to(agent.registry)

    def deploy_model(self, step: Step = "startup", version: str = "1.0.0") -> None:
        recipe = model_recipe(MODEL, version, "Plates.", {}, None, step)
        files = ComponentFiles.in_folder(self._folder, MODEL, version, ARCHIVE)
        package = make_package(self._folder / f"package-{version}")
        content = {str(path.relative_to(package)): path for path in package.rglob("*") if path.is_file()}
        files.write({**content, REGISTRATION_SCRIPT: registration_script()}, rendered(recipe))
        self.device.deploy(files.recipe, self._folder / "artifacts")
        wait_for("the model", lambda: answers(lambda: names(self.agent.stub()) == [MODEL]))

    def deploy_client(self, recipe: dict[str, Any], then: str = "") -> None:
        artifacts = self._folder / "artifacts" / CLIENT / recipe["ComponentVersion"]
        artifacts.mkdir(parents=True)
        (artifacts / FILES[0]).write_text(LISTS_MODELS.replace("{socket}", str(self.agent.socket)) + then)
        for name in FILES[1:]:
            shutil.copy(ROOT / "client_examples/detect" / name, artifacts)
        (self._folder / "client.json").write_text(json.dumps(recipe))
        self.device.deploy(self._folder / "client.json", self._folder / "artifacts")

    def has_listed(self) -> bool:
        return f'model_component: "{MODEL}"' in self.device.log(CLIENT)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="gu-"))
    with AgentProcess() as agent:
        agent.registry.mkdir()
        site = Site(folder, agent, lite=request.param == "lite")
        yield site
        site.device.close()
    shutil.rmtree(folder)


on_lite = pytest.mark.parametrize("site", ["lite"], indirect=True)
on_java = pytest.mark.parametrize("site", ["java"], indirect=True)


@on_java
def test_the_guides_client_runs_on_the_java_nucleus_as_it_was_published(site: Site) -> None:
    site.deploy_model()
    site.deploy_client(guide_recipe())
    wait_for("the client's log", site.has_listed)
    wait_for("its end", lambda: site.device.state(CLIENT) == "FINISHED")
    assert site.device.state(MODEL) == "RUNNING"


@on_java
def test_a_client_that_depends_hard_on_the_model_restarts_with_it_on_the_java_nucleus(site: Site) -> None:
    site.deploy_model()
    site.deploy_client(guide_recipe(), then=STAYS)
    first = site.device.process(CLIENT)
    site.deploy_model(version="1.1.0")
    assert first.poll() is not None
    assert site.device.process(CLIENT).poll() is None


@on_lite
def test_the_guides_client_is_not_taken_by_nucleus_lite_and_the_check_says_what_to_change(site: Site) -> None:
    site.deploy_model()
    with pytest.raises(NotDeployable, match="no manifest"):
        site.deploy_client(guide_recipe())
    told = {finding.place: finding.sentence for finding in findings(guide_recipe(), 1000)}
    assert told.keys() == {
        "Lifecycle",
        "Manifests[0].Platform.runtime",
        "Manifests[0].Lifecycle.run.script",
        *(f"Manifests[0].Artifacts[{index}].URI" for index in range(3)),
    }
    assert "Write 'Script'" in told["Manifests[0].Lifecycle.run.script"]


@on_lite
def test_the_guides_client_runs_on_nucleus_lite_once_it_is_changed(site: Site) -> None:
    recipe = for_lite(guide_recipe())
    assert findings(recipe, 1000) == []
    site.deploy_model()
    site.deploy_client(recipe, then=STAYS)
    wait_for("the client's log", site.has_listed)
    assert site.device.state(MODEL) == "RUNNING"
    assert site.device.state(CLIENT) == "RUNNING"


@on_lite
def test_nucleus_lite_ends_a_client_that_depends_hard_on_a_model_that_registers_in_run(site: Site) -> None:
    """Why models register in `startup`, and what to depend SOFT on where they cannot."""
    site.deploy_model("run")
    site.deploy_client(for_lite(guide_recipe()), then=STAYS)
    wait_for("the model's end", lambda: site.device.state(MODEL) == "FINISHED")
    assert site.device.state(CLIENT) == "FINISHED"


@on_lite
def test_a_client_that_depends_soft_on_such_a_model_lives(site: Site) -> None:
    recipe = for_lite(guide_recipe())
    recipe["ComponentDependencies"][MODEL]["DependencyType"] = "SOFT"
    site.deploy_model("run")
    site.deploy_client(recipe, then=STAYS)
    wait_for("the model's end", lambda: site.device.state(MODEL) == "FINISHED")
    assert site.device.state(CLIENT) == "RUNNING"
