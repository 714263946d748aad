"""A line by deployment alone: agent, models and clients as components on a device, and a nucleus to talk to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent import __version__
from agent.greengrass.agent_recipe import ARCHIVE, agent_recipe
from agent.greengrass.client_recipe import (
    CAMERA,
    LIVE_VIEW,
    SAMPLE_CLIENT,
    ClientExample,
    camera_recipe,
    live_view_recipe,
    sample_client_recipe,
)
from agent.greengrass.recipe_parts import AGENT
from agent.wire import edge_agent_pb2 as wire
from agent.wire.edge_agent_pb2_grpc import EdgeAgentStub
from agent.workbench.components.client_folder import client_files
from agent.workbench.components.layout import ComponentFiles
from agent.workbench.components.recipe_file import checked_recipe
from tests.support.agent_process import RECONNECT, describe, wait_for
from tests.support.camera_process import put_picture
from tests.support.checkout import ROOT
from tests.support.greengrass_device import GreengrassDevice
from tests.support.live_view_process import LivePage, port_of
from tests.support.nucleus import Nucleus
from tests.support.packages import grey, make_package, slow_model

PLATES, SLOW = "com.example.Plates", "com.example.Slow"
VERSION, NEWER = __version__, "1.999.0"
NO_NETWORK = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "PIP_CONFIG_FILE": os.devnull}
"""A proxy that nobody serves, and nothing of this machine's pip."""

LIGHT_AND_DARK = {"light": grey(255), "dark": grey(0)}
"""One normal and one anomalous to `PLATES`."""


def edge_agent(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command of the workbench that succeeds, as its user gives it."""
    command = [sys.executable, "-m", "agent", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def build_models(site: Path, packages: Path) -> None:
    """Two versions of one model component, and another that takes a second for a white image."""
    for name, version, package in (
        (PLATES, "1.0.0", make_package(packages / "plates")),
        (PLATES, "1.1.0", make_package(packages / "better-plates", version="1.1.0")),
        (SLOW, "1.0.0", make_package(packages / "slow", task="classification", model=slow_model())),
    ):
        edge_agent("package", "fitted", package, "--component", name, "--version", version, "--output", site)


def build_without_install_steps(site: Path) -> None:
    """Agent, in two versions, and clients for a device that has their environments already."""
    for version in (VERSION, NEWER):
        _write(site, agent_recipe(version), ARCHIVE, {"edge-agent.proto": ROOT / "protos/edge-agent.proto"})
    _write_client(site, SAMPLE_CLIENT, sample_client_recipe(VERSION, PLATES))
    _write_client(site, CAMERA, camera_recipe(VERSION, PLATES))
    _write_client(site, LIVE_VIEW, live_view_recipe(VERSION))


def _write_client(site: Path, example: ClientExample, recipe: dict[str, Any]) -> None:
    _write(site, recipe, example.archive, client_files(ROOT / "client_examples" / example.folder))


def _write(site: Path, recipe: dict[str, Any], archive: str, content: Mapping[str, bytes | Path]) -> None:
    for manifest in recipe["Manifests"]:
        manifest["Lifecycle"] = {"run": manifest["Lifecycle"]["run"]}
    name, version = recipe["ComponentName"], recipe["ComponentVersion"]
    ComponentFiles.in_folder(site, name, version, archive).write(dict(content), checked_recipe(recipe))


def provide_environments(work: Path) -> None:
    """What the install steps of agent and clients would have made, out of the Python that runs this."""
    for name in (AGENT, *(each.component for each in (SAMPLE_CLIENT, CAMERA, LIVE_VIEW))):
        python = work / name / "venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec '{sys.executable}' \"$@\"\n")
        python.chmod(0o755)


class Line:
    """What an engineer deploys to a device below `folder` (a short path), and sees of it."""

    def __init__(
        self, site: Path, folder: Path, pictures: Mapping[str, NDArray[np.uint8]] = LIGHT_AND_DARK, *, lite: bool
    ) -> None:
        """`site`: with `artifacts/` and `recipes/`; `pictures`: what the client inspects, by name."""
        self._site, self._artifacts = site, site / "artifacts"
        self.socket, self._pictures = folder / "s", folder / "pictures"
        self._pictures.mkdir()
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(self._pictures / f"{name}.png")
        # The nucleus double knows one component's configuration.
        self.nucleus, self.camera_nucleus, self.view_nucleus = (Nucleus(lite=lite) for _ in range(3))
        self.device = GreengrassDevice(folder / "greengrass", lite, NO_NETWORK | self.nucleus.environment)
        self._nuclei = (self.nucleus, self.camera_nucleus, self.view_nucleus)
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=RECONNECT)
        self.agent = EdgeAgentStub(self._channel)

    def __enter__(self) -> Line:
        for nucleus in self._nuclei:
            nucleus.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()
        self.device.close()
        for nucleus in self._nuclei:
            nucleus.__exit__(None, None, None)

    def deploy_agent(self, version: str = VERSION) -> None:
        told = {"Socket": f"unix://{self.socket}", "PythonPath": sys.executable}
        component = self.device.deploy(self._recipe(AGENT, version), self._artifacts, told)
        self.nucleus.change(**component.configuration)

    def deploy_model(self, name: str = PLATES, version: str = "1.0.0") -> None:
        self.device.deploy(self._recipe(name, version), self._artifacts)

    def deploy_client(self) -> None:
        told = {"Socket": f"unix://{self.socket}", "PythonPath": sys.executable, "Pictures": str(self._pictures)}
        self.device.deploy(self._recipe(SAMPLE_CLIENT.component, VERSION), self._artifacts, {**told, "Every": 0.1})

    def deploy_camera(self, **configuration: Any) -> None:
        """Looking at the line's pictures, again and again for new ones, unless it is told otherwise."""
        told = {
            "socket": f"unix://{self.socket}",
            "PythonPath": sys.executable,
            "source": {"address": f"folder:{self._pictures}", "at_end": "wait"},
            **configuration,
        }
        self._deploy_following(CAMERA, self.camera_nucleus, told)

    def deploy_live_view(self) -> None:
        """Showing what the camera client writes, by the recipe's own paths, at any free port."""
        told = {"socket": f"unix://{self.socket}", "PythonPath": sys.executable, "port": 0}
        self._deploy_following(LIVE_VIEW, self.view_nucleus, told)

    def _deploy_following(self, example: ClientExample, nucleus: Nucleus, told: dict[str, Any]) -> None:
        """A client that follows its configuration; a real nucleus has it before the component starts."""
        recipe = self._recipe(example.component, VERSION)
        nucleus.change(**json.loads(recipe.read_text())["ComponentConfiguration"]["DefaultConfiguration"])
        nucleus.change(**told)
        self.device.deploy(recipe, self._artifacts, told, environment=nucleus.environment)

    def put_picture(self, name: str, brightness: int) -> None:
        """A new one; dark ones are anomalous to `PLATES`."""
        put_picture(self._pictures, f"{name}.png", brightness)

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """What the camera client has written into its work folder, in order."""
        path = self.device.work_folder(CAMERA.component) / "verdicts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verdict_of(self, name: str) -> dict[str, Any]:
        """The next verdict on a picture; waits for it."""

        def found() -> list[dict[str, Any]]:
            return [verdict for verdict in self.verdicts if verdict["file"] == f"{name}.png"]

        wait_for(f"the verdict on {name}", lambda: found() != [], patience=60)
        return found()[0]

    def page(self) -> LivePage:
        """Where the live view serves it now; waits for it."""
        wait_for("the page's address", lambda: port_of(self.device.log(LIVE_VIEW.component)) is not None)
        return LivePage(port_of(self.device.log(LIVE_VIEW.component)) or 0)

    def client_log(self) -> str:
        return self.device.log(SAMPLE_CLIENT.component)

    def wait_for_detections(self, what: str = "the client's next detections") -> None:
        """Those of two rounds: the second has begun after this was called."""
        before = self._detections()
        wait_for(what, lambda: self._detections() >= before + 4, patience=60)

    def runs(self, name: str, version: str) -> bool:
        """Whether this version answers."""
        model = describe(self.agent, name)
        return model.status == wire.RUNNING and version in model.status_message

    def _recipe(self, name: str, version: str) -> Path:
        return self._site / "recipes" / f"{name}-{version}.json"

    def _detections(self) -> int:
        return len(re.findall(r"\.png +(normal|ANOMALOUS) ", self.client_log()))
