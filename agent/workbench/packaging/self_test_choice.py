"""Which images a package proves itself with: those it was given, a choice of many, or drawn ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection
from agent.packages.manifest import ImageSize, Reference, SelfTestImage
from agent.workbench.dataset.image_paths import check_root
from agent.workbench.dataset.labelled_images import LabelledImage, labelled_images
from agent.workbench.errors import BadSelfTest
from agent.workbench.packaging.draft import Draft
from agent.workbench.packaging.writer import TOLERANCE, Answer, Evidence

MOST_TESTS = 8
"""The format's limit."""
CHOSEN_TESTS = 4
"""A usual good image and the one most like an anomaly, a usual anomaly and the least visible one."""
CHOSEN_BYTES = 48 << 20
"""Raw pixels that chosen images may take in a package: of large images two are chosen instead of four."""
MOST_LOOKED_AT = 200
"""Of more images every nth is looked at."""
CLOSE = TOLERANCE["fp16"]
"""A score this close to the threshold may fall on its other side in half precision."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

Bar = Callable[[Iterable[LabelledImage]], Iterable[LabelledImage]]
"""Shows progress while it hands on what it is given."""


@dataclass(frozen=True)
class _Answered:
    image: LabelledImage
    detection: Detection

    @property
    def distance(self) -> float:
        """From the threshold."""
        return abs(self.detection.score - self.detection.threshold)


@dataclass
class SelfTestImages:
    """The images an engineer gave; `evidence` makes the choice once the package can answer them."""

    candidates: Sequence[LabelledImage]
    """A choice is made of these."""
    prescribed: Sequence[LabelledImage]
    """All of these, whatever they are answered."""
    show_progress: Bar = iter
    _warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, images: str | None, self_test: str | None, root: Path | None, show_progress: Bar = iter
    ) -> SelfTestImages:
        """The images that the two options name; `root` is where a manifest's references lead.

        Raises:
            BadSelfTest: more images than a package holds.
            SettingOutOfRange: `root` is given, and there is no manifest.
            Refusal: a source names no image, or one that cannot be read.
        """
        check_root(root, images, self_test)
        prescribed = labelled_images(self_test, root) if self_test else []
        if len(prescribed) > MOST_TESTS:
            raise BadSelfTest(f"{self_test} holds {len(prescribed)} images; a package has at most {MOST_TESTS}")
        return cls(labelled_images(images, root) if images else [], prescribed, show_progress)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of every image given."""
        return [(image.width, image.height) for image in (*self.candidates, *self.prescribed)]

    def evidence(self, draft: Draft, size: ImageSize, answer: Answer) -> Evidence:
        """The self-test images of `draft`'s package, and what good images score, from its own answers.

        Raises:
            BadSelfTest: a prescribed image has not the camera's size.
            UnreadableImage: an image cannot be read.
        """
        self._warnings.clear()
        answered = self._answered(size, answer)
        reference = _reference(answered) if answered else draft.reference
        if self.prescribed:
            wrong = [image for image in self.prescribed if not _fits(image, size)]
            if wrong:
                raise BadSelfTest(
                    f"{wrong[0].path.name} is {wrong[0].width}x{wrong[0].height}, and the package takes "
                    f"{size.width}x{size.height}; give images as the camera sends them"
                )
            return Evidence(_named(self.prescribed), reference)
        if answered:
            return Evidence(_named(one.image for one in _chosen(answered, size)), reference)
        tests = [
            (name, pixels)
            for name, pixels in draft.tests
            if size.any_size or pixels.shape[:2] == (size.height, size.width)
        ]
        if tests:
            return Evidence(tests, reference)
        why = "the source's own images are of another size" if draft.tests else "no images were given"
        self._warnings.append(f"{why}, so the self-test consists of drawn ones: give real ones with --images")
        return Evidence(_drawn(size), reference)

    def warnings(self, tests: Sequence[SelfTestImage], threshold: float) -> list[str]:
        """What the engineer should know of the choice and of its answers, a sentence each."""
        close = [test.path for test in tests if abs(test.score - threshold) < CLOSE]
        if close:
            return [
                *self._warnings,
                f"{', '.join(close)}: the score is so close to the threshold {threshold:.4f} that half precision may "
                "answer the other way, and the self-test fail there; choose clearer images with --self-test",
            ]
        return list(self._warnings)

    def _answered(self, size: ImageSize, answer: Answer) -> list[_Answered]:
        fitting = [image for image in self.candidates if _fits(image, size)]
        if len(fitting) < len(self.candidates):
            self._warnings.append(
                f"{len(self.candidates) - len(fitting)} of {len(self.candidates)} images are not "
                f"{size.width}x{size.height} and were left out"
            )
        looked_at = fitting[:: -(-len(fitting) // MOST_LOOKED_AT)] if fitting else []
        answered = [_Answered(image, answer(image.pixels)) for image in self.show_progress(looked_at)]
        wrong = [one for one in answered if one.image.is_anomalous not in (None, one.detection.is_anomalous)]
        if wrong:
            self._warnings.append(
                f"{len(wrong)} of {len(answered)} images are answered otherwise than they are labelled "
                f"({', '.join(one.image.path.name for one in wrong[:3])}{', ...' if len(wrong) > 3 else ''}); "
                "edge-agent evaluate shows how good the model is, edge-agent tune finds a threshold"
            )
        return answered


def _fits(image: LabelledImage, size: ImageSize) -> bool:
    return size.any_size or (image.width, image.height) == (size.width, size.height)


def _chosen(answered: Sequence[_Answered], size: ImageSize) -> list[_Answered]:
    """Images of both verdicts, the usual one and the hardest that is still clear of the threshold."""
    most = CHOSEN_TESTS if CHOSEN_TESTS * size.width * size.height * 3 <= CHOSEN_BYTES else 2
    chosen: list[_Answered] = []
    for is_anomalous in (False, True):
        # Where labels and answers agree; an image that is answered wrongly proves nothing.
        of_kind = [
            one
            for one in answered
            if one.detection.is_anomalous is is_anomalous and one.image.is_anomalous in (None, is_anomalous)
        ]
        chosen += _usual_and_hardest(of_kind)[: most // 2]
    return chosen or sorted(answered, key=lambda one: -one.distance)[:most]


def _usual_and_hardest(answered: Sequence[_Answered]) -> list[_Answered]:
    by_distance = sorted(answered, key=lambda one: one.distance)
    clear = [one for one in by_distance if one.distance >= 2 * CLOSE] or by_distance[-1:]
    usual = clear[len(clear) // 2 :][:1]
    return usual + [one for one in clear[:1] if one not in usual]


def _reference(answered: Sequence[_Answered]) -> Reference:
    """Of the images labelled good, or where nothing is labelled of those answered so."""
    labelled = any(one.image.is_anomalous is not None for one in answered)
    good = [
        one.detection.score
        for one in answered
        if (one.image.is_anomalous is False if labelled else not one.detection.is_anomalous)
    ]
    if not good:
        return Reference()
    values = np.quantile(good, QUANTILES)
    return Reference({f"{at:g}": round(float(value), 4) for at, value in zip(QUANTILES, values, strict=True)})


def _named(images: Iterable[LabelledImage]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Each with a name of its own that a package's file may have."""
    return [
        (f"{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', image.path.stem)[:80].strip('.-') or 'image'}", image.pixels)
        for number, image in enumerate(images, start=1)
    ]


def _drawn(size: ImageSize) -> list[tuple[str, NDArray[np.uint8]]]:
    """Two pictures that no camera took: smooth shades with noise, and bright bars. Always the same ones."""
    rng = np.random.default_rng(0)
    rows = np.linspace(40, 200, size.height)[:, None, None]
    columns = np.linspace(-30, 30, size.width)[None, :, None]
    shades = rows + columns + rng.normal(0, 6, (size.height, size.width, 3))
    bars = np.where((np.arange(size.width) // max(1, size.width // 12)) % 2, 220, 30)[None, :, None]
    return [
        ("drawn-shades", np.clip(shades, 0, 255).astype(np.uint8)),
        ("drawn-bars", np.broadcast_to(bars, (size.height, size.width, 3)).astype(np.uint8)),
    ]
