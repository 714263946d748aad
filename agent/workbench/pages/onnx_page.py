"""What an ONNX file is, and how it would be packaged."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from tabulate import tabulate

from agent.workbench.importers.graphs.onnx_file import Tensor, inputs_of, metadata_of, outputs_of, read_onnx
from agent.workbench.importers.ultralytics.metadata import is_export

MOST_METADATA = 200
"""Characters of a metadata value that are shown."""
MOST_OPERATORS = 12


def onnx_page(file: Path) -> str:
    """The model in `file` as a page. Raises BadSource."""
    model = read_onnx(file)
    facts = tabulate(list(_facts(model, file)), tablefmt="plain", disable_numparse=True)
    parts = [f"{file.name}\n\n{facts}", _tensors("input", inputs_of(model)), _tensors("output", outputs_of(model))]
    metadata = [(key, _short(value)) for key, value in metadata_of(model).items()]
    if metadata:
        parts.append(tabulate(metadata, headers=["metadata", ""], disable_numparse=True))
    kind = kind_of(model, file)
    parts.append(f"To package it:\n  edge-agent package {kind} {shlex.quote(str(file))} --component NAME --dry-run")
    return "\n\n".join(parts)


def kind_of(model: onnx.ModelProto, file: Path) -> str:
    """Which importer is for this model, as far as its metadata and the names of its outputs tell."""
    inputs, outputs = inputs_of(model), {tensor.name for tensor in outputs_of(model)}
    # A graph that takes the camera's bytes is none of anomalib, whatever its outputs are called: `fit` makes such.
    takes_floats = len(inputs) == 1 and inputs[0].dtype in ("float32", "float16")
    if is_export(model):
        return "ultralytics"
    is_named_so = {"anomaly_map", "pred_score", "pred_label"} & outputs or (file.parent / "metadata.json").is_file()
    if takes_floats and is_named_so:
        return "anomalib"
    return "onnx"


def _facts(model: onnx.ModelProto, file: Path) -> Iterator[tuple[str, str]]:
    opsets = ", ".join(f"{opset.domain or 'ONNX'} {opset.version}" for opset in model.opset_import)
    yield "made by", f"{model.producer_name or 'nobody says'} {model.producer_version}".strip()
    yield "opset", f"{opsets}; file format {model.ir_version}"
    weights = sum(_size(tensor) for tensor in model.graph.initializer)
    yield (
        "weights",
        f"{weights:,} numbers in {len(model.graph.initializer)} tensors; file of {file.stat().st_size:,} bytes",
    )
    operators = Counter(
        node.op_type if not node.domain else f"{node.domain}.{node.op_type}" for node in model.graph.node
    )
    shown = ", ".join(f"{count} {name}" for name, count in operators.most_common(MOST_OPERATORS))
    yield "nodes", f"{len(model.graph.node)}: {shown}{', ...' if len(operators) > MOST_OPERATORS else ''}"
    if model.doc_string:
        yield "says", _short(model.doc_string)


def _size(tensor: onnx.TensorProto) -> int:
    size = 1
    for side in tensor.dims:
        size *= side
    return size


def _tensors(kind: str, tensors: list[Tensor]) -> str:
    rows = [
        (tensor.name, tensor.dtype, " x ".join("?" if side is None else str(side) for side in tensor.shape) or "one")
        for tensor in tensors
    ]
    return tabulate(rows, headers=[kind, "type", "shape"], disable_numparse=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_METADATA else line[: MOST_METADATA - 3] + "..."
