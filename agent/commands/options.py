"""Options that several commands have, spelled once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from agent.settings import DEFAULT_SOCKET, environment_name_of


def add_root(parser: argparse._ActionsContainer) -> None:
    """`--root`: where the references of labelled images lead."""
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where a manifest's references lead, s3:// too")


def add_registry(parser: argparse._ActionsContainer) -> None:
    """`--registry`: the directory that the agent serves; None where neither it nor the environment says."""
    parser.add_argument(
        "--registry",
        type=Path,
        default=os.environ.get(environment_name_of("registry")),
        metavar="DIR",
        help="directory with the records; default as for `edge-agent serve`",
    )


def add_agent(parser: argparse._ActionsContainer, what: str) -> None:
    """`--agent [SOCKET]`: a running agent, None without it; `what` tells what it is asked for."""
    parser.add_argument(
        "--agent",
        nargs="?",
        const=default_socket(),
        metavar="SOCKET",
        help=f"{what} (default socket: %(const)s)",
    )


def default_socket() -> str:
    """Where an agent is asked whose socket nobody names."""
    return os.environ.get(environment_name_of("socket"), DEFAULT_SOCKET)
