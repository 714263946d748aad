"""What an importer makes of a source: a package but for its name, its images and its hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.packages.manifest import Decision, ImageSize, Label, Outputs, Preprocessing, Reference
from agent.packages.palette import BACKGROUND, PALETTE

MODEL_FILE = "model.onnx"
"""What the model is called in a package, whatever it was called before."""


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
