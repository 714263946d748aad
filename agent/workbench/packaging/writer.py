"""A package on disk: complete, verified, and there only when it is both."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.backends.base import BackendSettings
from agent.images.detection import Detection
from agent.packages.manifest import (
    MANIFEST_NAME,
    Identity,
    ImageSize,
    Manifest,
    OnnxModel,
    PackageFile,
    Reference,
    Runtime,
    SelfTestImage,
    Target,
    write_manifest,
)
from agent.packages.package import Package, describe_file, read_package
from agent.packages.self_test import Precision
from agent.pipeline import Pipeline
from agent.workbench.errors import OutputExists, OutputNotWritable
from agent.workbench.packaging.draft import MODEL_FILE, Draft

SELF_TEST_FOLDER = "self-test"
IGNORE_MASK_FILE = "ignore-mask.raw"
TOLERANCE: dict[Precision, float] = {"fp32": 0.005, "fp16": 0.05, "int8": 0.1}
"""How far a self-test's score and areas may be off, per precision the model runs in. CPUs differ in the order of their
sums (1e-6 of a score); half precision has three decimals, and a map's edge pixels fall either way."""

Answer = Callable[[NDArray[np.uint8]], Detection]
"""What the package says of an image (uint8, (height, width, 3), RGB)."""


@dataclass(frozen=True)
class Evidence:
    """What a package proves itself with."""

    tests: Sequence[tuple[str, NDArray[np.uint8]]]
    """1 to 8 self-test images by name: uint8, (height, width, 3), RGB."""
    reference: Reference = field(default_factory=Reference)


def refuse_existing(output: Path) -> None:
    """Raises OutputExists where something, even an empty folder, is at `output`."""
    if os.path.lexists(output):
        raise OutputExists(output)


def write_package(
    draft: Draft,
    identity: Identity,
    image: ImageSize,
    find_evidence: Callable[[Answer], Evidence],
    output: Path,
    target: Target | None = None,
) -> Package:
    """Writes the package of `draft` to a new folder `output`.

    `find_evidence` is given the package's own answers and chooses the self-test images; what they must be answered is
    what the package answers now, on this machine's CPU. It is written beside `output`, opened and put through its own
    self-test as a device will do it, and then renamed, so that half a package is never seen.

    Raises:
        OutputExists: something is at `output`.
        OutputNotWritable: no folder can be made there.
        BadPackage: the package does not pass its own verification.
        Refusal: what `find_evidence` raises.
    """
    refuse_existing(output)
    folder = new_folder_beside(output)
    try:
        folder.chmod(0o755)  # mkdtemp's is for one user; the agent may be another
        _Filling(folder, draft, identity, image, target).fill(find_evidence)
        Pipeline(read_package(folder), on_all_cores()).self_test()
        refuse_existing(output)  # a rename would replace an empty folder
        folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return read_package(output)


def draft_manifest(
    draft: Draft,
    identity: Identity,
    image: ImageSize,
    find_evidence: Callable[[Answer], Evidence],
    target: Target | None = None,
) -> Manifest:
    """The manifest that `write_package` would write. Raises what it does, but for what concerns its output."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        _Filling(Path(folder), draft, identity, image, target).fill(find_evidence)
        return read_package(Path(folder)).manifest


def on_all_cores() -> BackendSettings:
    return BackendSettings(threads=len(os.sched_getaffinity(0)))


def new_folder_beside(output: Path) -> Path:
    """An empty hidden folder on `output`'s file system. Raises OutputNotWritable."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise OutputNotWritable(output, error.strerror or str(error)) from None


class _Filling:
    """One folder being filled."""

    def __init__(self, folder: Path, draft: Draft, identity: Identity, image: ImageSize, target: Target | None) -> None:
        self._folder, self._draft, self._identity, self._image = folder, draft, identity, image
        self._target = target

    def fill(self, find_evidence: Callable[[Answer], Evidence]) -> None:
        for path, content in self._draft.files.items():
            self._write(path, content)
        for path, engine in self._draft.engines.items():
            self._write(path, engine.content)
        if self._draft.ignored is not None:
            self._write(IGNORE_MASK_FILE, self._draft.ignored.astype(np.uint8).tobytes())
        # The expectations are what this very package answers, so it has to exist before they do.
        blank = self._write_test("blank", np.zeros((self._image.height, self._image.width, 3), np.uint8))
        self._write_manifest([blank], Reference())
        pipeline = Pipeline(read_package(self._folder), on_all_cores())
        evidence = find_evidence(pipeline.detect)
        (self._folder / blank.path).unlink()
        tests = [_answered(self._write_test(name, pixels), pixels, pipeline.detect) for name, pixels in evidence.tests]
        self._write_manifest(tests, evidence.reference)

    def _write(self, path: str, content: bytes | Path) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, file)
        else:
            file.write_bytes(content)

    def _write_test(self, name: str, pixels: NDArray[np.uint8]) -> SelfTestImage:
        """The image as a file of the package; what is expected of it is filled in by `_answered`."""
        path = f"{SELF_TEST_FOLDER}/{name}.rgb"
        self._write(path, pixels.tobytes())
        height, width = pixels.shape[:2]
        return SelfTestImage(
            path=path, width=width, height=height, score=0.0, is_anomalous=False, tolerance=dict(TOLERANCE)
        )

    def _write_manifest(self, tests: list[SelfTestImage], reference: Reference) -> None:
        draft, preprocessing = self._draft, self._draft.preprocessing
        listed = [*draft.files, *draft.engines, *(test.path for test in tests)]
        if draft.ignored is not None:
            preprocessing = msgspec.structs.replace(preprocessing, ignore_mask=IGNORE_MASK_FILE)
            listed.append(IGNORE_MASK_FILE)
        manifest = Manifest(
            format_version=1,
            model=self._identity,
            task=draft.task,
            image=self._image,
            preprocessing=preprocessing,
            outputs=draft.outputs,
            decision=draft.decision,
            labels=list(draft.labels),
            files=[self._described(path) for path in listed],
            self_test=tests,
            reference=reference,
            target=self._target,
        )
        (self._folder / MANIFEST_NAME).write_bytes(write_manifest(manifest))

    def _described(self, path: str) -> PackageFile:
        size, sha256 = describe_file(self._folder, path)
        return PackageFile(path=path, size=size, sha256=sha256, runtime=self._runtime_of(path))

    def _runtime_of(self, path: str) -> Runtime | None:
        if path in self._draft.engines:
            return self._draft.engines[path].built_for
        return OnnxModel() if path == MODEL_FILE else None


def _answered(test: SelfTestImage, pixels: NDArray[np.uint8], answer: Answer) -> SelfTestImage:
    detection = answer(pixels)
    return msgspec.structs.replace(
        test,
        score=detection.score,
        is_anomalous=detection.is_anomalous,
        areas={region.name: round(region.area, 6) for region in detection.regions},
    )
