"""Where the good images are: a folder, a folder with `normal/`, a glob, or a manifest."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.workbench.errors import BadManifestLine, ImagesDifferInSize, NoImagesFound
from agent.workbench.image_file import SUFFIXES, image_size, read_image

CLASSIFICATION = "groundtruth/image-classification"
METADATA = "-metadata"
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
        folder = path / "normal" if (path / "normal").is_dir() else path
        return _images_among(folder.iterdir(), str(folder), "the folder holds no PNG, JPEG, BMP or TIFF file")
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else _normal_images_of_manifest(path, root)
    if glob.has_magic(source):
        # Path.glob takes no absolute pattern.
        matches = (Path(match) for match in glob.iglob(source, recursive=True))  # noqa: PTH207
        return _images_among(matches, source, "the glob matches no PNG, JPEG, BMP or TIFF file")
    raise NoImagesFound(source, "there is no such file or folder")


def _images_among(paths: Iterator[Path], source: str, if_none: str) -> list[Path]:
    images = [path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not images:
        raise NoImagesFound(source, if_none)
    return images


def _normal_images_of_manifest(manifest: Path, root: Path | None) -> list[Path]:
    paths = []
    try:
        lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise NoImagesFound(str(manifest), "the file is neither an image nor a manifest in UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise BadManifestLine(manifest, number, f"this is no JSON ({error})") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("source-ref"), str):
            raise BadManifestLine(manifest, number, "there is no 'source-ref' that names an image")
        if _is_normal(entry):
            paths.append(_resolve(entry["source-ref"], manifest, number, root))
    if not paths:
        raise NoImagesFound(str(manifest), "no entry of the manifest has the class-name 'normal'")
    return paths


def _is_normal(entry: dict[str, Any]) -> bool:
    """Whether a classification label of any name says `normal`; other spellings count as unlabelled."""
    return any(
        key.endswith(METADATA)
        and key.removesuffix(METADATA) in entry
        and isinstance(value, dict)
        and value.get("type", CLASSIFICATION) == CLASSIFICATION
        and value.get("class-name") == "normal"
        for key, value in entry.items()
    )


def _resolve(reference: str, manifest: Path, line: int, root: Path | None) -> Path:
    """The local file behind a reference: relative, absolute or `s3://`.

    With `root`, the reference is looked for below it: whole, and then without its first folders, one after the other,
    so that it does not matter how much of a bucket's tree was copied.
    """
    remote = reference.startswith("s3://")
    path = PurePosixPath(reference.removeprefix("s3://"))
    candidates = [] if remote else [manifest.parent / path]  # pathlib lets an absolute path stand for itself
    if root is not None:
        parts = [part for part in path.parts if part not in ("/", "..")]
        candidates += [root.joinpath(*parts[start:]) for start in range(len(parts))]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is not None:
        return found
    if root is not None:
        raise BadManifestLine(manifest, line, f"'{reference}' is not found, neither as it stands nor below {root}")
    why = f"'{reference}' is in S3" if remote else f"there is no file {candidates[0]}"
    raise BadManifestLine(manifest, line, f"{why}. Give --root FOLDER, the folder that holds the images here")
