"""A fitted model as a package on disk: complete, verified, and there only when it is both."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agent.backends.base import BackendSettings
from agent.packages.manifest import (
    MANIFEST_NAME,
    Decision,
    GraphPreprocessing,
    Identity,
    ImageSize,
    Label,
    Manifest,
    OnnxModel,
    Outputs,
    PackageFile,
    Reference,
    SelfTestImage,
    write_manifest,
)
from agent.packages.package import Package, describe_file, read_package
from agent.packages.palette import BACKGROUND, PALETTE
from agent.pipeline import Pipeline
from agent.workbench.errors import ModelBlindToDefects, OutputExists, OutputNotWritable
from agent.workbench.fit.method import FittedModel
from agent.workbench.fit.source import GoodImage

ANOMALY = "anomaly"
"""The one anomaly type: good images tell that something is wrong, not what."""
MODEL_FILE = "model.onnx"
SELF_TEST_FOLDER = "self-test"
THRESHOLD = 0.5
"""The graph calibrates its own score and map to this."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DEFECT_SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Diameters tried for the drawn defect, as shares of the image's shorter side."""


@dataclass(frozen=True)
class Naming:
    """What the package is called, and where it comes from."""

    name: str
    version: str  # major.minor.patch
    source: str
    """How it was made, in a sentence."""
    created: datetime  # UTC
    any_size: bool = False
    """Whether images of another size than the good ones' are answered."""


def refuse_existing(output: Path) -> None:
    """Raises OutputExists where something, even an empty folder, is at `output`."""
    if os.path.lexists(output):
        raise OutputExists(output)


def write_package(fitted: FittedModel, images: Sequence[GoodImage], naming: Naming, output: Path) -> Package:
    """Writes the package of `fitted` and of the `images` it was fitted on, in the same order, to a new folder `output`.

    It is written beside `output`, opened and put through its own self-test as a device will do it, and then renamed, so
    that half a package is never seen.

    Raises:
        OutputExists: something is at `output`.
        OutputNotWritable: no folder can be made there.
        ModelBlindToDefects: no drawn defect reaches the threshold.
        BadPackage: the package does not pass its own verification.
    """
    refuse_existing(output)
    folder = _new_folder_beside(output)
    try:
        folder.chmod(0o755)  # mkdtemp's is for one user; the agent may be another
        _fill(folder, fitted, images, naming)
        Pipeline(read_package(folder), _on_all_cores()).self_test()
        refuse_existing(output)  # a rename would replace an empty folder
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return read_package(output)


def _new_folder_beside(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise OutputNotWritable(output, error.strerror or str(error)) from None


def _fill(folder: Path, fitted: FittedModel, images: Sequence[GoodImage], naming: Naming) -> None:
    (folder / MODEL_FILE).write_bytes(fitted.model.SerializeToString(deterministic=True))
    (folder / SELF_TEST_FOLDER).mkdir()

    best_first = np.argsort(fitted.raw_scores, kind="stable")
    usual = images[best_first[len(images) // 2]].pixels
    tests = [
        _write_pixels(folder, "good-usual", usual),
        _write_pixels(folder, "good-best", images[best_first[0]].pixels),
    ]
    # The expectations are what this very package answers, so it has to exist before they do.
    _write_manifest(folder, fitted, images, naming, tests)
    package = read_package(folder)
    pipeline = Pipeline(package, _on_all_cores())
    tests.append(_write_pixels(folder, "drawn-defect", _anomalous(usual, pipeline)))
    _write_manifest(folder, fitted, images, naming, [_answered(test, package, pipeline) for test in tests])


def _write_manifest(
    folder: Path, fitted: FittedModel, images: Sequence[GoodImage], naming: Naming, tests: list[SelfTestImage]
) -> None:
    (width, height), _ = Counter((image.width, image.height) for image in images).most_common(1)[0]
    quantiles = np.quantile(fitted.scores, QUANTILES)
    files = [_described(folder, MODEL_FILE, OnnxModel()), *(_described(folder, test.path) for test in tests)]
    manifest = Manifest(
        format_version=1,
        model=Identity(
            name=naming.name,
            version=naming.version,
            source=naming.source,
            training_images=len(images),
            created=naming.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
        task="segmentation",
        image=ImageSize(width=width, height=height, any_size=naming.any_size),
        preprocessing=GraphPreprocessing(tensor="image"),
        outputs=Outputs(score="score", anomaly_map="anomaly_map"),
        decision=Decision(threshold=THRESHOLD, pixel_threshold=THRESHOLD),
        labels=[Label(name=BACKGROUND, color=PALETTE[0]), Label(name=ANOMALY, color=PALETTE[1])],
        files=files,
        self_test=tests,
        reference=Reference(
            {f"{quantile:g}": round(float(score), 4) for quantile, score in zip(QUANTILES, quantiles, strict=True)}
        ),
    )
    (folder / MANIFEST_NAME).write_bytes(write_manifest(manifest))


def _described(folder: Path, path: str, runtime: OnnxModel | None = None) -> PackageFile:
    size, sha256 = describe_file(folder, path)
    return PackageFile(path=path, size=size, sha256=sha256, runtime=runtime)


def _write_pixels(folder: Path, name: str, pixels: NDArray[np.uint8]) -> SelfTestImage:
    """The image as a file of the package; what is expected of it is filled in by `_answered`."""
    path = f"{SELF_TEST_FOLDER}/{name}.rgb"
    (folder / path).write_bytes(pixels.tobytes())
    height, width = pixels.shape[:2]
    return SelfTestImage(path=path, width=width, height=height, score=0.0, is_anomalous=False)


def _answered(test: SelfTestImage, package: Package, pipeline: Pipeline) -> SelfTestImage:
    detection = pipeline.detect(package.self_test_pixels(test))
    return SelfTestImage(
        path=test.path,
        width=test.width,
        height=test.height,
        score=detection.score,
        is_anomalous=detection.is_anomalous,
        areas={region.name: round(region.area, 6) for region in detection.regions},
    )


def _anomalous(good: NDArray[np.uint8], pipeline: Pipeline) -> NDArray[np.uint8]:
    """`good` with the smallest drawn defect that the model finds."""
    for share in DEFECT_SHARES:
        pixels = with_drawn_defect(good, share)
        if pipeline.detect(pixels).is_anomalous:
            return pixels
    raise ModelBlindToDefects


def with_drawn_defect(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A copy of `pixels` with a striped disc in its middle, `share` of the shorter side wide.

    The stripes alternate between the colour farthest from that of the place and its complement: whatever the part looks
    like, the disc differs from it in colour, brightness and texture.
    """
    height, width = pixels.shape[:2]
    diameter = max(8, round(min(height, width) * share))
    top, left = (height - diameter) // 2, (width - diameter) // 2
    place = np.median(pixels[top : top + diameter, left : left + diameter], axis=(0, 1))
    farthest = tuple(0 if value >= 128 else 255 for value in place)
    complement = tuple(255 - value for value in farthest)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((left, top, left + diameter, top + diameter), fill=farthest)
    for row in range(top + diameter // 4, top + diameter, diameter // 4):
        draw.line((left, row, left + diameter, row), fill=complement, width=max(1, diameter // 12))
    return np.asarray(picture)


def _on_all_cores() -> BackendSettings:
    return BackendSettings(threads=len(os.sched_getaffinity(0)))
