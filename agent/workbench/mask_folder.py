"""Masks of answers, kept as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class MaskFolder:
    """A PNG for each mask, called after its image; images of one name from two folders get a number."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made with the first mask."""
        self._folder = folder
        self._taken: set[str] = set()

    def keep(self, mask: NDArray[np.uint8] | None, image: Path) -> Path | None:
        """Where `mask` (uint8, (height, width, 3), RGB) is kept from now on; None where there is none.

        Raises:
            OSError: it cannot be written.
        """
        if mask is None:
            return None
        file = self._folder / f"{self._free_name(image.stem)}.png"
        self._folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(file, compress_level=1)  # few colours: small all the same
        return file

    def _free_name(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        return name
