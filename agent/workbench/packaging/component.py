"""A package as a Greengrass component: its ZIP and its recipe, laid out as the tools that publish them expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.greengrass.model_recipe import ARCHIVE, REGISTRATION_SCRIPT, Step, model_recipe, registration_script
from agent.greengrass.recipe_parts import AGENT, BUCKET, MAX_BYTES, rendered
from agent.models.registry import check_component_name
from agent.packages.manifest import MANIFEST_NAME, Target
from agent.packages.package import Package
from agent.workbench.components.layout import ComponentFiles
from agent.workbench.components.recipe_file import checked_recipe
from agent.workbench.errors import SettingOutOfRange
from agent.workbench.packaging.naming import check_version

LONGEST_DESCRIPTION = 1000
MOST_TAGS = 50
"""Of one AWS resource."""


@dataclass(frozen=True)
class Component:
    """What a component is called, and what it says of itself."""

    name: str
    version: str  # major.minor.patch
    description: str
    tags: Mapping[str, str]
    target: Target | None
    step: Step = "startup"
    agent: str = AGENT
    """The agent's component."""
    bucket: str = BUCKET


def check_component(component: Component) -> None:
    """Finds out before anything is made whether there can be a recipe of `component`.

    Raises:
        BadComponentName: the name is not allowed.
        SettingOutOfRange: version, description or tags are not.
        RecipeHasFindings: one of the nuclei would not take the recipe.
    """
    _recipe_of(component)


def refuse_existing_component(component: Component, output: Path) -> None:
    """Raises OutputExists where the same name and version is there, as ZIP or as recipe; it is never overwritten."""
    _files(component, output).refuse_existing()


def write_component(package: Package, component: Component, output: Path) -> ComponentFiles:
    """Writes `output`/artifacts/<component>/<version>/model.zip and `output`/recipes/<component>-<version>.json.

    The ZIP holds the manifest, the files it lists and the script that registers the package on the device; the same
    package gives the same bytes.

    Raises: as `check_component` and `refuse_existing_component`, and OutputNotWritable.
    """
    refuse_existing_component(component, output)
    made = _files(component, output)
    content: dict[str, bytes | Path] = {
        path: package.folder / path for path in (MANIFEST_NAME, *(file.path for file in package.manifest.files))
    }
    made.write({**content, REGISTRATION_SCRIPT: registration_script()}, _recipe_of(component))
    return made


def _files(component: Component, output: Path) -> ComponentFiles:
    return ComponentFiles.in_folder(output, component.name, component.version, ARCHIVE)


def _recipe_of(component: Component) -> bytes:
    check_component_name(component.name)
    check_version(component.version)
    description = component.description
    if len(description) > LONGEST_DESCRIPTION or not description.isprintable():
        raise SettingOutOfRange(
            "--description", f"{len(description)} characters", f"one line of at most {LONGEST_DESCRIPTION} characters"
        )
    reserved = [key for key in component.tags if key.lower().startswith("aws:")]
    if reserved or len(component.tags) > MOST_TAGS:
        raise SettingOutOfRange(
            "--tag", repr(reserved[0]) if reserved else "too often given", f"at most {MOST_TAGS}, none beginning 'aws:'"
        )
    recipe = model_recipe(
        component.name,
        component.version,
        description or "An anomaly-detection model for the vision edge agent.",
        component.tags,
        component.target,
        component.step,
        component.agent,
        component.bucket,
    )
    size = len(rendered(recipe))
    if size > MAX_BYTES:
        raise SettingOutOfRange(
            "--tag", f"too much: the recipe has {size} bytes", f"less: Greengrass takes {MAX_BYTES}"
        )
    return checked_recipe(recipe)
