"""Labels that folders and file names tell.

Three layouts of a folder are known:

    normal/ and anomaly/, and masks/ with a mask for some of them       (also good/, ok/ and bad/, defect/, ...)
    good/ and a folder for each kind of defect, ground_truth/ beside    (MVTec AD and those that follow it; `test/`)
    images whose names tell: normal-1.jpg, test-anomaly-7.jpg
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.workbench.dataset.image_paths import MASK_ENDINGS, images_in, is_image

ANOMALY_TYPE = "anomaly"
"""What an anomaly is called whose kind nobody tells."""
GOOD_FOLDERS = frozenset({"normal", "good", "ok"})
BAD_FOLDERS = frozenset({"anomaly", "anomalous", "bad", "defect", "defective", "nok", "ng"})
GOOD_WORDS = frozenset({"normal", "good"})
BAD_WORDS = frozenset({"anomaly", "anomalous", "bad", "defect", "defective"})
SETS = frozenset({"test", "train", "training", "validation"})
"""First words of file names that tell which set an image is of, and nothing of the image."""
MASK_FOLDERS = ("masks", "mask-images", "ground_truth")
NO_TYPES = frozenset({*MASK_FOLDERS, "train", "test", "pictures"})
"""Folders beside good/ that are no kind of defect; in `pictures` are those that the camera client keeps."""


@dataclass(frozen=True)
class Labelled:
    """An image file and what its place tells."""

    path: Path
    is_anomalous: bool | None
    """None: nothing tells."""
    type: str = ANOMALY_TYPE
    """Of the anomaly."""
    mask: Path | None = None
    """Marks the anomaly's pixels."""


def labelled_in(folder: Path) -> list[Labelled]:
    """The images of a folder in one of the layouts. Raises NoImagesFound."""
    layout = folder / "test" if not _kinds(folder) and _kinds(folder / "test") else folder
    kinds = _kinds(layout)
    if not kinds:
        return [labelled_by_name(path) for path in images_in(folder)]
    return [
        Labelled(path, kind.is_anomalous, kind.type, _mask_of(path, layout, kind.type) if kind.is_anomalous else None)
        for kind in kinds
        for path in images_in(kind.folder)
    ]


def labelled_by_name(path: Path) -> Labelled:
    """What the first word of a file's name tells, else the folder it lies in."""
    words = re.findall("[a-z]+", path.stem.lower())
    word = next((word for word in words if word not in SETS), "")
    folder = path.parent.name.lower()
    if word in GOOD_WORDS | BAD_WORDS:
        return Labelled(path, word in BAD_WORDS)
    return Labelled(path, None if folder not in GOOD_FOLDERS | BAD_FOLDERS else folder in BAD_FOLDERS)


@dataclass(frozen=True)
class _Kind:
    """A folder whose images are all of one kind."""

    folder: Path
    is_anomalous: bool
    type: str = ANOMALY_TYPE


def _kinds(folder: Path) -> list[_Kind]:
    """The folders in `folder` that tell; none where no folder is called good or bad."""
    if not folder.is_dir():
        return []
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_images(path)]
    good = [_Kind(path, False) for path in below if path.name.lower() in GOOD_FOLDERS]
    bad = [_Kind(path, True) for path in below if path.name.lower() in BAD_FOLDERS]
    if good and not bad:
        bad = [_Kind(path, True, path.name) for path in below if path.name.lower() not in GOOD_FOLDERS | NO_TYPES]
    return good + bad


def _mask_of(image: Path, layout: Path, kind: str) -> Path | None:
    """The mask that has the image's name: below the layout or beside it, in a folder for its kind or not."""
    places = [above / name for above in (layout, layout.parent) for name in MASK_FOLDERS]
    candidates = (
        folder / f"{image.stem}{ending}.png"
        for place in places
        for folder in (place / image.parent.name, place / kind, place)
        for ending in ("", *MASK_ENDINGS)
    )
    return next((path for path in candidates if path.is_file()), None)


def _holds_images(folder: Path) -> bool:
    return any(is_image(path) for path in folder.iterdir())
