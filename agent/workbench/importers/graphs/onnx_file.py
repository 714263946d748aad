"""ONNX files at the bench: reading one safely, looking at it, and writing it as a package has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from agent.packages.onnx_external_data import external_data_files
from agent.workbench.errors import BadSource

PICKLES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Files that run code when they are read; they are not read."""
FOLDED_LIMIT = (2 << 30) - (64 << 20)
"""Bytes; a protobuf message ends at 2 GiB. A model with more weights keeps them in a file of its own."""
DTYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16"}
"""Input types that a package may have."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    dtype: str
    """`float32`, `uint8`, `bool`, ...: ONNX's name in numpy's words."""
    shape: tuple[int | None, ...]
    """None where the graph leaves a size open."""

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def read_onnx(file: Path) -> onnx.ModelProto:
    """The model in `file`, with its external data folded in.

    Raises:
        BadSource: it is no ONNX model, a pickle, or external data is missing, a link, or outside its folder.
    """
    if file.suffix.lower() in PICKLES:
        raise BadSource(
            file, "it is a pickle, which runs code when it is opened, and is not read", "export the model as ONNX"
        )
    if not file.is_file():
        raise BadSource(file, "there is no such file", "give the ONNX file, or the folder that holds it")
    try:
        model = onnx.load_model(file, format="protobuf", load_external_data=False)  # whatever its suffix
    except (DecodeError, ValueError, OSError):
        raise BadSource(file, "it is no ONNX model", "export the model as ONNX") from None
    if not model.graph.output or not model.opset_import:
        raise BadSource(file, "it is no ONNX model: it has no graph", "export the model as ONNX")
    _fold_external_data(model, file)
    return model


def _fold_external_data(model: onnx.ModelProto, file: Path) -> None:
    names = external_data_files(file, file.name)
    total = 0
    for name in sorted(names):
        path = file.parent / name
        inside = path.resolve().is_relative_to(file.parent.resolve()) and not path.is_symlink()
        if not inside or not path.is_file():
            raise BadSource(
                file,
                f"it keeps its weights in {name!r}, which is not beside it",
                "put the export's files into one folder again",
            )
        total += path.stat().st_size
    if total > FOLDED_LIMIT:
        raise BadSource(
            file, f"its weights have {total >> 20} MiB, more than one ONNX file holds", "export it in half precision"
        )
    if names:
        onnx.load_external_data_for_model(model, str(file.parent))


def inputs_of(model: onnx.ModelProto) -> list[Tensor]:
    """What is fed; older files list the weights among the inputs, which are none."""
    weights = {initializer.name for initializer in model.graph.initializer}
    return [_tensor(value) for value in model.graph.input if value.name not in weights]


def outputs_of(model: onnx.ModelProto) -> list[Tensor]:
    return [_tensor(value) for value in model.graph.output]


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """What the exporter wrote beside the graph (`metadata_props`)."""
    return {entry.key: entry.value for entry in model.metadata_props}


def serialised(model: onnx.ModelProto) -> bytes:
    """The model as a package has it; the same model gives the same bytes."""
    return model.SerializeToString(deterministic=True)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    dtype = "?" if not tensor.elem_type else onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = tuple(
        dimension.dim_value if dimension.HasField("dim_value") and dimension.dim_value > 0 else None
        for dimension in tensor.shape.dim
    )
    return Tensor(value.name, dtype, shape)
