"""Recipes as files: JSON or YAML."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from agent.workbench.errors import UnreadableRecipe


def read_recipe(file: Path) -> tuple[object, int]:
    """The document in `file`, and its size in bytes.

    Raises:
        UnreadableRecipe: it is not there, or neither JSON nor YAML.
    """
    try:
        content = file.read_bytes()
        text = content.decode("utf-8")
        document = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UnreadableRecipe(file, error.strerror or str(error)) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UnreadableRecipe(file, " ".join(str(error).split())[:200]) from None
    return document, len(content)
