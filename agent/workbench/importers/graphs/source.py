"""Which file a SOURCE means: an ONNX file, or the folder that holds one."""

from __future__ import annotations

from pathlib import Path

from agent.workbench.errors import BadSource


def onnx_file_in(source: Path) -> Path:
    """`source` itself, or the one ONNX file in the folder `source`.

    Raises:
        BadSource: the folder holds none, or several.
    """
    if not source.is_dir():
        return source
    files = sorted(path for path in source.iterdir() if path.suffix.lower() == ".onnx")
    if not files:
        raise BadSource(source, "the folder holds no .onnx file", "export the model as ONNX, or give another folder")
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise BadSource(source, f"the folder holds {len(files)} .onnx files ({names})", "give the one that is meant")
    return files[0]
