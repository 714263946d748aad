"""Numbers as options of `edge-agent package` take them."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """A number for an option. Raises ArgumentTypeError: it is none, or no finite one."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return number


def above_zero(text: str) -> float:
    """As `finite`. Raises ArgumentTypeError also where it is not above 0."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def score(text: str) -> float:
    """As `finite`. Raises ArgumentTypeError also where it is outside 0..1."""
    number = finite(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no score, 0 to 1")
    return number
