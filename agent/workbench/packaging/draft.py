"""What an importer makes of a source: a package but for its name, its images and its hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.images.preprocess import tensor_shape
from agent.packages.manifest import Decision, ImageSize, Label, Outputs, Preprocessing, Reference, TensorRtEngine
from agent.packages.palette import BACKGROUND, PALETTE

MODEL_FILE = "model.onnx"
"""What the model is called in a package, whatever it was called before."""


@dataclass(frozen=True)
class Engine:
    """A TensorRT engine that was built of the source's model."""

    built_for: TensorRtEngine
    input_shape: tuple[int, ...]
    """The one shape of tensor that it takes."""
    content: bytes


@dataclass(frozen=True)
class Draft:
    """All that can be told of a model from its source."""

    task: Literal["classification", "segmentation"]
    preprocessing: Preprocessing
    outputs: Outputs
    decision: Decision
    source: str
    """What it was made from and by what, in a sentence."""
    files: Mapping[str, bytes | Path]
    """Path in the package to content, or to the file that holds it; `MODEL_FILE` is one of them."""
    engines: Mapping[str, Engine] = field(default_factory=dict)
    """By path in the package: beside the ONNX model, for devices that need not build their own then."""
    labels: Sequence[Label] = ()
    image: ImageSize | None = None
    """The camera's image, where the source tells; most do not."""
    ignored: NDArray[np.bool_] | None = None
    """(image height, image width): pixels that are background whatever the model says."""
    name: str = ""
    """Of the model, where the source tells."""
    version: str = ""
    """major.minor.patch, where the source tells."""
    arn: str = ""
    licence: str = ""
    training_images: int = 0
    tests: Sequence[tuple[str, NDArray[np.uint8]]] = ()
    """Self-test images by name, where the source has some: uint8, (height, width, 3), RGB."""
    reference: Reference = field(default_factory=Reference)
    """What good images score, where the source tells."""
    notes: Sequence[str] = ()
    """What was found and what was guessed, a sentence each, for the engineer to read."""


def background_and(*anomaly_types: str) -> list[Label]:
    """Labels for a segmentation: background first, colours of the default palette as far as that goes."""
    names = (BACKGROUND, *anomaly_types)
    return [Label(name, PALETTE[index] if index < len(PALETTE) else None) for index, name in enumerate(names)]


def with_engines_that_fit(draft: Draft, image: ImageSize) -> Draft:
    """`draft` without engines that are of no use where the camera's image is `image`; a note tells of those."""
    shape = None if image.any_size else tensor_shape(draft.preprocessing, image.width, image.height)
    fitting = {path: engine for path, engine in draft.engines.items() if engine.input_shape == shape}
    if len(fitting) == len(draft.engines):
        return draft
    note = (
        "The source's engines are left out: they take images of one size, and what is inspected has another now. "
        "Devices build their own, or: edge-agent engines build PACKAGE --into FOLDER."
    )
    return replace(draft, engines=fitting, notes=[*draft.notes, note])
