"""`edge-agent verify PACKAGE`: what StartModel would do, on this device, and what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

from agent.commands.device_flags import FLAGS, add_setting_flags, backend_settings, settings_given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="a package: folder or ZIP")
    add_setting_flags(parser, *FLAGS)


def run(arguments: argparse.Namespace) -> int:
    from tabulate import tabulate

    from agent.packages.archive import opened_package
    from agent.pipeline import Pipeline

    settings = backend_settings(settings_given(arguments, *FLAGS))
    with opened_package(arguments.package) as package:
        manifest = package.manifest
        size = "any size" if manifest.image.any_size else f"{manifest.image.width} x {manifest.image.height}"
        print(f"{manifest.model.name} {manifest.model.version}: {manifest.task}, images {size}")
        pipeline = Pipeline(package, settings)
        print(f"{len(manifest.files)} files as listed, {sum(file.size for file in manifest.files):,} bytes")
        print(f"loaded: {pipeline.runs_on}\n")
        rows = [
            (test.path, "anomalous" if got.is_anomalous else "normal", got.score, test.score)
            for test, got in pipeline.self_test()
        ]
        print(tabulate(rows, headers=["self-test image", "verdict", "score", "expected"], floatfmt=".4f"))
        print("\nThe package can be served on this device.")
    return 0
