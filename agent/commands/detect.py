"""`edge-agent detect PACKAGE IMAGE...`: the pipeline of the service, without a server."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.device_flags import FLAGS, add_setting_flags, backend_settings, settings_given

if TYPE_CHECKING:
    from agent.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="a package: folder or ZIP")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files (PNG, JPEG, ...)")
    add_setting_flags(parser, *FLAGS)


def run(arguments: argparse.Namespace) -> int:
    """Inspects every image; 1 where one of them got no answer."""
    from tabulate import tabulate

    from agent.errors import Refusal
    from agent.packages.archive import opened_package
    from agent.pipeline import Pipeline

    rows: list[tuple[str, ...]] = []
    failures = 0
    settings = backend_settings(settings_given(arguments, *FLAGS))
    with opened_package(arguments.package) as package:
        pipeline = Pipeline(package, settings)
        for path in arguments.images:
            try:
                rows.append((path.name, *_inspected(path, pipeline)))
            except Refusal as refusal:
                rows.append((path.name, "no answer", "", "", str(refusal), ""))
                failures += 1
    headers = ["image", "verdict", "confidence", "score / threshold", "found", "ms"]
    print(tabulate(rows, headers=headers, disable_numparse=True))
    return 1 if failures else 0


def _inspected(path: Path, pipeline: Pipeline) -> tuple[str, ...]:
    from agent.packages.palette import BACKGROUND
    from agent.workbench.image_file import read_image

    pixels = read_image(path)
    begin = time.perf_counter()
    detection = pipeline.detect(pixels)
    milliseconds = (time.perf_counter() - begin) * 1000
    found = [region for region in detection.regions if region.name != BACKGROUND]
    return (
        "anomalous" if detection.is_anomalous else "normal",
        f"{detection.confidence:.4f}",
        f"{detection.score:.4f} / {detection.threshold:.4f}",
        ", ".join(f"{region.name} {region.area:.2%}" for region in found),
        f"{milliseconds:.0f}",
    )
