"""The agent's own recipe."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from agent.settings import AUTO, Settings, key_of

AGENT = "aws.iot.lookoutvision.EdgeAgent"
"""The original's name: recipes of existing clients depend on it, from 0.1.0 to below 2.0.0."""
ARCHIVE = "lookoutvision_edge_agent"
"""Name of the ZIP, and of the folder it is unpacked into: client builds look for the proto there."""
PUBLISHER = "vision-edge-agent"
INSTALL_LIMIT = 1800
"""Seconds: packages come over a factory's line, or a slow card is written."""
ARCHITECTURES = ("amd64", "aarch64")
INSTALL_SETTINGS = {"Runtime": "auto", "PythonPath": "auto"}
"""What the install step reads (`agent.greengrass.artifacts.install`); the agent itself does not."""


def agent_recipe(version: str, name: str = AGENT, bucket: str = "BUCKET_NAME") -> dict[str, Any]:
    """The recipe of the agent as component `name`, artifacts in `bucket` (the default is what gdk puts its own for)."""
    unpacked = f"{{artifacts:decompressedPath}}/{ARCHIVE}"
    lifecycle = {
        "install": {
            "Script": f"python3 -u {unpacked}/install.py --runtime '{{configuration:/Runtime}}' "
            "--python '{configuration:/PythonPath}'",
            "Timeout": INSTALL_LIMIT,
        },
        # The work folder is the current one. No time limit: a cold device may take long, and clients wait.
        "run": {"Script": "exec venv/bin/python -u -m agent serve"},
    }
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentDescription": "Visual inspection at the edge: serves anomaly-detection models over gRPC, a drop-in "
        "successor to the Amazon Lookout for Vision Edge Agent.",
        "ComponentPublisher": PUBLISHER,
        "ComponentConfiguration": {"DefaultConfiguration": {**settings_by_key(), **INSTALL_SETTINGS}},
        "Manifests": [
            {
                "Platform": {"os": "linux", "architecture": architecture, "runtime": "*"},
                "Artifacts": [
                    {
                        "Uri": f"s3://{bucket}/{name}/{version}/{ARCHIVE}.zip",
                        "Unarchive": "ZIP",
                        "Permission": {"Read": "ALL"},
                    }
                ],
                "Lifecycle": lifecycle,
            }
            for architecture in ARCHITECTURES
        ],
    }


def settings_by_key() -> dict[str, object]:
    """Every setting with its default, as the configuration file spells it."""
    return {key_of(setting.name): _default(setting) for setting in fields(Settings)}


def _default(setting: Field[Any]) -> object:
    default, shown = setting.default, setting.metadata["shown"]
    if default is MISSING:  # decided on the device
        return AUTO
    # A number that is written in another way than Python writes it: 0660.
    is_number = isinstance(default, int) and not isinstance(default, bool)
    return shown if is_number and shown != str(default) else default
