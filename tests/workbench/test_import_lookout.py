"""Packages of Lookout for Vision are answered as the original answered them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.packages.manifest import AgentPreprocessing, Identity, ImageSize, LogisticCalibration, NoCalibration
from agent.pipeline import Pipeline
from agent.workbench.errors import BadSource
from agent.workbench.importers.lookout import source_folder
from agent.workbench.importers.lookout.importer import lookout_draft
from agent.workbench.packaging.writer import Evidence, on_all_cores, write_package
from tests.support.lookout_packages import (
    CAMERA,
    MASK_WEIGHTS,
    SCORE_WEIGHTS,
    SIDE,
    STAGE,
    change_manifest,
    make_lookout_package,
    photograph,
    two_headed_model,
)

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
LOGICS = (None, "cls_head", "seg_head", "cls_and_seg", "cls_or_seg")
CALIBRATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"calibrated": True, "calibrator_scaling": -4.2, "calibrator_shift": 2.3, "max_val_score": 1.0},
    {"calibrated": True, "calibrator_scaling": -9.0, "calibrator_shift": 1.1, "max_val_score": 3.5},
)
HEADS = ((True, True), (True, False), (False, True))
BIASES = (None, 0.25)


@dataclass
class Original:
    """What the original answers: its arithmetic, in float64 and independent of the agent."""

    score: float
    is_anomalous: bool
    areas: dict[str, float]


def original_answer(pixels: NDArray[np.uint8], stage: Mapping[str, Any]) -> Original:
    small = pixels.reshape(SIDE, CAMERA[1] // SIDE, SIDE, CAMERA[0] // SIDE, 3).mean(axis=(1, 3))
    values = np.rint(small)
    if stage["image_range_scale"]:
        values = values / 255
    if stage["normalize"]:
        values = (values - MEAN) / STD
    mask = 1 / (1 + np.exp(-values @ MASK_WEIGHTS.T.astype(np.float64)))  # (h, w, classes)
    class_scores = np.exp(values.mean(axis=(0, 1)) @ SCORE_WEIGHTS.T.astype(np.float64))
    class_scores /= class_scores.sum()

    if stage["classification_head_enabled"]:
        score = sum(class_scores[index] for index in range(2) if index not in stage["class_normal_ids"])
        if stage.get("calibrated"):
            x = score / stage["max_val_score"] if stage["max_val_score"] > 1 else score
            score = 1 / (1 + np.exp(stage["calibrator_scaling"] * x + stage["calibrator_shift"]))
    else:
        score = mask.mean()
    anomalous = score >= stage["threshold"]
    if not stage["segmentation_head_enabled"]:
        return Original(float(score), bool(anomalous), {})

    biased = mask.copy()
    for index in range(3):
        if index not in stage["seg_normal_ids"]:
            biased[:, :, index] += stage.get("seg_recall_bias") or 0.0
    labels = biased.argmax(axis=2)
    shows_anomaly = not set(np.unique(labels)) <= set(stage["seg_normal_ids"])
    logic = stage.get("classification_logic")
    if logic == "seg_head":
        anomalous = shows_anomaly
    elif logic == "cls_and_seg" and anomalous != shows_anomaly:
        anomalous = False
    elif logic == "cls_or_seg" and anomalous != shows_anomaly:
        anomalous = True
    names = ("background", "scratch", "dent")
    return Original(float(score), bool(anomalous), {name: float((labels == i).mean()) for i, name in enumerate(names)})


def pipeline_of(source: Path, folder: Path) -> Pipeline:
    draft = lookout_draft(source)
    assert draft.image is not None
    evidence = Evidence([("first", photograph(0))])
    package = write_package(draft, Identity("model", "1.0.0"), draft.image, lambda answer: evidence, folder)
    return Pipeline(package, on_all_cores())


PICTURES = [
    *(photograph(seed) for seed in range(4)),
    *(np.full((CAMERA[1], CAMERA[0], 3), colour, np.uint8) for colour in ((250, 20, 90), (20, 240, 10), (5, 30, 250))),
]


@pytest.mark.parametrize("heads", HEADS, ids=["both", "class", "mask"])
@pytest.mark.parametrize("logic", LOGICS)
def test_score_verdict_and_areas_are_the_originals(heads: tuple[bool, bool], logic: str | None, tmp_path: Path) -> None:
    for number, (calibration, bias) in enumerate(product(CALIBRATIONS, BIASES)):
        if not heads[0] and calibration:
            continue  # only the class head is calibrated
        changes = {
            **calibration,
            "classification_head_enabled": heads[0],
            "segmentation_head_enabled": heads[1],
            "classification_logic": logic,
            "seg_recall_bias": bias,
            "threshold": 0.6 if heads[0] else 0.52,
        }
        source = make_lookout_package(tmp_path / f"source-{number}", **changes)
        pipeline = pipeline_of(source, tmp_path / f"package-{number}")
        for pixels in PICTURES:
            wanted, got = original_answer(pixels, {**STAGE, **changes}), pipeline.detect(pixels)
            assert got.score == pytest.approx(wanted.score, abs=1e-4)
            assert got.is_anomalous == wanted.is_anomalous
            areas = {region.name: region.area for region in got.regions}
            assert {**dict.fromkeys(wanted.areas, 0.0), **areas} == pytest.approx(wanted.areas)


def test_the_pictures_tell_the_logics_apart() -> None:
    """What the test above compares is not the same for every logic."""
    verdicts = {
        logic: tuple(
            original_answer(pixels, {**STAGE, "classification_logic": logic}).is_anomalous for pixels in PICTURES
        )
        for logic in LOGICS[1:]
    }
    assert len(set(verdicts.values())) == 4


@pytest.mark.parametrize(("scale", "normalize"), [*product((True, False), repeat=2)])
def test_pixels_are_scaled_and_normalised_as_the_original_does(scale: bool, normalize: bool, tmp_path: Path) -> None:
    stage = {"image_range_scale": scale, "normalize": normalize, "segmentation_head_enabled": False}
    pipeline = pipeline_of(make_lookout_package(tmp_path / "source", **stage), tmp_path / "package")
    # Dark: unscaled values saturate the softmax, and 0 and 1 would be right whatever went in.
    pixels = (photograph(1) // 64).astype(np.uint8)
    assert pipeline.detect(pixels).score == pytest.approx(original_answer(pixels, {**STAGE, **stage}).score, abs=1e-4)


def test_the_package_says_where_its_images_come_from(tmp_path: Path) -> None:
    draft = lookout_draft(make_lookout_package(tmp_path / "source"))
    assert draft.image == ImageSize(*CAMERA)
    assert [label.name for label in draft.labels] == ["background", "scratch", "dent"]
    assert isinstance(draft.preprocessing, AgentPreprocessing)
    assert (draft.preprocessing.interpolation, draft.preprocessing.resize) == ("area", "stretch")
    assert draft.decision.threshold == 0.6
    assert any("scratch" in note for note in draft.notes)


def test_a_mask_without_named_classes_is_not_drawn(tmp_path: Path) -> None:
    """The original shows none either."""
    nothing = {"pixel_level_classes": {"names": [], "normal_ids": []}}
    draft = lookout_draft(make_lookout_package(tmp_path / "source", nothing))
    assert (draft.task, draft.outputs.class_mask) == ("classification", None)
    draft = lookout_draft(make_lookout_package(tmp_path / "by-mask", nothing, classification_logic="cls_or_seg"))
    assert [label.name for label in draft.labels] == ["background", "class 1", "class 2"]


def test_without_normal_classes_of_pixels_the_logic_does_not_count(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source", seg_normal_ids=None, classification_logic="seg_head")
    assert lookout_draft(source).decision.combination == "class"


def test_a_mask_alone_is_not_calibrated(tmp_path: Path) -> None:
    calibrated = lookout_draft(make_lookout_package(tmp_path / "both", **CALIBRATIONS[2])).decision.calibration
    assert calibrated == LogisticCalibration(a=-9.0, b=1.1, maximum=3.5)
    source = make_lookout_package(tmp_path / "mask", classification_head_enabled=False, **CALIBRATIONS[2])
    assert lookout_draft(source).decision.calibration == NoCalibration()


def test_a_stage_may_keep_the_images_proportions_and_name_its_interpolation(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source", preserve_aspect=True, interpolation=1)
    preprocessing = lookout_draft(source).preprocessing
    assert isinstance(preprocessing, AgentPreprocessing)
    assert (preprocessing.resize, preprocessing.interpolation) == ("letterbox", "bilinear")
    assert preprocessing.antialias is False


def packed(folder: Path, archive: Path) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in folder.rglob("*"):
                opened.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(folder, ".")
    return archive


@pytest.mark.parametrize("name", ["model.zip", "model.tar.gz"])
def test_archives_are_read_like_folders(name: str, tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source")
    assert lookout_draft(packed(source, tmp_path / name)).files == lookout_draft(source).files


def test_a_training_output_tells_name_and_version(tmp_path: Path) -> None:
    output = tmp_path / "output"
    exported = make_lookout_package(output / "export_artifacts")
    (exported / "mochi/model.onnx").rename(exported / "model.onnx")
    (output / "mochi.json").write_text(json.dumps({"stages": [], "model_info": {"name": "plates", "version": "2.1.0"}}))
    draft = lookout_draft(packed(output, tmp_path / "model.tar.gz"))
    assert (draft.name, draft.version) == ("plates", "2.1.0")


def refusal(source: Path) -> str:
    with pytest.raises(BadSource) as refused:
        lookout_draft(source)
    return str(refused.value)


def test_a_model_compiled_for_one_device_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source")
    change_manifest(source, runtime=None, runtime_artifact=None)
    (source / "mochi/model.onnx").unlink()
    (source / "mochi/compiled.so").write_bytes(b"\x7fELF")
    (source / "mochi/libdlr.so").write_bytes(b"\x7fELF")
    assert "compiled for one device (compiled.so)" in (said := refusal(source)) and "torch.onnx.export" in said


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source")
    (source / "mochi/model.onnx").rename(source / "mochi.pt")
    assert "mochi.pt" in (said := refusal(source)) and "runs code" in said


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"type": "tiramisu"}, "'tiramisu'"),
        ({"threshold": None}, "does not say threshold"),
        ({"threshold": 1.5}, "threshold"),
        ({"normalize": None}, "does not say normalize"),
        ({"image_width": 64}, "[1, 3, 32, 64]"),
        ({"classification_logic": "both"}, "classification_logic"),
        ({"calibrated": True}, "calibrator_scaling"),
        ({"class_normal_ids": []}, "class_normal_ids"),
        ({"class_normal_ids": [2]}, "class head"),
        ({"seg_normal_ids": [], "classification_logic": "seg_head"}, "seg_normal_ids"),
        ({"classification_head_enabled": False, "segmentation_head_enabled": False}, "neither"),
        ({"transform_preprocessing": "polar_transform"}, "transform_preprocessing"),
        ({"interpolation": 4}, "interpolation"),
    ],
)
def test_what_a_package_cannot_express_is_refused(stage: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(make_lookout_package(tmp_path / "source", **stage))


def test_graphs_that_do_not_fit_their_manifest_are_refused(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source")
    (source / "mochi/model.onnx").write_bytes(two_headed_model(mask_head=False).SerializeToString())
    assert "1 outputs" in refusal(source)
    change = {"pixel_level_classes": {"names": ["background", "scratch"], "normal_ids": [0]}}
    assert "names 2 classes" in refusal(make_lookout_package(tmp_path / "classes", change))


def test_other_kinds_of_packages_are_refused(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source", {"stages": [STAGE, STAGE]})
    assert "2 models" in refusal(source)
    change_manifest(source, model_graph={"stages": [STAGE]}, task="object_detection")
    assert "ultralytics" in refusal(source)
    change_manifest(source, model_graph=None)
    assert "no manifest of Lookout for Vision" in refusal(source)
    assert "no such file" in refusal(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no manifest.json" in refusal(tmp_path / "empty")


def test_several_packages_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_lookout_package(tmp_path / "two" / name)
    assert "several packages (a, b)" in refusal(tmp_path / "two")


def test_the_artifact_stays_inside_the_package(tmp_path: Path) -> None:
    source = make_lookout_package(tmp_path / "source")
    (tmp_path / "outside.onnx").write_bytes(two_headed_model().SerializeToString())
    change_manifest(source, runtime_artifact="../outside.onnx")
    (source / "mochi/model.onnx").unlink()
    assert "outside.onnx" in refusal(source)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped"])
def test_archives_never_write_outside(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    assert "leads outside" in refusal(tmp_path / "bad.tar.gz")


def test_links_in_archives_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("manifest.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    assert "no manifest.json" in refusal(tmp_path / "bad.tar.gz")


def test_a_bomb_is_not_unpacked_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_folder, "MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(8 << 20))
    assert "holds more than" in refusal(tmp_path / "bomb.zip")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(content)
    assert "cannot be unpacked" in refusal(tmp_path / "model.zip")
