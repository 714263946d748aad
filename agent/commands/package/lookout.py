"""`edge-agent package lookout`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.workbench.packaging.draft import Draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the package: a folder, a ZIP or a tar.gz")


def draft(arguments: argparse.Namespace) -> Draft:
    from agent.workbench.importers.lookout.importer import lookout_draft

    return lookout_draft(arguments.source)
