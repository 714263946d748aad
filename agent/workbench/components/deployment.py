"""A deployment document: what a revision deploys, carried over from the one before.

A revision replaces a deployment whole: a component, policy or tag that is left out is gone from the devices. So a
revision starts from what `aws greengrassv2 get-deployment` prints of the deployment in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.workbench.errors import BadDeployment

KEPT = (
    "targetArn",
    "deploymentName",
    "components",
    "iotJobConfiguration",
    "deploymentPolicies",
    "tags",
    "parentTargetArn",
)
"""Keys of a deployment that `create-deployment` takes; the others of `get-deployment` tell what became of it."""


@dataclass(frozen=True)
class ComponentToDeploy:
    """A component in a deployment."""

    name: str
    version: str
    configuration: Mapping[str, Any] | None = None
    """What is merged into the device's configuration; None: what the deployment says already."""


def read_deployment(file: Path) -> dict[str, Any]:
    """What `get-deployment` printed. Raises BadDeployment."""
    try:
        deployment = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDeployment(f"{file} is no JSON that can be read ({error})") from None
    if not isinstance(deployment, dict) or not isinstance(deployment.get("targetArn"), str):
        raise BadDeployment(f"{file} has no targetArn: is it what `aws greengrassv2 get-deployment` prints?")
    if not isinstance(deployment.get("components", {}), dict):
        raise BadDeployment(f"{file}: its components are no mapping of names")
    return deployment


def revised(
    existing: Mapping[str, Any] | None,
    components: Sequence[ComponentToDeploy],
    target_arn: str | None = None,
    name: str | None = None,
    remove: Sequence[str] = (),
) -> dict[str, Any]:
    """The document for `aws greengrassv2 create-deployment --cli-input-json`: `existing` with `components` in it.

    Components of `existing` stay as they are unless they are given or in `remove`; their configuration stays where
    none is given.

    Raises:
        BadDeployment: there is no target, another than that of `existing`, or nothing of the name to remove.
    """
    document = {key: value for key, value in (existing or {}).items() if key in KEPT}
    if target_arn and document.get("targetArn", target_arn) != target_arn:
        raise BadDeployment(f"the existing deployment is for {document['targetArn']}, not for {target_arn}")
    if not target_arn and "targetArn" not in document:
        raise BadDeployment("--target-arn is missing: the ARN of a thing or a thing group")
    document.setdefault("targetArn", target_arn)
    if name:
        document["deploymentName"] = name
    deployed = dict(document.get("components", {}))
    for unwanted in remove:
        if unwanted not in deployed:
            raise BadDeployment(f"{unwanted} is not in the existing deployment, so it cannot be removed from it")
        del deployed[unwanted]
    for component in components:
        entry = dict(deployed.get(component.name, {}))
        entry["componentVersion"] = component.version
        if component.configuration is not None:
            update = dict(entry.get("configurationUpdate", {}))
            update["merge"] = json.dumps(_merged(update.get("merge"), component.configuration))
            entry["configurationUpdate"] = update
        deployed[component.name] = entry
    document["components"] = deployed
    return document


def _merged(before: str | None, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """`configuration` over what was merged before, key by key as the nucleus does it."""
    return _deep(json.loads(before) if before else {}, configuration)


def _deep(before: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _deep(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
