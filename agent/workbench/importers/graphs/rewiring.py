"""Changing an ONNX graph: other outputs, and other inputs before the first node. All of it in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from agent.workbench.importers.graphs.nodes import NewNodes
from agent.workbench.importers.graphs.onnx_file import inputs_of


def expose(model: onnx.ModelProto, tensors: Mapping[str, str]) -> dict[str, str]:
    """Makes `tensors` (a name that is wanted for each: `{"raw_score": "/post/Sub_input"}`) the only outputs of `model`
    and drops all that only the outputs before them needed.

    They have the element type of the first float output. Gives the names they have now: what was wanted, with
    underscores where the graph had such a tensor already; an output that was one before keeps its name.
    """
    outputs = {output.name: output for output in model.graph.output}
    dtype = next(
        kind for output in model.graph.output if (kind := output.type.tensor_type.elem_type) in (1, TensorProto.FLOAT16)
    )
    names, exposed, new = {}, [], NewNodes(model.graph)
    for wanted, tensor in tensors.items():
        if tensor in outputs:
            names[wanted] = tensor
            exposed.append(_copy(outputs[tensor]))
            continue
        name = names[wanted] = new.free_name(wanted)
        model.graph.node.append(helper.make_node("Identity", [tensor], [name]))
        exposed.append(helper.make_tensor_value_info(name, dtype, None))
    del model.graph.output[:]
    model.graph.output.extend(exposed)
    _drop_unused(model.graph)
    return names


def take_image(model: onnx.ModelProto) -> str:
    """Makes the graph take images as cameras give them: uint8, (N, height, width, 3), instead of float in 0..1,
    (N, 3, height, width). Gives the new input's name."""
    old, new = _image_of(model), NewNodes(model.graph)
    dtype = old.type.tensor_type.elem_type
    name, nodes = new.free_name("image"), list[onnx.NodeProto]()
    white = new.constant(nodes, np.array(255, helper.tensor_dtype_to_np_dtype(dtype)))
    planar = new.append(nodes, "Transpose", [new.append(nodes, "Cast", [name], to=dtype)], perm=[0, 3, 1, 2])
    nodes.append(helper.make_node("Div", [planar, white], [old.name]))
    batch, _, height, width = _sizes(old)
    shape = [batch, height, width, 3]
    new.put_first(nodes, old.name, helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    return name


def crop_first(model: onnx.ModelProto, size: tuple[int, int], left: int, top: int) -> str:
    """Makes the graph take planes of `size` (width, height) and cut what it took before out of them, from `left`
    and `top` on. Gives the new input's name."""
    old, new = _image_of(model), NewNodes(model.graph)
    tensor = old.type.tensor_type
    batch, channels = _sizes(old)[:2]
    height, width = (size.dim_value for size in tensor.shape.dim[2:])
    name, nodes = new.free_name("uncropped"), list[onnx.NodeProto]()
    starts, ends, axes = (
        new.constant(nodes, np.array(values, np.int64))
        for values in ([top, left], [top + height, left + width], [2, 3])
    )
    nodes.append(helper.make_node("Slice", [name, starts, ends, axes], [old.name]))
    shape = [batch, channels, size[1], size[0]]
    new.put_first(nodes, old.name, helper.make_tensor_value_info(name, tensor.elem_type, shape))
    return name


def _image_of(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is no weight."""
    name = inputs_of(model)[0].name
    return next(value for value in model.graph.input if value.name == name)


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    """The sizes of a tensor: numbers, or the names of those left open."""
    return [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]


def _drop_unused(graph: onnx.GraphProto) -> None:
    needed = {output.name for output in graph.output}
    for index in reversed(range(len(graph.node))):  # sorted: what a node takes is made before it
        if needed.isdisjoint(graph.node[index].output):
            del graph.node[index]
        else:
            needed.update(_read_by(graph.node[index]))
    # One by one and in place: a list of those kept would be a second copy of the weights.
    for values in (graph.initializer, graph.value_info):
        for index in reversed(range(len(values))):
            if values[index].name not in needed:
                del values[index]


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that `node` takes, and those that the graphs inside it (the branches of an If) may take."""
    yield from node.input
    for entry in node.attribute:
        for graph in (entry.g, *entry.graphs):
            for inner in graph.node:
                yield from _read_by(inner)
            yield from (output.name for output in graph.output)


def _copy(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy
