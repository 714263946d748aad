"""Where the good images are: a folder, a folder with `normal/`, a glob, or a manifest."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from agent.workbench.dataset.ground_truth import read_lines, tells_an_answer
from agent.workbench.dataset.image_paths import images_in, images_matching, is_image
from agent.workbench.errors import ImagesDifferInSize, NoImagesFound, NotYetLabelled
from agent.workbench.image_file import SUFFIXES, image_size, read_image

NAMES_THAT_SAY_NOTHING = frozenset({"normal", "good", "train"})
"""Folders that are not named for the part; the folder above them is."""


@dataclass(frozen=True)
class GoodImage:
    """A photograph of a good part. Its pixels are decoded when asked for and not kept: a set may outgrow the memory."""

    path: Path
    width: int
    height: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8, (height, width, 3), RGB. Raises UnreadableImage."""
        return read_image(self.path)


class PixelsOf(Sequence[NDArray[np.uint8]]):
    """The pixels of images, decoded one at a time as they are asked for."""

    def __init__(self, images: Sequence[GoodImage]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> PixelsOf: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | PixelsOf:
        if isinstance(index, slice):
            return PixelsOf(self._images[index])
        return self._images[index].pixels


def good_images(source: str, root: Path | None = None, any_size: bool = False) -> list[GoodImage]:
    """The good images that `source` names, sorted by path.

    `source` is a folder (its own images, or those in its `normal/` where there is one), a glob, one image, or a
    manifest in JSON Lines, of which the entries of class `normal` count. `root` is where a manifest's references lead.

    Raises:
        NoImagesFound: nothing is there, or no image is.
        NotYetLabelled: the manifest tells what a model answered, and nobody has labelled it.
        BadManifestLine: a line is no JSON object, or its image is not found.
        UnreadableImage, ImageSizeNotAllowed: an image cannot be used.
        ImagesDifferInSize: and `any_size` is False.
    """
    paths = sorted(set(_paths(source, root)))
    images = [GoodImage(path, *image_size(path)) for path in paths]
    sizes = Counter((image.width, image.height) for image in images)
    if len(sizes) > 1 and not any_size:
        usual = sizes.most_common(1)[0][0]
        others = [(image.path, (image.width, image.height)) for image in images]
        raise ImagesDifferInSize(usual, [(path, size) for path, size in others if size != usual])
    return images


def name_of(source: str) -> str:
    """A model name from a source's name: letters, digits, dots, dashes and underscores."""
    path = Path(source)
    while glob.has_magic(path.name):
        path = path.parent
    if path.is_file():
        name = path.absolute().parent.name if path.suffix.lower() in SUFFIXES else path.stem
    else:
        path = path.resolve()
        name = path.parent.name if path.name in NAMES_THAT_SAY_NOTHING else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "model"


def _paths(source: str, root: Path | None) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return images_in(path / "normal" if (path / "normal").is_dir() else path)
    if path.is_file():
        return [path] if is_image(path) else _normal_images_of_manifest(path, root)
    if glob.has_magic(source):
        return images_matching(source)
    raise NoImagesFound(source, "there is no such file or folder")


def _normal_images_of_manifest(manifest: Path, root: Path | None) -> list[Path]:
    every = read_lines(manifest)
    lines = [line for line in every if line.is_anomalous is False]
    if not lines:
        if all(line.is_anomalous is None for line in every) and any(tells_an_answer(line.entry) for line in every):
            raise NotYetLabelled(len(every))
        raise NoImagesFound(str(manifest), "no entry of the manifest has the class-name 'normal'")
    return [line.resolve(line.reference, root) for line in lines]
