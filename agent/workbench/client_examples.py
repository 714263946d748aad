"""Where the client examples are: in a checkout, and those that commands need also in the wheel."""

from __future__ import annotations

from pathlib import Path

import agent
from agent.workbench.errors import NoClientExample


def client_example(name: str, source: Path | None = None) -> Path:
    """The folder of a client example: of the checkout `source`, else shipped in the wheel or beside the package.

    Raises NoClientExample.
    """
    package = Path(agent.__file__).resolve().parent
    for folder in (source, package, package.parent):
        if folder is not None and (folder / "client_examples" / name / "requirements.txt").is_file():
            return folder / "client_examples" / name
    raise NoClientExample(name)
