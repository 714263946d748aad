"""Inspecting with a package itself: the pipeline of the service, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.errors import AnswerNotFinite, BadInput
from agent.images.detection import SCORE_DECIMALS, Detection
from agent.packages.archive import opened_package
from agent.packages.package import Package
from agent.pipeline import Pipeline
from agent.workbench.errors import ImageNotInspected, NoSuchPackage
from agent.workbench.inspection.inspector import InspectedModel
from agent.workbench.packaging.writer import on_all_cores


class PackageInspector:
    """A package, opened on the runtime of this machine."""

    def __init__(self, package: Package) -> None:
        """Raises BadPackage."""
        self._pipeline = Pipeline(package, on_all_cores())
        manifest = package.manifest
        self.model = InspectedModel(
            name=manifest.model.name,
            version=manifest.model.version,
            arn=manifest.model.lookout_vision_model_arn,
            threshold=round(manifest.decision.threshold, SCORE_DECIMALS),
            labels=tuple(label.name for label in manifest.labels),
            training_images=manifest.model.training_images,
        )

    def inspect(self, pixels: NDArray[np.uint8]) -> Detection:
        """See Inspector. Raises ImageNotInspected."""
        try:
            return self._pipeline.detect(pixels)
        except (BadInput, AnswerNotFinite) as refusal:
            raise ImageNotInspected(str(refusal)) from None


@contextmanager
def package_inspector(path: Path) -> Iterator[PackageInspector]:
    """The inspector of the package at `path`, folder or ZIP, for as long as the block lasts.

    Raises:
        NoSuchPackage: nothing is there.
        BadPackage: it cannot be served.
    """
    if not path.exists():
        raise NoSuchPackage(path)
    with opened_package(path) as package:
        yield PackageInspector(package)
