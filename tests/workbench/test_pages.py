"""Packages and ONNX files as a page."""

import argparse

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.commands import inspect as command
from agent.packages.manifest import (
    AgentPreprocessing,
    Boxes,
    Cover,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
    Rectangle,
    Reference,
    TargetDevice,
    TargetPlatform,
)
from agent.packages.package import Package, read_package
from agent.workbench.errors import BadSource
from agent.workbench.pages.package_page import package_page
from tests.support.packages import add_file, changed, darkness_model, make_package, zip_package


def page(path, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args([str(path)])) == 0
    return capsys.readouterr().out


def facts(text):
    """The lines that are not empty, runs of blanks as one."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_a_package_s_page_tells_what_it_takes_gives_and_decides(tmp_path, capsys):
    lines = facts(page(make_package(tmp_path / "package"), capsys))
    assert lines[0] == "tiny 1.0.0"
    assert "task segmentation: anomaly" in lines
    assert "takes RGB images of 96x64; others are refused" in lines
    assert "decides anomalous where the score is at least the threshold; threshold 0.5000" in lines
    assert "background #FFFFFF" in lines
    assert "self-test/good.rgb normal 0.0000 fp32 0.005, fp16 0.05" in lines


def test_a_zip_is_told_of_like_its_folder(tmp_path, capsys):
    folder = make_package(tmp_path / "package")
    assert page(zip_package(folder, tmp_path / "package.zip"), capsys) == page(folder, capsys)


def rich(manifest: Manifest) -> Manifest:
    """A manifest in which everything is said that can be."""
    outputs = msgspec.structs.replace(
        manifest.outputs,
        class_scores="classes",
        class_activation="softmax",
        normal_class_ids=[0, 2],
        class_mask="channels",
        mask_bias=[0.0, 0.25],
        boxes=Boxes("boxes", "anchors", ["background", "anomaly", "anomaly"], "prototypes"),
        map_covers=Cover(0.125, 0.125, 0.75, 0.75),
    )
    return changed(
        manifest,
        model=msgspec.structs.replace(manifest.model, licence="Apache-2.0", created="2026-11-21", training_images=30),
        preprocessing=AgentPreprocessing(
            "image",
            224,
            160,
            resize="crop",
            shorter_side=256,
            antialias=False,
            mean=[0.1, 0.2, 0.3],
            region_of_interest=Rectangle(8, 4, 64, 48),
            ignore_mask="ignored.raw",
        ),
        outputs=outputs,
        decision=msgspec.structs.replace(
            manifest.decision, calibration=LinearCalibration(21.5, 40), combination="class or mask"
        ),
        reference=Reference({"0.5": 0.1, "0.95": 0.3}),
        target=TargetPlatform("LINUX", "ARM64", "NVIDIA", {"gpu-code": "sm_87"}),
    )


def test_everything_a_manifest_can_say_is_told(tmp_path):
    folder = make_package(tmp_path / "package")
    ignored = np.zeros((64, 96), np.uint8)
    ignored[:16] = 1
    add_file(folder, "ignored.raw", ignored.tobytes())
    text = package_page(Package(folder, rich(read_package(folder).manifest)))
    for told in [
        "on 2026-11-21 of 30 images",
        "Apache-2.0",
        "LINUX/ARM64/NVIDIA (gpu-code sm_87)",
        "inspects 64x48 from (8, 4) on",
        "ignores 25.0% of what is inspected (ignored.raw)",
        "resized to 224x160 (bilinear without antialias, proportions kept, shorter side 256, the middle of it)",
        "(pixel * 0.00392157 - [0.1, 0.2, 0.3]) / 1",
        "as 'image', NCHW, RGB, float32",
        "class scores: 'classes' through softmax; normal: class 0, 2",
        "class mask: 'channels', [0.0, 0.25] added",
        "boxes: 'boxes', 3 classes with instance masks of 'prototypes'",
        "anomaly: class 1, 2",
        "the map covers 75.0% x 75.0% of what is inspected, from (12.5%, 12.5%) on",
        "the score is at least the threshold or the mask shows an anomaly",
        "score = (raw - 21.5) / 40 + 0.5, from 0 to 1",
        "50% 0.1000, 95% 0.3000",
    ]:
        assert told in text


def test_other_targets_and_calibrations_are_told_too(tmp_path):
    def other(manifest: Manifest) -> Manifest:
        decision = msgspec.structs.replace(manifest.decision, calibration=LogisticCalibration(-2.0, 0.5, 10.0))
        return changed(manifest, decision=decision, target=TargetDevice("jetson_orin"))

    folder = make_package(tmp_path / "package", change=other)
    text = package_page(read_package(folder))
    assert "jetson_orin" in text
    assert "score = 1 / (1 + exp(-2 * raw / 10 + 0.5))" in text


# --- ONNX files


def test_an_onnx_file_s_page_tells_its_tensors_and_how_to_package_it(tmp_path, capsys):
    file = tmp_path / "model.onnx"
    onnx.save(darkness_model(), file)
    lines = facts(page(file, capsys))
    assert lines[0] == "model.onnx"
    assert "opset ONNX 18; file format 9" in lines
    assert "image uint8 1 x ? x ? x 3" in lines
    assert "score float32 1" in lines
    assert f"edge-agent package onnx {file} --component NAME --dry-run" in lines


def test_a_graph_that_takes_bytes_is_none_of_anomalib_whatever_its_outputs_are_called(tmp_path, capsys):
    model = darkness_model()
    model.graph.output[0].name = "anomaly_map"
    next(node for node in model.graph.node if node.output[0] == "map").output[0] = "anomaly_map"
    next(node for node in model.graph.node if node.input[0] == "map").input[0] = "anomaly_map"
    onnx.save(model, tmp_path / "model.onnx")
    assert "edge-agent package onnx " in page(tmp_path / "model.onnx", capsys)


@pytest.mark.parametrize(
    ("metadata", "output", "kind"),
    [
        ({"task": "detect", "names": "{0: 'scratch'}", "stride": "32"}, "output0", "ultralytics"),
        ({}, "pred_score", "anomalib"),
        ({}, "y", "onnx"),
    ],
)
def test_the_importer_is_told_from_metadata_and_names(tmp_path, capsys, metadata, output, kind):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "one"], [output])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 3, 8, 8])],
        [numpy_helper.from_array(np.array(1, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata)
    onnx.save(model, tmp_path / "model.onnx")
    assert f"edge-agent package {kind} " in page(tmp_path / "model.onnx", capsys)


@pytest.mark.parametrize(("name", "why"), [("model.pt", "pickle"), ("model.onnx", "no ONNX model")])
def test_what_is_no_model_is_refused_with_what_to_do(tmp_path, capsys, name, why):
    (tmp_path / name).write_bytes(b"\x80\x04 something else")
    with pytest.raises(BadSource, match=f"{why}.*xport the model as ONNX"):
        page(tmp_path / name, capsys)
