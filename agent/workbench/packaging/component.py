"""A package as a Greengrass component: its ZIP and its recipe, laid out as the tools that publish them expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.packages.manifest import Target
from agent.packages.package import Package


@dataclass(frozen=True)
class Component:
    """What a component is called, and what it says of itself."""

    name: str
    version: str  # major.minor.patch
    description: str
    tags: Mapping[str, str]
    target: Target | None


@dataclass(frozen=True)
class WrittenComponent:
    archive: Path
    recipe: Path


def refuse_existing_component(component: Component, output: Path) -> None:
    """Raises OutputExists: the same name and version is never overwritten."""
    raise NotImplementedError


def write_component(package: Package, component: Component, output: Path) -> WrittenComponent:
    """Writes `output`/artifacts/<component>/<version>/model.zip and `output`/recipes/<component>-<version>.json."""
    raise NotImplementedError
