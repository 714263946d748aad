"""A package of this agent is packaged again as it is, or not at all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx.external_data_helper import set_external_data

from agent.errors import BadPackageFile, SelfTestFailed
from agent.packages.manifest import Identity, Manifest, PackageFile, Reference, TensorRtEngine
from agent.packages.package import describe_file, read_package
from agent.workbench.errors import BadSource
from agent.workbench.importers.fitted import fitted_draft
from agent.workbench.packaging.draft import MODEL_FILE
from agent.workbench.packaging.writer import Evidence, write_package
from tests.support.lookout_packages import make_lookout_package
from tests.support.packages import (
    HEIGHT,
    WIDTH,
    add_file,
    changed,
    darkness_model,
    grey,
    make_package,
    rewrite_manifest,
    zip_package,
)


@pytest.mark.parametrize("archived", [False, True], ids=["folder", "zip"])
def test_model_decision_images_and_reference_are_kept(archived: bool, tmp_path: Path) -> None:
    reference = Reference({"0.5": 0.1})
    folder = make_package(tmp_path / "package", version="3.2.1", change=lambda told: changed(told, reference=reference))
    source = zip_package(folder, tmp_path / "package.zip") if archived else folder
    draft, told = fitted_draft(source), read_package(folder).manifest
    assert draft.files[MODEL_FILE] == (folder / "model.onnx").read_bytes()
    assert (draft.decision, draft.outputs, draft.labels, draft.image) == (
        *(told.decision, told.outputs, told.labels),
        told.image,
    )
    assert (draft.name, draft.version, draft.arn) == ("tiny", "3.2.1", told.model.lookout_vision_model_arn)
    assert draft.reference == reference
    ((name, pixels),) = draft.tests
    assert name == "good" and np.array_equal(pixels, grey(255))


def test_it_becomes_a_package_of_its_own_name_and_version(tmp_path: Path) -> None:
    draft = fitted_draft(make_package(tmp_path / "package"))
    assert draft.image is not None
    written = write_package(
        draft,
        Identity("front", "2.0.0"),
        draft.image,
        lambda answer: Evidence(draft.tests, draft.reference),
        tmp_path / "again",
    )
    before = read_package(tmp_path / "package").manifest
    after = msgspec.structs.replace(written.manifest, model=before.model)
    tolerances = [msgspec.structs.replace(test, tolerance=before.self_test[0].tolerance) for test in after.self_test]
    assert msgspec.structs.replace(after, self_test=tolerances) == before
    assert written.manifest.model.name == "front"


def test_a_package_that_does_not_answer_as_it_says_is_refused(tmp_path: Path) -> None:
    def expect_more(manifest: Manifest) -> Manifest:
        return changed(manifest, self_test=[msgspec.structs.replace(manifest.self_test[0], score=0.3)])

    with pytest.raises(SelfTestFailed):
        fitted_draft(make_package(tmp_path / "package", change=expect_more))


def test_a_package_of_lookout_for_vision_is_for_another_command(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="edge-agent package lookout"):
        fitted_draft(make_lookout_package(tmp_path / "source"))


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    (folder / "self-test/good.rgb").write_bytes(grey(254).tobytes())
    with pytest.raises(BadPackageFile, match="SHA-256"):
        fitted_draft(folder)


def test_an_ignore_mask_is_kept(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    ignored = np.zeros((HEIGHT, WIDTH), np.uint8)
    ignored[:8] = 1
    mask = add_file(folder, "ignored.raw", ignored.tobytes())
    told = read_package(folder).manifest
    preprocessing = msgspec.structs.replace(told.preprocessing, ignore_mask="ignored.raw")
    rewrite_manifest(folder, changed(told, files=[*told.files, mask], preprocessing=preprocessing))
    draft = fitted_draft(folder)
    assert draft.ignored is not None and np.array_equal(draft.ignored, ignored.astype(bool))
    assert draft.preprocessing.ignore_mask is None


def test_weights_beside_the_model_come_into_it(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    model = darkness_model()
    set_external_data(next(tensor for tensor in model.graph.initializer if tensor.name == "white"), "model.onnx.data")
    onnx.save_model(model, folder / "model.onnx")
    told = read_package(folder).manifest
    listed = PackageFile("model.onnx", *describe_file(folder, "model.onnx"), told.files[0].runtime)
    data = PackageFile("model.onnx.data", *describe_file(folder, "model.onnx.data"))
    rewrite_manifest(folder, changed(told, files=[listed, data, *told.files[1:]]))
    content = fitted_draft(folder).files[MODEL_FILE]
    assert isinstance(content, bytes)
    assert not [tensor for tensor in onnx.load_from_string(content).graph.initializer if tensor.external_data]


def test_an_engine_alone_is_refused(tmp_path: Path) -> None:
    def with_engine(manifest: Manifest) -> Manifest:
        engine = TensorRtEngine("8.7", "10.3.0", "fp16")
        return changed(
            manifest, files=[msgspec.structs.replace(manifest.files[0], runtime=engine), *manifest.files[1:]]
        )

    with pytest.raises(BadSource, match="engines"):
        fitted_draft(make_package(tmp_path / "package", change=with_engine))
