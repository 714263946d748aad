"""Recipes of the client examples."""

from __future__ import annotations

from typing import Any

from agent.greengrass.recipe_parts import (
    AGENT,
    AGENT_VERSIONS,
    ARCHITECTURES,
    BUCKET,
    INSTALL_LIMIT,
    platform,
    recipe_of,
    soft,
    unpacked,
    zip_artifact,
)
from agent.settings import AUTO, DEFAULT_SOCKET

SAMPLE_CLIENT = "com.example.vision.SampleClient"
CLIENT_ARCHIVE = "sample_client"


def sample_client_recipe(version: str, model: str, agent: str = AGENT, bucket: str = BUCKET) -> dict[str, Any]:
    """The sample client as a component that inspects the pictures of a folder with the component `model`, for ever.

    It depends SOFT on agent and model, and tries again by itself.
    """
    client = f"venv/bin/python -u '{unpacked(CLIENT_ARCHIVE)}/detect.py' --socket '{{configuration:/Socket}}'"
    lifecycle = {
        "install": {
            "Script": f"python3 -u '{unpacked(CLIENT_ARCHIVE)}/install.py' --python '{{configuration:/PythonPath}}'",
            "Timeout": INSTALL_LIMIT,
        },
        "run": {
            "Script": f"{client} --list; exec {client} '{{configuration:/ModelComponentName}}' "
            "'{configuration:/Pictures}' --every '{configuration:/Every}' --shared-memory"
        },
    }
    return recipe_of(
        SAMPLE_CLIENT,
        version,
        "Inspects the pictures of a folder with the vision edge agent, again and again.",
        {
            "Socket": DEFAULT_SOCKET,
            "ModelComponentName": model,
            "Pictures": "/tmp/pictures",
            "Every": 5,
            "PythonPath": AUTO,
        },
        [
            {
                "Platform": platform(architecture),
                "Artifacts": [zip_artifact(bucket, SAMPLE_CLIENT, version, CLIENT_ARCHIVE)],
                "Lifecycle": lifecycle,
            }
            for architecture in ARCHITECTURES
        ],
        {agent: soft(AGENT_VERSIONS), model: soft(">=1.0.0")},
    )
