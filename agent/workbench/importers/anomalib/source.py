"""Which file of an anomalib export is meant."""

from __future__ import annotations

from pathlib import Path

from agent.workbench.errors import BadSource
from agent.workbench.importers.anomalib.metadata import METADATA_NAME
from agent.workbench.importers.graphs.onnx_file import PICKLES

EXPORT = "export it again: edge-agent takes what anomalib's `export --export_type onnx` writes"


def find_model(source: Path) -> Path:
    """The ONNX file at `source`, or in the folder `source` (an export, its weights/ or weights/onnx/).

    Raises:
        BadSource: the folder has no ONNX file, or several.
    """
    if not source.is_dir():
        return source
    found = sorted(source.rglob("*.onnx"))
    if len(found) > 1:
        named = ", ".join(str(file.relative_to(source)) for file in found[:3])
        raise BadSource(source, f"it holds several models ({named}{', ...' if found[3:] else ''})", "give one of them")
    if not found:
        raise BadSource(source, _what_is_there(source), EXPORT)
    return found[0]


def find_metadata(model: Path) -> Path | None:
    """The metadata.json beside `model`; None where there is none, as with anomalib 2."""
    file = model.with_name(METADATA_NAME)
    return file if file.is_file() else None


def _what_is_there(folder: Path) -> str:
    suffixes = {file.suffix.lower() for file in folder.rglob("*")}
    if suffixes & PICKLES:
        return "it holds no ONNX model but pickles, which run code when they are opened and are not read"
    if ".xml" in suffixes:
        return "it holds no ONNX model but one for OpenVINO"
    return "it holds no ONNX model"
