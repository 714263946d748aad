"""Packages of this agent, to be packaged again: under another name, for a component."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import BadManifest
from agent.images.preprocess import tensor_shape
from agent.packages.archive import opened_package
from agent.packages.manifest import PackageFile, TensorRtEngine, onnx_file
from agent.packages.onnx_external_data import external_data_files
from agent.packages.package import Package
from agent.pipeline import Pipeline
from agent.workbench.errors import BadSource
from agent.workbench.importers.graphs.onnx_file import read_onnx, serialised
from agent.workbench.packaging.draft import MODEL_FILE, Draft, Engine
from agent.workbench.packaging.writer import on_all_cores


def fitted_draft(source: Path) -> Draft:
    """The package at `source`, a folder or a ZIP, with its model, decision, self-test images and reference.

    It has to answer its own self-test here and now, or it is not packaged again.

    Raises:
        BadPackage: it is no package, its files are not what it lists, or it fails its self-test (SelfTestFailed).
        BadSource: its manifest is another's, or it holds no ONNX model.
    """
    try:
        with opened_package(source) as package:
            return _draft_of(source, package)
    except BadManifest as refusal:
        raise BadSource(
            source, str(refusal).rstrip("."), "a package of Lookout for Vision is for edge-agent package lookout"
        ) from None


def _draft_of(source: Path, package: Package) -> Draft:
    model = _model_of(source, package)
    Pipeline(package, on_all_cores()).self_test()
    manifest = package.manifest
    return Draft(
        task=manifest.task,
        preprocessing=msgspec.structs.replace(manifest.preprocessing, ignore_mask=None),
        outputs=manifest.outputs,
        decision=manifest.decision,
        source=manifest.model.source,
        files={MODEL_FILE: _content(package, model)},
        engines=_engines(package),
        labels=manifest.labels,
        image=manifest.image,
        ignored=package.ignore_mask(),
        name=manifest.model.name,
        version=manifest.model.version,
        arn=manifest.model.lookout_vision_model_arn,
        licence=manifest.model.licence,
        training_images=manifest.model.training_images,
        tests=_tests(package),
        reference=manifest.reference,
        notes=[f"All {len(manifest.self_test)} self-test images are answered here as the package says."],
    )


def _model_of(source: Path, package: Package) -> PackageFile:
    model = onnx_file(package.manifest.files)
    if model is None:
        raise BadSource(source, "it holds prebuilt engines alone, no ONNX model", "package the model it was built from")
    return model


def _content(package: Package, model: PackageFile) -> bytes:
    """The model's own bytes; with its external data folded in where it has some."""
    path = package.path_of(model)
    if external_data_files(path, model.path):
        return serialised(read_onnx(path))
    return path.read_bytes()


def _engines(package: Package) -> dict[str, Engine]:
    manifest = package.manifest
    shape = tensor_shape(manifest.preprocessing, manifest.image.width, manifest.image.height)
    return {
        file.path: Engine(file.runtime, shape, package.path_of(file).read_bytes())
        for file in manifest.files
        if isinstance(file.runtime, TensorRtEngine)
    }


def _tests(package: Package) -> list[tuple[str, NDArray[np.uint8]]]:
    tests = package.manifest.self_test
    names = [PurePosixPath(test.path).stem for test in tests]
    if len(set(names)) < len(names):  # the same name in several folders
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return [(name, package.self_test_pixels(test)) for name, test in zip(names, tests, strict=True)]
