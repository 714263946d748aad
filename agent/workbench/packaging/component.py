"""A package as a Greengrass component: its ZIP and its recipe, laid out as the tools that publish them expect."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.greengrass.model_recipe import (
    ARCHIVE,
    MAX_BYTES,
    REGISTRATION_SCRIPT,
    Step,
    model_recipe,
    registration_script,
    rendered,
)
from agent.models.registry import check_component_name
from agent.packages.manifest import MANIFEST_NAME, Target
from agent.packages.package import Package
from agent.workbench.errors import OutputExists, OutputNotWritable, SettingOutOfRange
from agent.workbench.packaging.naming import check_version

LONGEST_DESCRIPTION = 1000
MOST_TAGS = 50
"""Of one AWS resource."""
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The earliest a ZIP knows: the same package makes the same bytes whenever it is packed."""


@dataclass(frozen=True)
class Component:
    """What a component is called, and what it says of itself."""

    name: str
    version: str  # major.minor.patch
    description: str
    tags: Mapping[str, str]
    target: Target | None
    step: Step = "startup"


@dataclass(frozen=True)
class WrittenComponent:
    archive: Path
    recipe: Path


def check_component(component: Component) -> None:
    """Finds out before anything is made whether there can be a recipe of `component`.

    Raises:
        BadComponentName: the name is not allowed.
        SettingOutOfRange: version, description or tags are not.
    """
    _recipe_of(component)


def refuse_existing_component(component: Component, output: Path) -> None:
    """Raises OutputExists where the same name and version is there, as ZIP or as recipe; it is never overwritten."""
    paths = _paths(component, output)
    for path in (paths.archive, paths.recipe):
        if os.path.lexists(path):
            raise OutputExists(path)


def write_component(package: Package, component: Component, output: Path) -> WrittenComponent:
    """Writes `output`/artifacts/<component>/<version>/model.zip and `output`/recipes/<component>-<version>.json.

    Each is written beside its name and then renamed; the recipe comes last, so where there is one there is its ZIP. The
    ZIP holds the manifest, the files it lists and the script that registers the package on the device; the same package
    gives the same bytes.

    Raises: as `check_component` and `refuse_existing_component`, and OutputNotWritable.
    """
    recipe = _recipe_of(component)
    refuse_existing_component(component, output)
    paths = _paths(component, output)
    with _renamed_to(paths.archive) as file:
        _pack(package, file)
    try:
        with _renamed_to(paths.recipe) as file:
            file.write_bytes(recipe)
    except BaseException:
        paths.archive.unlink()
        raise
    return paths


def _paths(component: Component, output: Path) -> WrittenComponent:
    return WrittenComponent(
        archive=output / "artifacts" / component.name / component.version / f"{ARCHIVE}.zip",
        recipe=output / "recipes" / f"{component.name}-{component.version}.json",
    )


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
    recipe = rendered(
        model_recipe(
            component.name,
            component.version,
            description or "An anomaly-detection model for the vision edge agent.",
            component.tags,
            component.target,
            component.step,
        )
    )
    if len(recipe) > MAX_BYTES:
        raise SettingOutOfRange(
            "--tag", f"too much: the recipe has {len(recipe)} bytes", f"less: Greengrass takes {MAX_BYTES}"
        )
    return recipe


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A file beside `path`, which becomes `path` when the block has filled it and is removed when it fails."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise OutputNotWritable(path, error.strerror or str(error)) from None
    finally:
        with suppress(OSError):  # it is not there any more, or never was
            temporary.unlink()


def _pack(package: Package, file: Path) -> None:
    listed = [MANIFEST_NAME, *(listed.path for listed in package.manifest.files)]
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(listed):
            with (package.folder / path).open("rb") as source:
                size = os.fstat(source.fileno()).st_size
                with archive.open(_entry(path, size), "w") as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
        script = registration_script()
        archive.writestr(_entry(REGISTRATION_SCRIPT, len(script)), script)


def _entry(path: str, size: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, TIMESTAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, wherever it is packed: the next line is its
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = size  # told beforehand, so that files beyond 2 GiB get the entry they need
    return entry
