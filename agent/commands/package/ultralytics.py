"""`edge-agent package ultralytics`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.package.numbers import score

if TYPE_CHECKING:
    from agent.workbench.packaging.draft import Draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the .onnx file, or the folder that holds it")
    group = parser.add_argument_group("classes and decision")
    group.add_argument(
        "--class",
        dest="types",
        action="append",
        default=[],
        metavar="CLASS=TYPE",
        help="the anomaly type that a class paints (default: its own name); several may paint one",
    )
    group.add_argument(
        "--normal", action="append", default=[], metavar="NAME|INDEX", help="a normal class; may be given several times"
    )
    group.add_argument(
        "--threshold",
        type=score,
        metavar="SCORE",
        help="anomalous from here on, 0..1 (default: 0.25 for detect and segment, else 0.5)",
    )


def draft(arguments: argparse.Namespace) -> Draft:
    """Raises Refusal: the export or an option; the sentence says what to do."""
    from agent.workbench.importers.graphs.probe import some_pictures
    from agent.workbench.importers.ultralytics.importer import UltralyticsOptions, import_ultralytics

    wanted = UltralyticsOptions(_types(arguments.types), arguments.normal, arguments.threshold)
    return import_ultralytics(arguments.source, wanted, some_pictures(arguments.images or arguments.self_test))


def _types(given: list[str]) -> dict[str, str]:
    from agent.workbench.errors import SettingOutOfRange
    from agent.workbench.importers.class_names import is_class_name

    types = {}
    for one in given:
        name, _, kind = one.partition("=")
        if not name or not is_class_name(kind):
            raise SettingOutOfRange("--class", repr(one), "CLASS=ANOMALY-TYPE, such as scratch=damage")
        types[name] = kind
    return types
