"""Images with what is known of them: for evaluating a model, and for choosing and tuning by examples."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.packages.palette import BACKGROUND
from agent.workbench.dataset.ground_truth import (
    ANOMALY,
    CLASSIFICATION,
    NORMAL,
    SOURCE,
    ManifestLine,
    read_lines,
    tells_an_answer,
)
from agent.workbench.dataset.image_paths import images_matching, is_image
from agent.workbench.dataset.labelled_folder import Labelled, labelled_by_name, labelled_in
from agent.workbench.dataset.mask_truth import MaskTruth, names_of
from agent.workbench.errors import NoImagesFound, NoLabelledImages, NotYetLabelled
from agent.workbench.image_file import image_size, read_image


@dataclass(frozen=True)
class LabelledImage:
    """A photograph and what is known of it. Its pixels are decoded when asked for and not kept."""

    path: Path
    width: int
    height: int
    is_anomalous: bool | None
    """None: nobody has said."""
    mask: MaskTruth | None
    """None: nobody has drawn one. Of a normal image every pixel is known: there is one then, without a file."""
    entry: Mapping[str, Any] = field(compare=False)
    """The truth as a manifest's line has it: as it stood, or made of what the folder tells."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8, (height, width, 3), RGB. Raises UnreadableImage."""
        return read_image(self.path)


def labelled_images(source: str, root: Path | None = None) -> list[LabelledImage]:
    """The images that `source` names and what is known of each, sorted by path.

    `source` is a manifest in JSON Lines (`agent.workbench.dataset.ground_truth`; `root` is where its references lead),
    a folder in one of the layouts of `agent.workbench.dataset.labelled_folder`, a glob, or one image.

    Raises:
        NoImagesFound: nothing is there, or no image is.
        BadManifestLine: a line cannot be used, or its image or mask is not found.
        UnreadableImage, ImageSizeNotAllowed: an image cannot be used.
    """
    path = Path(source)
    if path.is_file() and not is_image(path):
        lines = read_lines(path)
        if not lines:
            raise NoImagesFound(source, "the manifest has no lines")
        images = [_of_line(line, root) for line in lines]
    else:
        images = [_of_file(labelled) for labelled in _labelled(source)]
    return sorted(images, key=lambda image: image.path)


def check_labels(images: Sequence[LabelledImage]) -> None:
    """Raises NotYetLabelled, or NoLabelledImages, where nobody has said of any image what it is."""
    if all(image.is_anomalous is None for image in images):
        if any(tells_an_answer(image.entry) for image in images):
            raise NotYetLabelled(len(images))
        raise NoLabelledImages(len(images))


def _labelled(source: str) -> list[Labelled]:
    path = Path(source)
    if path.is_dir():
        return labelled_in(path)
    if path.is_file():
        return [labelled_by_name(path)]
    if glob.has_magic(source):
        return [labelled_by_name(match) for match in images_matching(source)]
    raise NoImagesFound(source, "there is no such file or folder")


def _of_line(line: ManifestLine, root: Path | None) -> LabelledImage:
    path = line.resolve(line.reference, root)
    width, height = image_size(path)
    is_anomalous, reference = line.is_anomalous, line.mask
    mask = None
    if reference is not None:
        file = None if reference.only_background else line.resolve(reference.reference, root)
        mask = MaskTruth(path, width, height, names_of(reference.colors), file, reference.colors)
    elif is_anomalous is False:
        mask = MaskTruth(path, width, height, (BACKGROUND,), None)
    return LabelledImage(path, width, height, is_anomalous, mask, line.entry)


def _of_file(labelled: Labelled) -> LabelledImage:
    path = labelled.path
    width, height = image_size(path)
    mask = None
    if labelled.is_anomalous is False:
        mask = MaskTruth(path, width, height, (BACKGROUND,), None)
    elif labelled.mask is not None:
        mask = MaskTruth(path, width, height, (BACKGROUND, labelled.type), labelled.mask)
    return LabelledImage(path, width, height, labelled.is_anomalous, mask, _entry_of(labelled))


def _entry_of(labelled: Labelled) -> dict[str, Any]:
    """The line that a manifest would have for this file."""
    entry: dict[str, Any] = {SOURCE: str(labelled.path.absolute())}
    if labelled.is_anomalous is not None:
        entry["anomaly-label"] = int(labelled.is_anomalous)
        entry["anomaly-label-metadata"] = {
            "class-name": ANOMALY if labelled.is_anomalous else NORMAL,
            "type": CLASSIFICATION,
            "human-annotated": "yes",
        }
    return entry
