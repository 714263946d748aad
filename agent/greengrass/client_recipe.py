"""Recipes of the client examples."""

from __future__ import annotations

from typing import Any

from agent.greengrass.agent_recipe import AGENT, ARCHITECTURES, INSTALL_LIMIT, PUBLISHER
from agent.settings import DEFAULT_SOCKET

SAMPLE_CLIENT = "com.example.vision.SampleClient"
CLIENT_ARCHIVE = "sample_client"


def sample_client_recipe(version: str, model: str, bucket: str = "BUCKET_NAME") -> dict[str, Any]:
    """The sample client as a component that inspects the pictures of a folder with the component `model`, for ever.

    It depends SOFT on the model: nucleus lite kills those that depend HARD on a component that ends, and this client
    tries again by itself.
    """
    unpacked = f"{{artifacts:decompressedPath}}/{CLIENT_ARCHIVE}"
    client = f"venv/bin/python -u {unpacked}/detect.py --socket '{{configuration:/Socket}}'"
    lifecycle = {
        "install": {
            "Script": f"python3 -u {unpacked}/install.py --python '{{configuration:/PythonPath}}'",
            "Timeout": INSTALL_LIMIT,
        },
        "run": {
            "Script": f"{client} --list; exec {client} '{{configuration:/ModelComponentName}}' "
            "'{configuration:/Pictures}' --every '{configuration:/Every}' --shared-memory"
        },
    }
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": SAMPLE_CLIENT,
        "ComponentVersion": version,
        "ComponentDescription": "Inspects the pictures of a folder with the vision edge agent, again and again.",
        "ComponentPublisher": PUBLISHER,
        "ComponentConfiguration": {
            "DefaultConfiguration": {
                "Socket": DEFAULT_SOCKET,
                "ModelComponentName": model,
                "Pictures": "/tmp/pictures",
                "Every": 5,
                "PythonPath": "auto",
            }
        },
        "ComponentDependencies": {
            AGENT: {"VersionRequirement": ">=1.3.0 <2.0.0", "DependencyType": "SOFT"},
            model: {"VersionRequirement": ">=1.0.0", "DependencyType": "SOFT"},
        },
        "Manifests": [
            {
                "Platform": {"os": "linux", "architecture": architecture, "runtime": "*"},
                "Artifacts": [
                    {
                        "Uri": f"s3://{bucket}/{SAMPLE_CLIENT}/{version}/{CLIENT_ARCHIVE}.zip",
                        "Unarchive": "ZIP",
                        "Permission": {"Read": "ALL"},
                    }
                ],
                "Lifecycle": lifecycle,
            }
            for architecture in ARCHITECTURES
        ],
    }
