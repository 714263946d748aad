"""`edge-agent package fitted`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.workbench.packaging.draft import Draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a package of this agent: its folder or ZIP")


def draft(arguments: argparse.Namespace) -> Draft:
    from agent.workbench.importers.fitted import fitted_draft

    return fitted_draft(arguments.source)
