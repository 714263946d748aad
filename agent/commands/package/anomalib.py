"""`edge-agent package anomalib`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.package.numbers import above_zero, finite

if TYPE_CHECKING:
    from agent.workbench.packaging.draft import Draft


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="the ONNX file, or the export folder (weights/onnx/model.onnx)"
    )
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--threshold",
        type=finite,
        metavar="RAW",
        help="in raw scores; default: the export's own (needed where it was not calibrated)",
    )
    model.add_argument(
        "--pixel-threshold", type=finite, metavar="RAW", help="in the unit of the raw map; default: the export's own"
    )
    model.add_argument(
        "--range",
        type=above_zero,
        metavar="RAW",
        help="raw scores from shown 0 to 1, for exports without calibration; default: twice the threshold",
    )
    model.add_argument(
        "--task", choices=("classification", "segmentation"), help="default: segmentation where the model has a map"
    )
    model.add_argument(
        "--anomaly-name", default="anomaly", metavar="NAME", help="what masks call it (default: anomaly)"
    )
    model.add_argument(
        "--resize",
        choices=("agent", "graph"),
        default="agent",
        help="who resizes camera images for exports that take every size: the agent, with smoothing as in training "
        "(default), or the graph, without",
    )


def draft(arguments: argparse.Namespace) -> Draft:
    """What `agent.workbench.importers.anomalib.importer` makes of the source. Raises its refusals."""
    from agent.workbench.importers.anomalib.decision import Choices
    from agent.workbench.importers.anomalib.importer import draft_of

    return draft_of(
        arguments.source,
        Choices(
            threshold=arguments.threshold,
            pixel_threshold=arguments.pixel_threshold,
            range=arguments.range,
            task=arguments.task,
            anomaly_name=arguments.anomaly_name,
            resize=arguments.resize,
        ),
    )
