"""Components in the layout that gdk and `greengrass-cli deployment create` take:

OUTPUT/artifacts/NAME/VERSION/...zip
OUTPUT/recipes/NAME-VERSION.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agent.greengrass.agent_recipe import AGENT, ARCHIVE, agent_recipe
from agent.greengrass.client_recipe import CLIENT_ARCHIVE, SAMPLE_CLIENT, sample_client_recipe
from agent.workbench.client_examples import sample_client_folder
from agent.workbench.components.archive import write_zip
from agent.workbench.components.wheels import DISTRIBUTION, DevicePlatform, download_wheels, pinned_requirements
from agent.workbench.errors import NoSourceTree, OutputExists

EXTRAS = {"cpu": ("cpu", "greengrass"), "gpu": ("gpu", "greengrass")}
"""Runtime to the extras of the agent's wheel."""


@dataclass(frozen=True)
class Built:
    """A component on disk."""

    archive: Path
    recipe: Path


@dataclass(frozen=True)
class Destination:
    """Where a component goes."""

    output: Path
    bucket: str = "BUCKET_NAME"
    """What gdk puts its bucket for."""
    for_gdk: bool = False
    """gdk wants its recipe under the name that the project's has."""

    def of(self, name: str, version: str, archive: str) -> Built:
        """Paths of a component. Raises OutputExists: the same name and version is never overwritten."""
        recipe = "recipe.json" if self.for_gdk else f"{name}-{version}.json"
        built = Built(self.output / "artifacts" / name / version / f"{archive}.zip", self.output / "recipes" / recipe)
        for path in (built.archive, built.recipe):
            if path.exists() and not self.for_gdk:  # gdk clears its folder itself
                raise OutputExists(path)
        return built


def build_agent(
    destination: Destination,
    wheel: Path,
    version: str,
    name: str = AGENT,
    runtimes: Sequence[str] = ("cpu",),
    bundled: Sequence[DevicePlatform] = (),
) -> Built:
    """The agent's component: its wheel, pinned requirements per runtime, the install step, the proto; for devices
    without internet also every wheel that `bundled` platforms need.

    Raises:
        OutputExists: this version is there already.
        WheelsNotFound: what it needs cannot be resolved or fetched.
    """
    built = destination.of(name, version, ARCHIVE)
    with zipfile.ZipFile(wheel) as opened:
        proto = opened.read("agent/wire/edge-agent.proto")
    content: dict[str, bytes | Path] = {
        wheel.name: wheel,
        "install.py": _artifact("install.py"),
        # Client builds of the original take it from the top, later ones from protos/.
        "edge-agent.proto": proto,
        "protos/edge-agent.proto": proto,
    }
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        for runtime in runtimes:
            wanted = f"{DISTRIBUTION}[{','.join(EXTRAS[runtime])}] @ {wheel.resolve().as_uri()}\n"
            content[f"requirements-{runtime}.txt"] = pinned_requirements(wanted).encode()
            for platform in bundled:
                download_wheels(wanted, platform, Path(folder))
        content |= {f"wheels/{file.name}": file for file in Path(folder).iterdir()}
        write_zip(built.archive, content)
    _write_recipe(built.recipe, agent_recipe(version, name, destination.bucket))
    return built


def build_sample_client(
    destination: Destination, version: str, model: str, bundled: Sequence[DevicePlatform] = ()
) -> Built:
    """The sample client's component, for the model component `model`.

    Raises:
        OutputExists: this version is there already.
        WheelsNotFound: what it needs cannot be resolved or fetched.
    """
    built = destination.of(SAMPLE_CLIENT, version, CLIENT_ARCHIVE)
    source = sample_client_folder()
    content: dict[str, bytes | Path] = {file.name: file for file in source.iterdir() if file.suffix in (".py", ".md")}
    content["install.py"] = _artifact("install.py")
    wanted = (source / "requirements.txt").read_text()
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        content["requirements.txt"] = pinned_requirements(wanted).encode()
        for platform in bundled:
            download_wheels(wanted, platform, Path(folder))
        content |= {f"wheels/{file.name}": file for file in Path(folder).iterdir()}
        write_zip(built.archive, content)
    _write_recipe(built.recipe, sample_client_recipe(version, model, destination.bucket))
    return built


def build_wheel(source: Path, folder: Path) -> Path:
    """The agent's wheel, made of the source tree `source`. Raises NoSourceTree."""
    if not (source / "pyproject.toml").is_file():
        raise NoSourceTree(source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("vision_edge_agent-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise NoSourceTree(source, " ".join(done.stderr.split())[-400:])
    return wheels[0]


def _artifact(name: str) -> bytes:
    return files("agent.greengrass").joinpath("artifacts", name).read_bytes()


def _write_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recipe, indent=2) + "\n")
