"""The recipe of a model's component, by what holds on both nuclei."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import msgspec

from agent.greengrass.recipe_parts import (
    AGENT,
    AGENT_VERSIONS,
    BUCKET,
    platform,
    recipe_of,
    soft,
    unpacked,
    zip_artifact,
)
from agent.packages.manifest import Target, TargetDevice

ARCHIVE = "model"
"""Name of the ZIP, and so of the folder that the nucleus unpacks it into."""
REGISTRATION_SCRIPT = "register_model.sh"
STARTUP_LIMIT = 120
"""Seconds; the script itself waits at most 60 for the agent's work folder."""
Step = Literal["startup", "run"]
"""What of its lifecycle a component registers in."""
ARCHITECTURES = {
    "X86_64": "amd64",
    "ARM64": "aarch64",
    "x86_cpu": "amd64",
    "arm_cpu": "aarch64",
    "jetson_xavier": "aarch64",
    "jetson_orin": "aarch64",
    "jetson_thor": "aarch64",
}
"""What the nucleus calls the architecture of a target platform or device."""


def registry_of(agent: str) -> str:
    """Where the component `agent` keeps its registry, seen from another component's work folder. An agent that is told
    another `Registry` needs its models told the same."""
    return f"../{agent}/registry"


def model_recipe(
    component: str,
    version: str,
    description: str,
    tags: Mapping[str, str],
    target: Target | None,
    step: Step = "startup",
    agent: str = AGENT,
    bucket: str = BUCKET,
) -> dict[str, Any]:
    """The recipe of a model package as `component`: it is unpacked and registered with the component `agent`.

    After a `startup` that exited 0 the component stays RUNNING, so clients may depend HARD on it; after a `run` that
    exits nucleus lite stops them. `run` is for nucleus lite under systemd 252, where every startup fails (an option it
    sets came later): clients then depend SOFT on the model.
    """
    package = unpacked(ARCHIVE)
    script = f"sh '{package}/{REGISTRATION_SCRIPT}' '{component}' '{version}' '{package}' '{{configuration:/Registry}}'"
    manifest = {
        "Platform": _platform(target),
        "Artifacts": [zip_artifact(bucket, component, version, ARCHIVE)],
        "Lifecycle": {step: {"Script": script, "Timeout": STARTUP_LIMIT}},
    }
    configuration = _configuration(agent, tags, target)
    return recipe_of(component, version, description, configuration, [manifest], {agent: soft(AGENT_VERSIONS)})


def _configuration(agent: str, tags: Mapping[str, str], target: Target | None) -> dict[str, Any]:
    """What a deployment may change. A recipe has no key for tags and target; here a device shows them."""
    configuration: dict[str, Any] = {"Registry": registry_of(agent)}
    if tags:
        configuration["Tags"] = dict(tags)
    if target is not None:
        told = msgspec.to_builtins(target)
        configuration["Target"] = {key: value for key, value in told.items() if value is not None}
    return configuration


def _platform(target: Target | None) -> dict[str, str]:
    if target is None:
        return platform()
    return platform(ARCHITECTURES[target.name if isinstance(target, TargetDevice) else target.architecture])


def registration_script() -> bytes:
    """The script that the recipe runs on the device, for the top of the ZIP."""
    return (files("agent.greengrass") / "artifacts" / REGISTRATION_SCRIPT).read_bytes()
