"""The agent's own recipe."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from agent.greengrass.recipe_parts import (
    AGENT,
    ARCHITECTURES,
    BUCKET,
    INSTALL_LIMIT,
    platform,
    recipe_of,
    unpacked,
    zip_artifact,
)
from agent.settings import AUTO, Settings, key_of

ARCHIVE = "lookoutvision_edge_agent"
"""Name of the ZIP, and of the folder it is unpacked into: client builds look for the proto there."""
INSTALL_SETTINGS = {
    "Runtime": "What runs the models: cpu, gpu, or auto, which looks for an NVIDIA driver and takes gpu only if the "
    "component was built with it.",
    "PythonPath": "The Python to install with, 3.10 to 3.13; auto: python3 if it is one, else the newest there is.",
}
"""What only the install step reads (`agent.greengrass.artifacts.install`), each with its sentence; default: auto."""


def agent_recipe(version: str, name: str = AGENT, bucket: str = BUCKET) -> dict[str, Any]:
    """The recipe of the agent as component `name`, artifacts in `bucket`."""
    lifecycle = {
        "install": {
            "Script": f"python3 -u '{unpacked(ARCHIVE)}/install.py' --runtime '{{configuration:/Runtime}}' "
            "--python '{configuration:/PythonPath}'",
            "Timeout": INSTALL_LIMIT,
        },
        # The work folder is the current one. No time limit: a cold device may take long, and clients wait.
        "run": {"Script": "exec venv/bin/python -u -m agent serve"},
    }
    return recipe_of(
        name,
        version,
        "Visual inspection at the edge: serves anomaly-detection models over gRPC, a drop-in successor to the Amazon "
        "Lookout for Vision Edge Agent.",
        {**settings_by_key(), **dict.fromkeys(INSTALL_SETTINGS, AUTO)},
        [
            {
                "Platform": platform(architecture),
                "Artifacts": [zip_artifact(bucket, name, version, ARCHIVE)],
                "Lifecycle": lifecycle,
            }
            for architecture in ARCHITECTURES
        ],
    )


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
