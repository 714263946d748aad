"""`edge-agent package KIND SOURCE`: a model from elsewhere as a package that proves itself, and as a component.

One module per kind of source: its own options, and how they make a draft. What is common to all is here and in
`agent.commands.package.common`.
"""

from __future__ import annotations

import argparse
from importlib import import_module

KINDS = {
    "anomalib": "an export of anomalib, 0.7 to 2.7",
    "onnx": "any ONNX classifier, segmentation net or anomaly map",
    "ultralytics": "an ONNX export of Ultralytics: detect, segment or classify",
    "lookout": "a package of Lookout for Vision or of the Defect Detection Application",
    "fitted": "a package of this agent, as `edge-agent fit` makes them",
}
"""Each is the module of its name in this package (`onnx_graph` for onnx: it imports the library of that name)."""
MODULES = {"onnx": "onnx_graph"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from agent.commands.package import common

    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind, summary in KINDS.items():
        one = kinds.add_parser(kind, help=summary, description=f"Packages {summary}.")
        importer = import_module(f"agent.commands.package.{MODULES.get(kind, kind)}")
        importer.add_arguments(one)
        common.add_arguments(one)


def run(arguments: argparse.Namespace) -> int:
    """Imports, packages and prints; 0 when package and component are there.

    Raises:
        Refusal: the source cannot be packaged; the sentence says what to do instead.
    """
    from agent.commands.package import common
    from agent.commands.workbench import need

    need("onnx", "onnxruntime", "tqdm")
    importer = import_module(f"agent.commands.package.{MODULES.get(arguments.kind, arguments.kind)}")
    return common.package(importer.draft(arguments), arguments)
