"""ONNX models that are wrong somewhere, drawn by chance; and how a package comes to hold any bytes as its model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import onnx

from agent.packages.manifest import OnnxModel
from agent.packages.package import read_package
from tests.support.packages import (
    add_file,
    changed,
    constant_score_model,
    darkness_model,
    first_channel_model,
    first_pixel_model,
    number_product_model,
    rewrite_manifest,
    slow_model,
)

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain in ("", "ai.onnx.ml")})
SIZES = (0, 1, 2, 3, 7, 64, 4096, 2**16, 2**31 - 1, 2**31, 2**40, 2**61, 2**63 - 1, -1, -(2**31), -(2**63))
SEEDS: tuple[Callable[[], onnx.ModelProto], ...] = (
    first_pixel_model,
    lambda: constant_score_model(1.0),
    lambda: slow_model(1),
    lambda: number_product_model(1),
    darkness_model,
    first_channel_model,
)


def write_model(folder: Path, content: bytes) -> None:
    """Makes `content` the model of a package, rightly listed."""
    manifest = read_package(folder).manifest
    model = changed(add_file(folder, "model.onnx", content), runtime=OnnxModel())
    rewrite_manifest(folder, changed(manifest, files=[model, *manifest.files[1:]]))


def mutant(seed: int, number: int) -> bytes:
    """The same bytes for the same numbers, in every process."""
    chance = random.Random(f"{seed}-{number}")
    model = chance.choice(SEEDS)()
    if chance.random() < 0.5:
        return _other_bytes(chance, model.SerializeToString())
    for _ in range(chance.choice((1, 1, 2, 5))):
        chance.choice(CHANGES)(chance, model)
    return model.SerializeToString()


def _other_bytes(chance: random.Random, content: bytes) -> bytes:
    changed_bytes = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(changed_bytes)), chance.randrange(1, 40)
        kind = chance.randrange(5)
        if kind < 2:
            changed_bytes[at] = chance.randrange(256)
        elif kind == 2:
            del changed_bytes[at : at + min(length, len(changed_bytes) - 1)]
        elif kind == 3:
            changed_bytes[at:at] = changed_bytes[at : at + length]
        else:
            other = chance.choice(SEEDS)().SerializeToString()
            changed_bytes[at : at + length] = other[at : at + length]
    return bytes(changed_bytes)


def _node(chance: random.Random, model: onnx.ModelProto) -> onnx.NodeProto:
    if not model.graph.node:
        model.graph.node.add(op_type="Identity")
    return chance.choice(model.graph.node)


def _constant(chance: random.Random, model: onnx.ModelProto) -> onnx.TensorProto:
    if not model.graph.initializer:
        model.graph.initializer.add(name="new", data_type=1)
    return chance.choice(model.graph.initializer)


def _other_operator(chance: random.Random, model: onnx.ModelProto) -> None:
    _node(chance, model).op_type = chance.choice(OPERATORS)


def _other_wiring(chance: random.Random, model: onnx.ModelProto) -> None:
    """Cycles, too."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] + [""]
    node = _node(chance, model)
    ends = chance.choice((node.input, node.output))
    if ends:
        ends[chance.randrange(len(ends))] = chance.choice(names)
    else:
        ends.append(chance.choice(names))


def _without_node(chance: random.Random, model: onnx.ModelProto) -> None:
    model.graph.node.remove(_node(chance, model))


def _node_twice(chance: random.Random, model: onnx.ModelProto) -> None:
    model.graph.node.append(_node(chance, model))


def _other_shape(chance: random.Random, model: onnx.ModelProto) -> None:
    constant = _constant(chance, model)
    del constant.dims[:]
    constant.dims.extend(chance.choice(SIZES) for _ in range(chance.randrange(4)))


def _other_values(chance: random.Random, model: onnx.ModelProto) -> None:
    constant = _constant(chance, model)
    constant.raw_data = b"".join(
        chance.choice(SIZES).to_bytes(8, "little", signed=True) for _ in range(max(1, len(constant.raw_data) // 8))
    )


def _other_type(chance: random.Random, model: onnx.ModelProto) -> None:
    _constant(chance, model).data_type = chance.randrange(30)


def _other_attribute(chance: random.Random, model: onnx.ModelProto) -> None:
    names = ("axis", "to", "keepdims", "axes", "value", "perm", "pads", "kernel_shape", "group", "num_outputs")
    number = chance.choice(SIZES)
    value = chance.choice((number, [number] * chance.randrange(1, 5), 0.5, "text"))
    _node(chance, model).attribute.append(onnx.helper.make_attribute(chance.choice(names), value))


def _other_ends(chance: random.Random, model: onnx.ModelProto) -> None:
    end = chance.choice([*model.graph.input, *model.graph.output]).type.tensor_type
    end.elem_type = chance.choice((end.elem_type, chance.randrange(30)))
    end.shape.dim.add(dim_value=chance.choice(SIZES))


def _other_versions(chance: random.Random, model: onnx.ModelProto) -> None:
    model.ir_version = chance.choice((0, 3, 9, 10, 2**31))
    model.opset_import[0].version = chance.choice((0, 1, 7, 13, 21, 2**40))


CHANGES = (
    _other_operator,
    _other_wiring,
    _without_node,
    _node_twice,
    _other_shape,
    _other_values,
    _other_type,
    _other_attribute,
    _other_ends,
    _other_versions,
)
