"""What a graph answers to some pictures: its outputs' real shapes and ranges, which the file need not tell."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.backends.base import BackendSettings, ModelToOpen, Tensors
from agent.backends.onnx_runtime import OnnxRuntimeBackend
from agent.errors import BadPackage
from agent.images.preprocess import preprocess, tensor_shape
from agent.packages.manifest import AgentPreprocessing, Preprocessing
from agent.workbench.errors import BadSource
from agent.workbench.image_file import SUFFIXES, read_image
from agent.workbench.importers.graphs.onnx_file import outputs_of, serialised

DRAWN_SIDE = 256
"""Pixels; of drawn pictures for a graph that takes every size."""
PICTURES = 6
"""How many pictures are shown to a graph: some normal, some not, if a folder holds both."""

NO_NUMBERS = frozenset({"?", "object"})
"""What outputs that are sequences, maps or texts are called."""
WHAT_RUNS = "export it again with opset 18 (newer ones need a newer runtime), and see that ONNX Runtime runs it alone"

Answers = list[Tensors]
"""For each picture the outputs by name, without the batch's repetitions."""


def some_pictures(source: str | None) -> list[NDArray[np.uint8]]:
    """Up to `PICTURES` images of a folder (and those below it), a glob or a file, evenly spread; uint8 (h, w, 3), RGB.

    Empty where `source` is None or a manifest: those are read when the package is written.

    Raises:
        UnreadableImage, ImageSizeNotAllowed: an image cannot be used.
    """
    if source is None:
        return []
    # Path.glob takes no absolute pattern.
    found = Path(source).rglob("*") if Path(source).is_dir() else map(Path, glob.iglob(source, recursive=True))  # noqa: PTH207
    files = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    step = max(1, len(files) / PICTURES)
    return [read_image(files[int(index * step)]) for index in range(min(PICTURES, len(files)))]


def drawn_pictures(width: int, height: int) -> list[NDArray[np.uint8]]:
    """Black, grey, white, noise and a ramp: what a graph is tried with where there are no images of the part."""
    flat = [np.full((height, width, 3), value, np.uint8) for value in (0, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, width, 3))
    return [*flat, noise, np.ascontiguousarray(ramp)]


def probe(
    source: Path, model: onnx.ModelProto, preprocessing: Preprocessing, pictures: Sequence[NDArray[np.uint8]]
) -> Answers:
    """What `model`, read from `source`, answers to each of `pictures`, drawn ones where there are none.

    Raises:
        BadSource: it has no tensors to answer with, or does not run.
    """
    width, height = DRAWN_SIDE, DRAWN_SIDE
    if isinstance(preprocessing, AgentPreprocessing):
        width, height = preprocessing.width, preprocessing.height
    shown = list(pictures) or drawn_pictures(width, height)
    outputs = tuple(output.name for output in outputs_of(model) if output.dtype not in NO_NUMBERS)
    if not outputs:
        raise BadSource(source, "none of its outputs is a tensor of numbers", "export it with tensors as its outputs")
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        file = Path(folder) / source.name  # the runtime's messages name it
        file.write_bytes(serialised(model))
        try:
            backend = OnnxRuntimeBackend(
                ModelToOpen(
                    path=file,
                    input=preprocessing.tensor,
                    input_shape=tensor_shape(preprocessing, shown[0].shape[1], shown[0].shape[0]),
                    input_dtype=preprocessing.dtype if isinstance(preprocessing, AgentPreprocessing) else "uint8",
                    outputs=outputs,
                ),
                BackendSettings(),
            )
        except BadPackage as error:
            raise BadSource(source, str(error).rstrip(". "), WHAT_RUNS) from None
        return [_answer(source, backend, preprocessing, pixels) for pixels in shown]


def _answer(
    source: Path, backend: OnnxRuntimeBackend, preprocessing: Preprocessing, pixels: NDArray[np.uint8]
) -> Tensors:
    tensor = np.repeat(preprocess(pixels, preprocessing), backend.batch, axis=0)
    try:
        answer = backend.run({preprocessing.tensor: tensor})
    except Exception as error:  # the runtime's exception classes are not public
        raise BadSource(
            source, f"it fails for some pictures: {' '.join(str(error).split())[:300]}", WHAT_RUNS
        ) from None
    return {name: values[:1] if backend.batch > 1 and values.ndim else values for name, values in answer.items()}
