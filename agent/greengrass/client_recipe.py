"""Recipes of the client examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ClientExample:
    """A client example, and what it is called as a component."""

    folder: str
    """Below client_examples/."""
    component: str
    archive: str
    """Name of the ZIP, and of the folder it is unpacked into."""


SAMPLE_CLIENT = ClientExample("detect", "com.example.vision.SampleClient", "sample_client")
CAMERA = ClientExample("camera", "com.example.vision.Camera", "camera")
LIVE_VIEW = ClientExample("live_view", "com.example.vision.LiveView", "live_view")

CAMERA_TOPICS = "vision/camera/*"
"""All that the camera client may publish and listen to, unless a deployment allows more."""
RESULTS, OVERLAYS = "verdicts.jsonl", "overlays"
"""What the camera client writes into its work folder, and the live view shows."""


def sample_client_recipe(version: str, model: str, agent: str = AGENT, bucket: str = BUCKET) -> dict[str, Any]:
    """The sample client as a component that inspects the pictures of a folder with the component `model`, for ever.

    As all client examples it depends SOFT on agent and model, and tries again by itself.
    """
    client = f"{_program(SAMPLE_CLIENT, 'detect.py')} --socket '{{configuration:/Socket}}'"
    return _client_recipe(
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
        f"{client} --list; exec {client} '{{configuration:/ModelComponentName}}' "
        "'{configuration:/Pictures}' --every '{configuration:/Every}' --shared-memory",
        {agent: soft(AGENT_VERSIONS), model: soft(">=1.0.0")},
        bucket,
    )


def camera_recipe(version: str, model: str, agent: str = AGENT, bucket: str = BUCKET) -> dict[str, Any]:
    """The camera client as a component, for the component `model`.

    Its configuration is the client's settings, with what the live view shows turned on; the client follows it while it
    runs. `source.reader` also decides what is installed.
    """
    return _client_recipe(
        CAMERA,
        version,
        "Inspects what a camera sees with the vision edge agent, day and night.",
        {
            "model": model,
            "socket": DEFAULT_SOCKET,
            "source": {"address": "camera:/dev/video0", "reader": "opencv"},
            "json_lines": {"path": RESULTS},
            "overlays": {"folder": OVERLAYS},
            "PythonPath": AUTO,
            "accessControl": _camera_policies(),
        },
        f"exec {_program(CAMERA, 'camera.py')} --greengrass",
        {agent: soft(AGENT_VERSIONS), model: soft(">=1.0.0")},
        bucket,
        install_options=" --reader '{configuration:/source/reader}'",
    )


def live_view_recipe(version: str, agent: str = AGENT, bucket: str = BUCKET) -> dict[str, Any]:
    """The live view as a component that shows what the camera's component writes.

    It depends on no camera: what writes the results may be another client, and there may be several.
    """
    camera = f"../{CAMERA.component}"  # seen from the live view's work folder
    return _client_recipe(
        LIVE_VIEW,
        version,
        "A page for the person at the line: models, last verdicts and pictures, counts and scores over time.",
        {
            "socket": DEFAULT_SOCKET,
            "results": [f"{camera}/{RESULTS}"],
            "overlays": [f"{camera}/{OVERLAYS}"],
            "PythonPath": AUTO,
        },
        f"exec {_program(LIVE_VIEW, 'live_view.py')} --greengrass",
        {agent: soft(AGENT_VERSIONS)},
        bucket,
    )


def _client_recipe(
    example: ClientExample,
    version: str,
    description: str,
    configuration: Mapping[str, Any],
    run: str,
    dependencies: Mapping[str, Any],
    bucket: str,
    install_options: str = "",
) -> dict[str, Any]:
    install = f"python3 -u '{unpacked(example.archive)}/install.py' --python '{{configuration:/PythonPath}}'"
    lifecycle = {
        "install": {"Script": install + install_options, "Timeout": INSTALL_LIMIT},
        "run": {"Script": run},
    }
    manifests = [
        {
            "Platform": platform(architecture),
            "Artifacts": [zip_artifact(bucket, example.component, version, example.archive)],
            "Lifecycle": lifecycle,
        }
        for architecture in ARCHITECTURES
    ]
    return recipe_of(example.component, version, description, configuration, manifests, dependencies)


def _program(example: ClientExample, script: str) -> str:
    """A script of the example's, run with what the install step has made."""
    return f"venv/bin/python -u '{unpacked(example.archive)}/{script}'"


def _camera_policies() -> dict[str, Any]:
    """What the camera client does with the nucleus where its configuration asks for it. Policy ids are one per device,
    so they begin with the component's name."""

    def policy(service: str, does: str, operations: list[str]) -> dict[str, Any]:
        details = {"policyDescription": does, "operations": operations, "resources": [CAMERA_TOPICS]}
        return {f"{CAMERA.component}:{service}:1": details}

    return {
        "aws.greengrass.ipc.mqttproxy": policy(
            "mqttproxy", "Verdicts go to AWS IoT Core.", ["aws.greengrass#PublishToIoTCore"]
        ),
        "aws.greengrass.ipc.pubsub": policy(
            "pubsub",
            "Verdicts go to other components; triggers come from them.",
            ["aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"],
        ),
    }
