"""`edge-agent inspect PACKAGE|MODEL.onnx`: what it is, in a page."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL_SUFFIXES = frozenset({".onnx", ".pt", ".pth", ".ckpt"})
"""Models, and pickles of models, which are told what to do instead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="PACKAGE|MODEL.onnx", help="a package (folder or ZIP), or an ONNX file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises Refusal: it is neither, or breaks a rule."""
    source: Path = arguments.source
    if source.suffix.lower() in MODEL_SUFFIXES and not source.is_dir():
        from agent.commands.workbench import need

        need("onnx")
        from agent.workbench.pages.onnx_page import onnx_page

        print(onnx_page(source))
        return 0
    from agent.packages.archive import opened_package
    from agent.workbench.pages.package_page import package_page

    with opened_package(source) as package:
        print(package_page(package))
    return 0
