"""The self-test of a package: the model answers its own images as expected, or it does not serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.errors import SelfTestFailed
from agent.packages.manifest import SelfTestImage
from agent.packages.package import Package

Precision = Literal["fp32", "fp16", "int8"]
DEFAULT_TOLERANCE = 0.05
"""Of score and areas, in a precision the package says nothing about."""


@dataclass(frozen=True)
class SelfTestAnswer:
    """What a self-test compares: score 0..1, verdict, fraction of the pixels per label."""

    score: float
    is_anomalous: bool
    areas: Mapping[str, float]


def run_self_test(
    package: Package, precision: Precision, answer: Callable[[NDArray[np.uint8]], SelfTestAnswer]
) -> list[tuple[SelfTestImage, SelfTestAnswer]]:
    """Puts every self-test image through `answer` (uint8, (height, width, 3), RGB) and compares.

    Returns each image with the model's answer, for people to read.

    Raises:
        SelfTestFailed: an answer is off by more than the tolerance of the precision.
        BadPackageFile: a self-test image cannot be read.
    """
    answers = []
    for test in package.manifest.self_test:
        got = answer(package.self_test_pixels(test))
        compare(test, got, test.tolerance.get(precision, DEFAULT_TOLERANCE))
        answers.append((test, got))
    return answers


def compare(test: SelfTestImage, got: SelfTestAnswer, tolerance: float) -> None:
    """Raises SelfTestFailed where `got` is not what `test` expects, within `tolerance` (of score and areas, 0..1)."""
    # `not (<=)` and not `>`: a NaN must fail.
    if not abs(got.score - test.score) <= tolerance:
        raise SelfTestFailed(test.path, f"a score within {tolerance} of", test.score, got.score)
    for label, area in test.areas.items():
        answered = got.areas.get(label, 0.0)
        if not abs(answered - area) <= tolerance:
            raise SelfTestFailed(test.path, f"an area of '{label}' within {tolerance} of", area, answered)
    if got.is_anomalous != test.is_anomalous:
        raise SelfTestFailed(test.path, "the verdict", _verdict(test.is_anomalous), _verdict(got.is_anomalous))


def _verdict(is_anomalous: bool) -> str:
    return "anomalous" if is_anomalous else "normal"
