"""Recipes as files: JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.greengrass.recipe_check import findings
from agent.greengrass.recipe_parts import rendered
from agent.workbench.errors import MissingWorkbench, RecipeHasFindings, UnreadableRecipe


def read_recipe(file: Path) -> tuple[object, int]:
    """The document in `file`, and its size in bytes.

    Raises:
        UnreadableRecipe: it is not there, or neither JSON nor YAML.
        MissingWorkbench: the library that reads YAML is not installed.
    """
    try:
        content = file.read_bytes()
        text = content.decode("utf-8")
        document = json.loads(text) if file.suffix.lower() == ".json" else _yaml(text)
    except OSError as error:
        raise UnreadableRecipe(file, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise UnreadableRecipe(file, " ".join(str(error).split())[:200]) from None
    return document, len(content)


def _yaml(text: str) -> object:
    """Raises ValueError."""
    try:
        import yaml  # here: components are built, and JSON is checked, without it
    except ImportError as error:
        raise MissingWorkbench(error.name or "PyYAML") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def checked_recipe(recipe: Mapping[str, Any]) -> bytes:
    """The recipe as a file's content. Raises RecipeHasFindings: one of the nuclei would not take it."""
    content = rendered(recipe)
    check(recipe, len(content))
    return content


def check(recipe: object, size: int) -> dict[str, Any]:
    """The recipe, of `size` bytes. Raises RecipeHasFindings."""
    found = findings(recipe, size)
    if found or not isinstance(recipe, dict):
        raise RecipeHasFindings(_name_of(recipe), [str(finding) for finding in found])
    return recipe


def _name_of(recipe: object) -> str:
    return str(recipe.get("ComponentName")) if isinstance(recipe, dict) else ""
