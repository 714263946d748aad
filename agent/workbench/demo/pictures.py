"""The demo's pictures, drawn or the user's, and what is true of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from agent.workbench.dataset.labelled_folder import SETS
from agent.workbench.image_file import SUFFIXES
from agent.workbench.part_pictures import Defect, draw_part

GOOD = "good"
GOOD_PICTURES = 30
GOOD_TEST_PICTURES = 8
TEST_PICTURES_PER_DEFECT = 4
FIRST_GOOD_SEED, FIRST_TEST_SEED = 300, 1000
"""Specimens that are fitted on and specimens that are inspected are different ones."""
MEANS_GOOD = frozenset({"good", "normal", "ok"})
MEANS_BAD = frozenset({"anomaly", "anomalous", "bad", "defect", "defective", *(kind.value for kind in Defect)})
"""First words of file names in `test/` that tell the truth; a folder below `test/` tells it by whatever name it has."""


def draw_pictures(folder: Path, progress: Callable[[int, int], None]) -> None:
    """Draws good parts into `normal/`, and other specimens, good and with each kind of defect, into `test/`.

    `progress` is told how many are done, of how many.
    """
    drawings: list[tuple[str, int, Defect | None]] = [
        (f"normal/part-{number:02}.png", FIRST_GOOD_SEED + number, None) for number in range(1, GOOD_PICTURES + 1)
    ]
    kinds: list[Defect | None] = [None] * GOOD_TEST_PICTURES
    kinds += [kind for kind in Defect for _ in range(TEST_PICTURES_PER_DEFECT)]
    for number, kind in enumerate(kinds, 1):
        name = kind.value if kind else GOOD
        drawings.append((f"test/{name}-{number:02}.png", FIRST_TEST_SEED + number, kind))
    for name in ("normal", "test"):
        (folder / name).mkdir(parents=True)
    for done, (name, seed, kind) in enumerate(drawings, 1):
        # Compressed little: a demo is waited for.
        Image.fromarray(draw_part(seed, kind).pixels).save(folder / name, compress_level=1)
        progress(done, len(drawings))


def folders_to_inspect(images: Path) -> list[Path]:
    """The folders with what is to be inspected: `test/` and those below it, else the good pictures' own."""
    if (images / "test").is_dir():
        pictures = (path for path in (images / "test").rglob("*") if path.suffix.lower() in SUFFIXES)
        return sorted({path.parent for path in pictures})
    return [images / "normal" if (images / "normal").is_dir() else images]


def is_for_test(picture: Path, images: Path) -> bool:
    """Whether it lies below `test/`: all others are what the model is made of."""
    return picture.relative_to(images).parts[0] == "test"


def truth_of(picture: Path, images: Path) -> str | None:
    """What is known of a picture: `good`, the kind of its defect, or None.

    The good pictures are good; below `test/` the folder tells, or the first word of the file's name.
    """
    if not is_for_test(picture, images):
        return GOOD
    parts = picture.relative_to(images).parts
    in_folder = len(parts) > 2
    words = (word for word in re.findall("[a-z]+", picture.stem.lower()) if word not in SETS)
    word = parts[1] if in_folder else next(words, "")
    if word.lower() in MEANS_GOOD:
        return GOOD
    return word if in_folder or word in MEANS_BAD else None
