"""A client as a folder that stands alone: what of it becomes a component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from agent.greengrass.recipe_parts import zip_artifact
from agent.workbench.components.recipe_file import check, read_recipe
from agent.workbench.errors import RecipeHasFindings

RECIPE = "recipe.json"
PACKED = frozenset({".py", ".sh", ".sql", ".json", ".toml", ".md", ".html", ".css", ".js", ".svg"})
"""What a program is made of. Pictures, results, keys and passwords that lie in its folder stay there."""
NOT_PACKED = frozenset({RECIPE, "gdk-config.json", "greengrass-build"})
OPENCV = "requirements-opencv.txt"
"""What only one of the ways to read a camera needs; the other is GStreamer, whose bindings are the system's."""


def client_files(folder: Path) -> dict[str, bytes | Path]:
    """The program in `folder` and below it: name in the ZIP to file."""
    return {path.relative_to(folder).as_posix(): path for path in _packed(folder)}


def _packed(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in NOT_PACKED or path.name.startswith((".", "__pycache__")):
            continue
        if path.is_file() and path.suffix in PACKED:
            yield path
        elif path.is_dir() and not (path / "pyvenv.cfg").exists():  # no virtual environment
            yield from _packed(path)


def wanted_packages(folder: Path) -> dict[str, str]:
    """What the client needs, one requirement a line, by the name under which the install step looks for it.

    All requirements*.txt files of the folder together; a client that reads cameras has two sets, one for each reader.
    """
    files = {file.name: file.read_text() for file in sorted(folder.glob("requirements*.txt"))}
    opencv = files.pop(OPENCV, None)
    always = "".join(files.values())
    if opencv is None:
        return {"requirements.txt": always}
    return {OPENCV: always + opencv, "requirements-gstreamer.txt": always}


def own_recipe(folder: Path, bucket: str) -> dict[str, Any]:
    """The recipe that lies in `folder`, with its ZIP in `bucket`, under its own name and version.

    Raises:
        UnreadableRecipe: there is none.
        RecipeHasFindings: one of the nuclei would not take it.
    """
    recipe = check(*read_recipe(folder / RECIPE))
    name, version, archive = recipe["ComponentName"], recipe["ComponentVersion"], archive_of(recipe)
    for manifest in recipe["Manifests"]:
        manifest["Artifacts"] = [zip_artifact(bucket, name, version, archive)]
    return recipe


def archive_of(recipe: Mapping[str, Any]) -> str:
    """The name, without `.zip`, of the one ZIP that a client's component has. Raises RecipeHasFindings."""
    uris = [artifact["Uri"] for manifest in recipe["Manifests"] for artifact in manifest.get("Artifacts", [])]
    archives = {PurePosixPath(uri).name for uri in uris}
    if len(archives) != 1 or not (name := archives.pop()).endswith(".zip"):
        raise RecipeHasFindings(recipe["ComponentName"], ["A client has one artifact, a ZIP, in each manifest."])
    return name.removesuffix(".zip")
