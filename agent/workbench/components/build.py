"""The components of agent and clients, ready to be published."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from agent.greengrass.agent_recipe import ARCHIVE, agent_recipe
from agent.greengrass.recipe_parts import AGENT, BUCKET
from agent.workbench.components.client_folder import archive_of, client_files, wanted_packages
from agent.workbench.components.layout import ComponentFiles
from agent.workbench.components.recipe_file import checked_recipe
from agent.workbench.components.wheels import DISTRIBUTION, DevicePlatform, download_wheels, pinned_requirements
from agent.workbench.errors import BadWheel, NoSourceTree

EXTRAS = {"cpu": ("cpu", "greengrass"), "gpu": ("gpu", "greengrass")}
"""Runtime to the extras of the agent's wheel."""
PROTO = "agent/wire/edge-agent.proto"
"""In the agent's wheel."""


@dataclass(frozen=True)
class Destination:
    """Where a component goes."""

    output: Path
    bucket: str = BUCKET
    for_gdk: bool = False
    """gdk wants its recipe under the name that the project's has, and clears its folder itself."""

    def of(self, name: str, version: str, archive: str) -> ComponentFiles:
        """Raises OutputExists."""
        made = ComponentFiles.in_folder(self.output, name, version, archive, "recipe.json" if self.for_gdk else "")
        if not self.for_gdk:
            made.refuse_existing()
        return made


def build_agent(
    destination: Destination,
    wheel: Path,
    version: str,
    name: str = AGENT,
    runtimes: Sequence[str] = ("cpu",),
    bundled: Sequence[DevicePlatform] = (),
) -> ComponentFiles:
    """The agent's component: its wheel, pinned requirements per runtime, the install step, the proto; for devices
    without internet also every wheel that `bundled` platforms need.

    Raises:
        RecipeHasFindings: a nucleus would not take this name or version.
        OutputExists: this version is there already.
        OutputNotWritable: it cannot be written.
        BadWheel: `wheel` is none of the agent's.
        WheelsNotFound: what it needs cannot be resolved or fetched.
    """
    recipe = checked_recipe(agent_recipe(version, name, destination.bucket))
    made = destination.of(name, version, ARCHIVE)
    proto = _proto_in(wheel)
    wanted = {
        f"requirements-{runtime}.txt": f"{DISTRIBUTION}[{','.join(EXTRAS[runtime])}] @ {wheel.resolve().as_uri()}\n"
        for runtime in runtimes
    }
    content: dict[str, bytes | Path] = {
        wheel.name: wheel,
        "install.py": _install_step(),
        # Client builds of the original take it from the top, later ones from protos/.
        "edge-agent.proto": proto,
        "protos/edge-agent.proto": proto,
    }
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        made.write({**content, **_installed(wanted, bundled, Path(folder))}, recipe)
    return made


def build_client(
    destination: Destination, folder: Path, recipe: Mapping[str, Any], bundled: Sequence[DevicePlatform] = ()
) -> ComponentFiles:
    """The component of the client in `folder`: its program, pinned requirements, the install step.

    Raises: as `build_agent`, but for BadWheel.
    """
    rendered = checked_recipe(recipe)
    made = destination.of(recipe["ComponentName"], recipe["ComponentVersion"], archive_of(recipe))
    content = client_files(folder) | {"install.py": _install_step()}
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as wheels:
        made.write({**content, **_installed(wanted_packages(folder), bundled, Path(wheels))}, rendered)
    return made


def build_wheel(source: Path, folder: Path) -> Path:
    """The agent's wheel, made of the source tree `source`. Raises NoSourceTree."""
    if not (source / "pyproject.toml").is_file() or not (source / "agent/__init__.py").is_file():
        raise NoSourceTree(source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("vision_edge_agent-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise NoSourceTree(source, " ".join(done.stderr.split())[-400:])
    return wheels[0]


def _installed(wanted: dict[str, str], bundled: Sequence[DevicePlatform], folder: Path) -> dict[str, bytes | Path]:
    """What the install step installs, by name in the ZIP: a pinned requirements file for each of `wanted`, and the
    wheels for `bundled` platforms, which are downloaded to `folder`."""
    content: dict[str, bytes | Path] = {}
    for name, requirements in wanted.items():
        content[name] = pinned_requirements(requirements).encode()
        for platform in bundled:
            download_wheels(requirements, platform, folder)
    return content | {f"wheels/{file.name}": file for file in folder.iterdir()}


def _proto_in(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as opened:
            return opened.read(PROTO)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadWheel(wheel, str(error)) from None
    except KeyError:
        raise BadWheel(wheel, f"it holds no {PROTO}") from None


def _install_step() -> bytes:
    return (files("agent.greengrass") / "artifacts" / "install.py").read_bytes()
