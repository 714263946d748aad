"""What all recipes of this project have in common, by what holds on both nuclei."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

AGENT = "aws.iot.lookoutvision.EdgeAgent"
"""The original's name: recipes of existing clients depend on it, from 0.1.0 to below 2.0.0."""
AGENT_VERSIONS = ">=1.3.0 <2.0.0"
"""Those that read this project's model packages."""
PUBLISHER = "vision-edge-agent"
FORMAT = "2020-01-25"
"""The one recipe format there is."""
MAX_BYTES = 16_000
"""Of a recipe (AWS IoT Greengrass quotas)."""
BUCKET = "BUCKET_NAME"
"""Stands for the bucket until one is named; gdk puts its own for it."""
ARCHITECTURES = ("amd64", "aarch64")
INSTALL_LIMIT = 1800
"""Seconds: packages come over a factory's line, or a slow card is written."""


def recipe_of(
    name: str,
    version: str,
    description: str,
    configuration: Mapping[str, Any],
    manifests: Sequence[Mapping[str, Any]],
    dependencies: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A recipe; `configuration` is what a deployment may change, with its defaults."""
    return {
        "RecipeFormatVersion": FORMAT,
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentDescription": description,
        "ComponentPublisher": PUBLISHER,
        "ComponentConfiguration": {"DefaultConfiguration": dict(configuration)},
        **({"ComponentDependencies": dict(dependencies)} if dependencies else {}),
        "Manifests": list(manifests),
    }


def soft(versions: str) -> dict[str, str]:
    """A dependency that is deployed along, and whose end ends nothing: nucleus lite stops the HARD dependents of a
    component that has ended, and never starts them again."""
    return {"VersionRequirement": versions, "DependencyType": "SOFT"}


def platform(architecture: str | None = None) -> dict[str, str]:
    """Linux, on any processor where none is given. `runtime` is known to one nucleus only; "*" matches on both."""
    return {"os": "linux", "runtime": "*", **({"architecture": architecture} if architecture else {})}


def zip_artifact(bucket: str, component: str, version: str, archive: str) -> dict[str, Any]:
    """`archive`.zip, which the nucleus unpacks for every user to read: components may be different users."""
    return {
        "Uri": f"s3://{bucket}/{component}/{version}/{archive}.zip",
        "Unarchive": "ZIP",
        "Permission": {"Read": "ALL"},
    }


def unpacked(archive: str) -> str:
    """The folder that `archive`.zip is unpacked into, for scripts; on nucleus lite it has two slashes in it."""
    return f"{{artifacts:decompressedPath}}/{archive}"


def rendered(recipe: Mapping[str, Any]) -> bytes:
    """The recipe as JSON that people can read, ending in a line break."""
    return json.dumps(recipe, indent=2, ensure_ascii=False).encode() + b"\n"
