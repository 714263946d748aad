"""The answers to look at first: wrong ones, the most certain of them first, then those that were close calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from agent.workbench.contact_sheet import TILE_WIDTH, Tile, contact_sheet
from agent.workbench.evaluation.evaluation import Answer, Evaluation
from agent.workbench.image_file import read_image
from agent.workbench.overlay import overlay

COLUMNS = 4
SHOWN = 12


def worst_first(answers: Sequence[Answer]) -> list[Answer]:
    """Wrong verdicts, the farthest from the threshold first, then right ones, the nearest first."""
    return sorted(answers, key=_order)


def mistakes_sheet(evaluation: Evaluation, title: str) -> Image.Image:
    """The first of them on one sheet: what the model found tinted, what the truth marks in an amber line."""
    shown = worst_first(evaluation.answers)[:SHOWN]
    heading = f"{title}: {_what_is_shown(evaluation, len(shown))}"
    if any(answer.image.mask is not None and answer.image.mask.file is not None for answer in shown):
        heading += " (amber line: the truth; tinted: found)"
    return contact_sheet([_tile(answer) for answer in shown], min(COLUMNS, len(shown)), heading)


def kind_of(answer: Answer) -> str:
    """In a word: `false alarm`, `missed` or `right`."""
    if answer.is_right:
        return "right"
    return "false alarm" if answer.detection.is_anomalous else "missed"


def _order(answer: Answer) -> tuple[bool, float, str]:
    distance = abs(answer.detection.score - answer.detection.threshold)
    return answer.is_right, distance if answer.is_right else -distance, str(answer.image.path)


def _what_is_shown(evaluation: Evaluation, shown: int) -> str:
    wrong = sum(not answer.is_right for answer in evaluation.answers)
    counted = f"{wrong or 'no'} mistake{'' if wrong == 1 else 's'} in {len(evaluation.answers)} images"
    if wrong > shown:
        return f"{counted}, the worst {shown}"
    return counted if wrong == shown else f"{counted}; the closest calls{' follow' if wrong else ''}"


def _tile(answer: Answer) -> Tile:
    image, detection = answer.image, answer.detection
    mask = None if answer.mask is None else read_image(answer.mask)
    truth = None if image.mask is None else np.asarray(image.mask.labels != 0)
    comparison = ">=" if detection.score >= detection.threshold else "<"
    caption = f"{image.path.name}\n{kind_of(answer)}: score {detection.score:.4f} {comparison} {detection.threshold:g}"
    return Tile(overlay(image.pixels, mask, truth, TILE_WIDTH), caption, answer.is_right)
