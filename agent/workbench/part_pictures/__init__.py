"""Photograph-like pictures of a machined part, good or with one defect, with the truth where it is.

For demonstrations and tests where no photographs may be taken along. Everything is computed: the part's design is
always the same; grain, pose, light, belt and sensor noise are another specimen's and another moment's for each seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from agent.workbench.part_pictures.defects import Defect, damaged
from agent.workbench.part_pictures.part import machined_part
from agent.workbench.part_pictures.photograph import Scene, photograph

__all__ = ["Defect", "PartPicture", "draw_part"]


@dataclass(frozen=True)
class PartPicture:
    """A picture and what is true of it."""

    pixels: NDArray[np.uint8]  # (height, width, 3), RGB
    defect: str | None  # the kind of defect, None for a good part
    mask: NDArray[np.bool_]  # (height, width), True where the defect shows


def draw_part(seed: int, defect: Defect | None = None, width: int = 640, height: int = 480) -> PartPicture:
    """The picture that belongs to `seed`: the same arguments give the same pixels.

    With a defect it is the same specimen in the same pose and light: pictures of one seed differ by the defect alone.
    """
    scale = min(width / 640, height / 480)
    # Streams of their own, so that a defect takes no random number away from the scene.
    for_part, for_scene, for_defect, for_sensor = (np.random.default_rng([seed, stream]) for stream in range(4))
    part = machined_part(scale, for_part)
    if defect is not None:
        part = damaged(part, defect, for_defect)
    pixels, strength = photograph(part, Scene.drawn(for_scene), width, height, for_sensor)
    return PartPicture(pixels, defect.value if defect else None, _visible(strength, scale))


def _visible(strength: NDArray[np.float32], scale: float) -> NDArray[np.bool_]:
    """The defect map as a mask, with the few pixels around it that lens blur and the defect's own edges reach."""
    if not strength.any():
        return np.zeros(strength.shape, np.bool_)
    reach = 2 * round(2 * scale) + 1
    marked = Image.fromarray(((strength > 0.1) * 255).astype(np.uint8))
    return np.asarray(marked.filter(ImageFilter.MaxFilter(max(3, reach)))) > 0
