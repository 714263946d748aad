"""Rows E6 and E7: models that are not what their manifest says, and engines for another device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.packages.manifest import AgentPreprocessing, Manifest, OnnxModel, Outputs, PackageFile, TensorRtEngine
from agent.packages.package import read_package
from tests.faults.packages_support import has_turn, put, suspect
from tests.faults.row import Run, row
from tests.support.packages import (
    add_file,
    changed,
    first_channel_model,
    first_pixel_model,
    make_package,
    rewrite_manifest,
)

Change = Callable[[Manifest], Manifest]


def _unchanged(manifest: Manifest) -> Manifest:
    return manifest


def _ending_in(
    nodes: list[onnx.NodeProto], score: onnx.ValueInfoProto, *constants: onnx.TensorProto
) -> onnx.ModelProto:
    """The first-pixel model, its score being called `one` and more nodes making the output of it."""
    model = first_pixel_model()
    model.graph.node[-1].output[0] = "one"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    del model.graph.output[:]
    model.graph.output.append(score)
    model.opset_import[0].version = 19  # the first with 8-bit floats
    return model


def _score(kind: int, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("score", kind, shape)


def _cast(kind: int) -> onnx.ModelProto:
    return _ending_in([helper.make_node("Cast", ["one"], ["score"], to=kind)], _score(kind, [1]))


def _shaped(shape: list[int], declared: list[int] | None = None) -> onnx.ModelProto:
    node = helper.make_node("Expand", ["one", "shape"], ["score"])
    constant = numpy_helper.from_array(np.array(shape, np.int64), "shape")
    return _ending_in([node], _score(TensorProto.FLOAT, shape if declared is None else declared), constant)


def _sequence() -> onnx.ModelProto:
    kind = helper.make_tensor_sequence_value_info("score", TensorProto.FLOAT, [1])
    return _ending_in([helper.make_node("SequenceConstruct", ["one"], ["score"])], kind)


def _mapping() -> onnx.ModelProto:
    """The output is a list of dictionaries, as converters of scikit-learn make them."""
    wide = helper.make_node("Unsqueeze", ["one", "axis"], ["row"])
    zip_map = helper.make_node("ZipMap", ["row"], ["score"], domain="ai.onnx.ml", classlabels_int64s=[0])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("score", helper.make_sequence_type_proto(entry))
    model = _ending_in([wide, zip_map], output, numpy_helper.from_array(np.array([0], np.int64), "axis"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def _empty() -> onnx.ModelProto:
    nothing = numpy_helper.from_array(np.array([0], np.int64), "none")
    return _ending_in(
        [helper.make_node("Slice", ["one", "none", "none"], ["score"])], _score(TensorProto.FLOAT, [0]), nothing
    )


def _divided_by_nothing() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Sub", ["one", "one"], ["nothing"]),
        helper.make_node("Div", ["nothing", "nothing"], ["score"]),
    ]
    return _ending_in(nodes, _score(TensorProto.FLOAT, [1]))


def _two_inputs() -> onnx.ModelProto:
    model = first_pixel_model()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    return model


def _other_output() -> onnx.ModelProto:
    model = first_pixel_model()
    model.graph.output[0].name = "divided"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _batch(size: int) -> tuple[onnx.ModelProto, Change]:
    """A graph with a fixed batch, its score from all of it."""
    return first_channel_model(batch=size), _fed_by_the_agent()


def _fed_by_the_agent(**fields: object) -> Change:
    preprocessing = AgentPreprocessing(**{"tensor": "input", "width": 12, "height": 8, **fields})
    return lambda manifest: changed(manifest, preprocessing=preprocessing)


def _only_whole_batch() -> tuple[onnx.ModelProto, Change]:
    """It takes 2 images that must differ: an image that is repeated divides by nothing."""
    model = first_channel_model(batch=2)
    model.graph.node[-1].output[0] = "both"
    model.graph.node.extend(
        [
            helper.make_node("Split", ["both"], ["first_score", "second"], axis=0, num_outputs=2),
            helper.make_node("Sub", ["first_score", "second"], ["difference"]),
            helper.make_node("Div", ["first_score", "difference"], ["score"]),
        ]
    )
    model.graph.output[1].type.tensor_type.shape.dim[0].dim_value = 1
    return model, _fed_by_the_agent()


def _reading(**outputs: object) -> Change:
    return lambda manifest: changed(manifest, outputs=Outputs(**outputs))


NUMBERS = "a tensor of numbers can be read"
ONE = "a score is one number"
LOADING = "could not load the model"
MISFITS: dict[str, tuple[onnx.ModelProto, Change, str]] = {
    "as it should be": (first_pixel_model(), _unchanged, ""),
    "whole numbers": (_cast(TensorProto.INT64), _unchanged, ""),
    "seven axes": (_shaped([1] * 7), _unchanged, ""),
    "text": (_cast(TensorProto.STRING), _unchanged, NUMBERS),
    "8-bit float": (_cast(TensorProto.FLOAT8E4M3FN), _unchanged, NUMBERS),
    "list": (_sequence(), _unchanged, NUMBERS),
    "mapping": (_mapping(), _unchanged, NUMBERS),
    "several scores": (_shaped([5]), _unchanged, ONE),
    "several scores, one declared": (_shaped([5], []), _unchanged, ONE),
    "no score": (_empty(), _unchanged, "'score' is empty"),
    "not a number": (_divided_by_nothing(), _unchanged, "not a finite number"),
    "other output": (_other_output(), _unchanged, "it gives 'divided'; the manifest reads 'score'"),
    "second input": (_two_inputs(), _unchanged, "it takes 'image', 'mask'"),
    "other input": (first_channel_model(), _unchanged, "the manifest feeds 'image'"),
    "other type": (first_channel_model(), _fed_by_the_agent(dtype="float16"), "the manifest gives float16"),
    "other size": (first_channel_model(), _fed_by_the_agent(width=13), "the manifest gives (1, 3, 8, 13)"),
    "other layout": (first_channel_model(), _fed_by_the_agent(layout="NHWC"), "the manifest gives (1, 8, 12, 3)"),
    "score as map": (first_pixel_model(), _reading(anomaly_map="score"), "an anomaly map is (1, 1, h, w)"),
    "score as classes": (
        first_pixel_model(),
        _reading(class_scores="score", normal_class_ids=[7]),
        "class 7 is none of them",
    ),
    "batch of 2": (*_batch(2), ""),
    "batch of 0": (*_batch(0), LOADING),
    "batch of 2^30": (*_batch(2**30), LOADING),
    "batch of images that differ": (*_only_whole_batch(), "not a finite number"),
}
"""Model, what is changed in the manifest, and what the refusal says; nothing where it serves."""


@row(
    "E6",
    "inputs and outputs that are not as the manifest says, in name, number, type, shape or kind: FAILED at the start",
    unit="models",
    full=10_000,
    short=len(MISFITS),
)
def misfits(run: Run) -> None:
    names = list(MISFITS)
    folders = {name: run.folder / f"misfit-{number}" for number, name in enumerate(names)}
    for name, (graph, change, _) in MISFITS.items():
        make_package(folders[name], task="classification", model=graph, change=change)
    with suspect(run) as model:
        for number in run.steps():
            name = names[number % len(names)]
            put(folders[name], model.folder)
            model.leads_to(MISFITS[name][2], through_agent=has_turn(number, len(names)))


# --- engines

HERE = TensorRtEngine("8.7", "10.3.0", "fp16")
ENGINES_ONLY = "it holds TensorRT engines only, and this agent runs ONNX models; package the ONNX model too"
Engines = Callable[[Path, Manifest], list[PackageFile]]
"""Writes a package's files into a folder, beside what a manifest lists; lists them anew."""


def _engine(content: bytes, built_for: TensorRtEngine = HERE) -> Engines:
    """In place of the model."""

    def files(folder: Path, manifest: Manifest) -> list[PackageFile]:
        engine = changed(add_file(folder, "model.engine", content), runtime=built_for)
        return [engine, *manifest.files[1:]]

    return files


def _engine_beside_the_model(folder: Path, manifest: Manifest) -> list[PackageFile]:
    return [*_engine(b"ftrt")(folder, manifest)[:1], *manifest.files]


def _engine_listed_as_onnx(folder: Path, manifest: Manifest) -> list[PackageFile]:
    engine = changed(add_file(folder, "model.engine", os.urandom(4096)), runtime=OnnxModel())
    return [engine, *manifest.files[1:]]


def _engine_of_another_hash(folder: Path, manifest: Manifest) -> list[PackageFile]:
    files = _engine(b"ftrt" * 100)(folder, manifest)
    (folder / "model.engine").write_bytes(b"FTRT" * 100)
    return files


ENGINES: dict[str, tuple[Engines, str]] = {
    "cut": (_engine(b"ftrt\0\0\0\0\1"), ENGINES_ONLY),
    "empty": (_engine(b""), ENGINES_ONLY),
    "noise": (_engine(os.urandom(1 << 16)), ENGINES_ONLY),
    "another version": (_engine(b"ftrt" * 100, TensorRtEngine("8.7", "8.0.0", "fp32")), ENGINES_ONLY),
    "another GPU": (_engine(b"ftrt" * 100, TensorRtEngine("5.3", "10.3.0", "int8")), ENGINES_ONLY),
    "beside the ONNX model": (_engine_beside_the_model, ""),
    "listed as ONNX": (_engine_listed_as_onnx, "it is no ONNX model"),
    "of another hash": (_engine_of_another_hash, "its SHA-256 is"),
}


@row(
    "E7",
    "engines that are cut, empty, noise, or for another device, where there is no GPU: FAILED with what to do",
    unit="engines",
    full=1000,
    short=len(ENGINES),
)
def engines(run: Run) -> None:
    """What a GPU makes of them is for a machine that has one."""
    names = list(ENGINES)
    folders = {name: run.folder / f"engine-{number}" for number, name in enumerate(names)}
    for name, (make, _) in ENGINES.items():
        manifest = read_package(make_package(folders[name], task="classification")).manifest
        rewrite_manifest(folders[name], changed(manifest, files=make(folders[name], manifest)))
    with suspect(run) as model:
        for number in run.steps():
            name = names[number % len(names)]
            put(folders[name], model.folder)
            model.leads_to(ENGINES[name][1], through_agent=has_turn(number, len(names)))
