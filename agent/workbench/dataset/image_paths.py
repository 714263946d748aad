"""Image files of a folder or a glob."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Set
from pathlib import Path

from agent.workbench.errors import NoImagesFound, SettingOutOfRange
from agent.workbench.image_file import SUFFIXES

MASK_ENDINGS = ("_mask", "-mask")
"""What a mask's name may have after its image's."""


def images_in(folder: Path) -> list[Path]:
    """The image files that lie in `folder` itself, sorted. Raises NoImagesFound."""
    return _images_among(folder.iterdir(), str(folder), "the folder holds no PNG, JPEG, BMP or TIFF file")


def images_matching(pattern: str) -> list[Path]:
    """The image files that a glob matches, `**` included, sorted. Raises NoImagesFound."""
    # Path.glob takes no absolute pattern.
    matches = (Path(match) for match in glob.iglob(pattern, recursive=True))  # noqa: PTH207
    return _images_among(matches, pattern, "the glob matches no PNG, JPEG, BMP or TIFF file")


def check_root(root: Path | None, *sources: str | None) -> None:
    """Raises SettingOutOfRange: `root` was given, and none of `sources` is a manifest, whose references it is for."""
    manifests = [source for source in sources if source and Path(source).is_file() and not is_image(Path(source))]
    if root is not None and not manifests:
        raise SettingOutOfRange("--root", root, "left out: only a manifest has references")


def is_image(path: Path) -> bool:
    """Whether it is a file that is called like an image."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _images_among(paths: Iterable[Path], source: str, if_none: str) -> list[Path]:
    images = {path for path in paths if is_image(path)}
    if not images:
        raise NoImagesFound(source, if_none)
    return sorted(images - _masks_beside(images))


def _masks_beside(images: Set[Path]) -> set[Path]:
    """Those that are called like another of them and end in -mask or _mask, as the camera client keeps them."""
    stems = {path.with_suffix("") for path in images}
    return {
        path
        for path in images
        for ending in MASK_ENDINGS
        if path.stem.endswith(ending) and path.with_name(path.stem.removesuffix(ending)) in stems
    }
