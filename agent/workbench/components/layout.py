"""Where components lie, as gdk and `greengrass-cli deployment create` take them:

OUTPUT/artifacts/NAME/VERSION/ARCHIVE.zip
OUTPUT/recipes/NAME-VERSION.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.workbench.components.archive import write_zip
from agent.workbench.errors import OutputExists
from agent.workbench.output_file import renamed_to


@dataclass(frozen=True)
class ComponentFiles:
    """A component on disk: its ZIP and its recipe."""

    archive: Path
    recipe: Path

    @classmethod
    def in_folder(cls, output: Path, name: str, version: str, archive: str, recipe: str = "") -> ComponentFiles:
        """`archive`: the ZIP's name without `.zip`; `recipe`: the recipe's, NAME-VERSION.json where none is given."""
        return cls(
            output / "artifacts" / name / version / f"{archive}.zip",
            output / "recipes" / (recipe or f"{name}-{version}.json"),
        )

    def refuse_existing(self) -> None:
        """Raises OutputExists: the same name and version is never overwritten."""
        for path in (self.archive, self.recipe):
            if os.path.lexists(path):
                raise OutputExists(path)

    def write(self, content: Mapping[str, bytes | Path], recipe: bytes) -> None:
        """Writes both, each beside its name and then renamed; the recipe comes last, so where there is one there is its
        ZIP. `content`: name in the ZIP to bytes, or to the file that holds them.

        Raises:
            OutputNotWritable: nothing is left behind then.
        """
        with renamed_to(self.archive) as file:
            write_zip(file, content)
        try:
            with renamed_to(self.recipe) as file:
                file.write_bytes(recipe)
        except BaseException:
            self.archive.unlink()
            raise
