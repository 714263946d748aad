"""The recipe of a model's component, by what holds on both nuclei."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import msgspec

from agent.packages.manifest import Target, TargetDevice

AGENT = "aws.iot.lookoutvision.EdgeAgent"
PUBLISHER = "vision-edge-agent"
MAX_BYTES = 16_000
"""Of a recipe (AWS IoT Greengrass quotas)."""
ARCHIVE = "model"
"""Name of the ZIP, and so of the folder that the nucleus unpacks it into."""
REGISTRATION_SCRIPT = "register_model.sh"
REGISTRY = f"../{AGENT}/registry"
"""Where the agent's component keeps its registry, seen from another component's work folder. An agent that is told
another `Registry` needs its models told the same."""
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


def model_recipe(
    component: str,
    version: str,
    description: str,
    tags: Mapping[str, str],
    target: Target | None,
    step: Step = "startup",
) -> dict[str, Any]:
    """The recipe of a model package as `component`: it is unpacked and registered with the agent.

    After a `startup` that exited 0 the component stays RUNNING, so clients may depend HARD on it; after a `run` that
    exits nucleus lite stops them. `run` is for nucleus lite under systemd 252, where every startup fails (an option it
    sets came later): clients then depend SOFT on the model. The dependency on the agent is SOFT: nucleus lite ends the
    HARD dependents of a component that crashed, and never starts them again. `BUCKET_NAME` is to be replaced before the
    recipe is published, by hand or by gdk.
    """
    package = f"{{artifacts:decompressedPath}}/{ARCHIVE}"
    script = f"sh '{package}/{REGISTRATION_SCRIPT}' '{component}' '{version}' '{package}' '{{configuration:/Registry}}'"
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": component,
        "ComponentVersion": version,
        "ComponentDescription": description,
        "ComponentPublisher": PUBLISHER,
        "ComponentConfiguration": {"DefaultConfiguration": _configuration(tags, target)},
        "ComponentDependencies": {AGENT: {"VersionRequirement": ">=1.3.0 <2.0.0", "DependencyType": "SOFT"}},
        "Manifests": [
            {
                "Platform": _platform(target),
                "Artifacts": [
                    {
                        "Uri": f"s3://BUCKET_NAME/{component}/{version}/{ARCHIVE}.zip",
                        "Unarchive": "ZIP",
                        "Permission": {"Read": "ALL"},  # the agent may be another user
                    }
                ],
                "Lifecycle": {step: {"Script": script, "Timeout": STARTUP_LIMIT}},
            }
        ],
    }


def _configuration(tags: Mapping[str, str], target: Target | None) -> dict[str, Any]:
    """What a deployment may change. A recipe has no key for tags and target; here a device shows them."""
    configuration: dict[str, Any] = {"Registry": REGISTRY}
    if tags:
        configuration["Tags"] = dict(tags)
    if target is not None:
        told = msgspec.to_builtins(target)
        configuration["Target"] = {key: value for key, value in told.items() if value is not None}
    return configuration


def _platform(target: Target | None) -> dict[str, str]:
    """`runtime` is there on one nucleus only; "*" matches on both."""
    platform = {"os": "linux", "runtime": "*"}
    if target is not None:
        told = target.name if isinstance(target, TargetDevice) else target.architecture
        platform["architecture"] = ARCHITECTURES[told]
    return platform


def rendered(recipe: Mapping[str, Any]) -> bytes:
    """The recipe as JSON that people can read, ending in a line break."""
    return json.dumps(recipe, indent=2, ensure_ascii=False).encode() + b"\n"


def registration_script() -> bytes:
    """The script that the recipe runs on the device, for the top of the ZIP."""
    return files("agent.greengrass").joinpath("artifacts", REGISTRATION_SCRIPT).read_bytes()
