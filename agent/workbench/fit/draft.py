"""A fitted model as a draft of a package, and the images it proves itself with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from agent.packages.manifest import Decision, GraphPreprocessing, ImageSize, Outputs, Reference
from agent.workbench.dataset.good_images import GoodImage
from agent.workbench.errors import ModelBlindToDefects
from agent.workbench.fit.method import FittedModel
from agent.workbench.packaging.draft import MODEL_FILE, Draft, background_and
from agent.workbench.packaging.writer import Answer, Evidence

ANOMALY = "anomaly"
"""The one anomaly type: good images tell that something is wrong, not what."""
THRESHOLD = 0.5
"""The graph calibrates its own score and map to this."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
DEFECT_SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Diameters tried for the drawn defect, as shares of the image's shorter side."""


def draft_of(fitted: FittedModel, images: Sequence[GoodImage], source: str, any_size: bool) -> Draft:
    """The package of `fitted` and of the `images` it was fitted on.

    `source` tells in a sentence how it was made; `any_size`: whether images of another size than the good ones' are
    answered.
    """
    (width, height), _ = Counter((image.width, image.height) for image in images).most_common(1)[0]
    return Draft(
        task="segmentation",
        preprocessing=GraphPreprocessing(tensor="image"),
        outputs=Outputs(score="score", anomaly_map="anomaly_map"),
        decision=Decision(threshold=THRESHOLD, pixel_threshold=THRESHOLD),
        source=source,
        files={MODEL_FILE: fitted.model.SerializeToString(deterministic=True)},
        labels=background_and(ANOMALY),
        image=ImageSize(width=width, height=height, any_size=any_size),
        training_images=len(images),
    )


def evidence_of(fitted: FittedModel, images: Sequence[GoodImage], answer: Answer) -> Evidence:
    """Two good images, in the order `fitted` has them, and one with a defect drawn onto it; the good images' scores.

    Raises ModelBlindToDefects: no drawn defect reaches the threshold.
    """
    best_first = np.argsort(fitted.raw_scores, kind="stable")
    usual = images[best_first[len(images) // 2]].pixels
    quantiles = np.quantile(fitted.scores, QUANTILES)
    return Evidence(
        tests=[
            ("good-usual", usual),
            ("good-best", images[best_first[0]].pixels),
            ("drawn-defect", _anomalous(usual, answer)),
        ],
        reference=Reference(
            {f"{quantile:g}": round(float(score), 4) for quantile, score in zip(QUANTILES, quantiles, strict=True)}
        ),
    )


def _anomalous(good: NDArray[np.uint8], answer: Answer) -> NDArray[np.uint8]:
    """`good` with the smallest drawn defect that the model finds."""
    for share in DEFECT_SHARES:
        pixels = with_drawn_defect(good, share)
        if answer(pixels).is_anomalous:
            return pixels
    raise ModelBlindToDefects


def with_drawn_defect(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A copy of `pixels` with a striped disc in its middle, `share` of the shorter side wide.

    The stripes alternate between the colour farthest from that of the place and its complement: whatever the part looks
    like, the disc differs from it in colour, brightness and texture.
    """
    height, width = pixels.shape[:2]
    diameter = max(8, round(min(height, width) * share))
    top, left = (height - diameter) // 2, (width - diameter) // 2
    place = np.median(pixels[top : top + diameter, left : left + diameter], axis=(0, 1))
    farthest = tuple(0 if value >= 128 else 255 for value in place)
    complement = tuple(255 - value for value in farthest)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((left, top, left + diameter, top + diameter), fill=farthest)
    for row in range(top + diameter // 4, top + diameter, diameter // 4):
        draw.line((left, row, left + diameter, row), fill=complement, width=max(1, diameter // 12))
    return np.asarray(picture)
