"""`edge-agent fit`: a model package from good images."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_root

if TYPE_CHECKING:
    from agent.workbench.dataset.good_images import GoodImage
    from agent.workbench.fit.method import FitSettings, FittedModel

ADVISED_IMAGES = 10
"""Fewer good images make a threshold that a single photograph decides (the original service's minimum)."""
SHOWN_SCORES = 10
"""How many of the highest scores are shown when there are many."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `edge-agent fit`."""
    parser.description = (
        "Makes a model package from good images alone, on this machine's CPU: 20 to 40 photographs of good parts, "
        "some seconds. Prints how each good image scores when it is left out, and names those that stand out."
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of good images, a folder with 'normal/' in it, a quoted glob, or a manifest (JSON Lines)",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="the package's folder (default: ./NAME-VERSION)")
    parser.add_argument("--name", help="the model's name (default: from SOURCE)")
    parser.add_argument("--version", default="1.0.0", help="major.minor.patch (default: %(default)s)")
    parser.add_argument(
        "--fixed-position",
        action="store_true",
        help="camera and part are always in the same place: what is right here may be wrong there",
    )
    parser.add_argument(
        "--k",
        type=float,
        default=3.0,
        help="robust standard deviations from the median good score to the threshold; more means fewer false alarms "
        "(default: %(default)g)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="longer side at which images are looked at; more for finer defects, slower with its square "
        "(default: 384, with --fixed-position 256)",
    )
    parser.add_argument("--any-size", action="store_true", help="take good images, and later images, of any size")
    parser.add_argument("--seed", type=int, default=0, help="of folds, samples and augmentation (default: %(default)s)")
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fits, prints and writes; 0 when the package is there.

    Raises:
        Refusal: a sentence for the engineer: no images, too few, wrong option, a package that exists already.
    """
    from agent.commands.workbench import Bars, need

    need("onnx", "onnxruntime", "tqdm")

    from tabulate import tabulate

    from agent.packages.manifest import Identity
    from agent.workbench.dataset.good_images import PixelsOf, good_images, name_of
    from agent.workbench.dataset.image_paths import check_root
    from agent.workbench.fit.draft import draft_of, evidence_of
    from agent.workbench.fit.method import fit
    from agent.workbench.packaging.naming import check_name, check_version
    from agent.workbench.packaging.writer import refuse_existing, write_package

    # Whatever can be refused is refused before the work, not after it.
    check_version(arguments.version)
    name = name_of(arguments.source) if arguments.name is None else arguments.name
    check_name(name)
    output = arguments.output or Path(f"{name}-{arguments.version}")
    refuse_existing(output)
    settings = _settings(arguments)
    check_root(arguments.root, arguments.source)
    images = good_images(arguments.source, arguments.root, arguments.any_size)

    with Bars() as bars:
        fitted = fit(PixelsOf(images), settings, bars.show)
    print(tabulate(_rows(images, fitted), headers=["good image", "score", "distance", ""], floatfmt=".3f"))
    _summarise(images, fitted)

    source = (
        f"edge-agent fit: {fitted.distinct_images} good images, "
        f"{'fixed position' if arguments.fixed_position else 'moving part'}, size {settings.side}, "
        f"k {settings.k:g}, seed {settings.seed}"
    )
    draft = draft_of(fitted, images, source, arguments.any_size)
    assert draft.image is not None
    identity = Identity(
        name=name,
        version=arguments.version,
        source=source,
        training_images=len(images),
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    package = write_package(draft, identity, draft.image, lambda answer: evidence_of(fitted, images, answer), output)
    accepted = "any size" if arguments.any_size else f"{images[0].width}x{images[0].height}"
    folder = shlex.quote(str(package.folder))
    print(f"\nWrote {output}: model {name} {arguments.version} for images of {accepted}; its self-test passed.")
    print("Next:")
    print(f"  edge-agent detect {folder} IMAGE")
    print(f"  edge-agent models register {folder} --component {name}")
    return 0


def _settings(arguments: argparse.Namespace) -> FitSettings:
    from agent.workbench.fit.method import FitSettings

    chosen = FitSettings.for_fixed_position() if arguments.fixed_position else FitSettings.for_moving_part()
    side = chosen.side if arguments.size is None else arguments.size
    return replace(chosen, side=side, k=arguments.k, seed=arguments.seed)


def _rows(images: Sequence[GoodImage], fitted: FittedModel) -> list[tuple[str, float, float, str]]:
    """Highest scores first; all where they fit a screen, else the highest ten."""
    worst_first = sorted(range(len(images)), key=lambda index: (-fitted.raw_scores[index], images[index].path))
    shown = worst_first if len(images) <= 2 * SHOWN_SCORES else worst_first[:SHOWN_SCORES]
    return [
        (
            images[index].path.name,
            float(fitted.scores[index]),
            float(fitted.raw_scores[index]),
            "outlier" if fitted.outliers[index] else "",
        )
        for index in shown
    ]


def _summarise(images: Sequence[GoodImage], fitted: FittedModel) -> None:
    median = float(sorted(fitted.raw_scores)[len(images) // 2])
    print(
        f"{len(images)} good images, each scored by a model that did not see it: median distance {median:.3f}, "
        f"threshold {fitted.calibration.threshold:.3f}, shown as score 0.5."
    )
    copies = len(images) - fitted.distinct_images
    if copies:
        print(f"{copies} of them are exact copies of others and were not counted again.")
    outliers = [image.path for image, is_outlier in zip(images, fitted.outliers, strict=True) if is_outlier]
    if outliers:
        print(f"Outliers, which this model would call anomalous: {', '.join(map(str, outliers))}.")
        print("Look at them: remove what is not good and fit again; keep what is, and add more photographs like it.")
    if fitted.distinct_images < ADVISED_IMAGES:
        print(
            f"Warning: {fitted.distinct_images} different good images make a poor threshold; use at least "
            f"{ADVISED_IMAGES}, better 20 to 40.",
            file=sys.stderr,
        )
