"""Captured pictures through a model, one at a time, and how its answers differ from those of then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection
from agent.packages.palette import BACKGROUND
from agent.workbench.errors import (
    BadManifestLine,
    ImageNotInspected,
    ImageSizeNotAllowed,
    NotAsCaptured,
    NothingReplayed,
    UnreadableImage,
)
from agent.workbench.inspection.inspector import Inspector
from agent.workbench.mask_folder import MaskFolder
from agent.workbench.replay.captured import CapturedPicture

OF_A_FILE = (BadManifestLine, UnreadableImage, ImageSizeNotAllowed, NotAsCaptured)
"""What can be wrong with one picture, or its mask, and not with the next."""
PERCENTILES = (0, 10, 50, 90, 100)
"""Of how the scores moved."""
ROUNDING = 1e-6
"""The camera client tells areas with six decimals, and scores with four."""
WHITE = 255
"""All three channels of a mask's background."""


class Change(Enum):
    """How much an answer differs from that of then; the greatest first."""

    VERDICT = "verdict"
    """Anomalous then and normal now, or the other way round."""
    FIGURES = "figures"
    """The same verdict, but another threshold, or a score, an area or a mask beyond the tolerance."""
    NOTHING = "nothing"


@dataclass(frozen=True)
class AreaChange:
    """One anomaly type that was found then, now or both; areas are fractions of the picture, 0..1."""

    name: str
    then: float
    now: float


@dataclass(frozen=True)
class MaskChange:
    """What two masks mark, of whatever type."""

    iou: float
    """Pixels that both mark / pixels that one of them marks; 1 where neither marks any."""
    differing: float
    """Fraction of the picture, 0..1, that only one of them marks."""


@dataclass(frozen=True)
class Replayed:
    """A picture that was inspected again."""

    picture: CapturedPicture
    now: Detection
    """Without its mask."""
    model: str
    """Name and version of what answered now."""
    masks: MaskChange | None
    """None where then or now no mask was answered, or that of then cannot be read."""
    mask_problem: str
    """Why it cannot be read; empty where it can."""
    mask: Path | None
    """The mask of now; None where it is not kept."""
    change: Change

    @property
    def then(self) -> Detection:
        """The answer of then, without its mask."""
        return self.picture.then

    @property
    def score_change(self) -> float:
        """Anomaly score now, less that of then."""
        return self.now.score - self.then.score

    @property
    def areas(self) -> list[AreaChange]:
        """Every anomaly type that was found then or now, in the order of the answers."""
        return area_changes(self.then, self.now)

    @property
    def is_right(self) -> bool | None:
        """Whether the verdict of now is what the label says; None without a label."""
        truth = self.picture.is_anomalous
        return None if truth is None else self.now.is_anomalous == truth


@dataclass(frozen=True)
class Unanswered:
    """A picture, or a line, that could not be replayed, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Replay:
    """All that came out of captured pictures and a model."""

    replayed: Sequence[Replayed]
    """The greatest changes first."""
    unanswered: Sequence[Unanswered]

    @property
    def changed(self) -> list[Replayed]:
        """Those that are not as they were."""
        return [one for one in self.replayed if one.change is not Change.NOTHING]

    @property
    def flipped(self) -> list[Replayed]:
        """Those with another verdict."""
        return [one for one in self.replayed if one.change is Change.VERDICT]

    @property
    def score_percentiles(self) -> dict[int, float]:
        """Percentiles of how much the scores have risen: 0 the least, 50 the median, 100 the most."""
        changes = [one.score_change for one in self.replayed]
        return {rank: float(np.percentile(changes, rank)) for rank in PERCENTILES}

    @property
    def mean_score_distance(self) -> float:
        """Mean distance of the scores of now from those of then, 0..1."""
        return float(np.mean([abs(one.score_change) for one in self.replayed]))

    @property
    def models_then(self) -> str:
        """Names and versions of the models that answered then."""
        return _listed(f"{one.picture.model} {one.picture.version}".rstrip() for one in self.replayed)

    @property
    def models_now(self) -> str:
        """Names and versions of those that answered now; an agent may get an update meanwhile."""
        return _listed(one.model for one in self.replayed)


def replay(
    inspector: Inspector,
    pictures: Sequence[CapturedPicture],
    tolerance: float,
    masks: MaskFolder | None,
    progress: Callable[[], object],
) -> Iterator[Replayed | Unanswered]:
    """Puts every picture through `inspector` and compares; the masks of changed ones are kept in `masks`.

    `tolerance`: 0..1, by how much scores, areas and the marked fraction of a picture may differ. `progress` is told
    after each picture. No more than one picture is in memory at a time.

    Raises:
        Refusal: the inspector cannot go on.
    """
    for picture in pictures:
        try:
            detection = inspector.inspect(picture.pixels)
        except (ImageNotInspected, *OF_A_FILE) as refusal:
            yield Unanswered(picture.name, str(refusal))
        else:
            compared, problem = _compared(picture, detection.mask)
            change = change_between(picture.then, detection, compared, tolerance)
            kept = None if masks is None or change is Change.NOTHING else masks.keep(detection.mask, picture.path)
            model = f"{inspector.model.name} {inspector.model.version}".rstrip()
            yield Replayed(picture, replace(detection, mask=None), model, compared, problem, kept, change)
        progress()


def outcome(answers: Sequence[Replayed | Unanswered]) -> Replay:
    """The greatest changes first, and apart from them what was not answered.

    Raises:
        NothingReplayed: there is nothing else.
    """
    replayed = [answer for answer in answers if isinstance(answer, Replayed)]
    unanswered = [answer for answer in answers if isinstance(answer, Unanswered)]
    if not replayed:
        raise NothingReplayed(len(unanswered), unanswered[0].why)
    return Replay(sorted(replayed, key=_order), unanswered)


def change_between(then: Detection, now: Detection, masks: MaskChange | None, tolerance: float) -> Change:
    """How much two answers to the same picture differ; `tolerance` as in `replay`."""
    if then.is_anomalous != now.is_anomalous:
        return Change.VERDICT
    differences = [abs(now.score - then.score), *(abs(area.now - area.then) for area in area_changes(then, now))]
    if masks is not None:
        differences.append(masks.differing)
    if now.threshold != then.threshold or max(differences) > tolerance + ROUNDING:
        return Change.FIGURES
    return Change.NOTHING


def area_changes(then: Detection, now: Detection) -> list[AreaChange]:
    """Every anomaly type that one of the answers names, background apart."""
    before, after = ({region.name: region.area for region in one.regions} for one in (then, now))
    names = [name for name in before | after if name != BACKGROUND]
    return [AreaChange(name, before.get(name, 0.0), after.get(name, 0.0)) for name in names]


def mask_change(then: NDArray[np.uint8], now: NDArray[np.uint8]) -> MaskChange:
    """What two masks (uint8, (height, width, 3), RGB, background white) of one picture mark."""
    before, after = _marked(then), _marked(now)
    either, both = int(np.count_nonzero(before | after)), int(np.count_nonzero(before & after))
    return MaskChange(both / either if either else 1.0, (either - both) / before.size)


def _marked(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a mask is not white. Channel by channel: reducing the last axis takes several times as long."""
    return np.asarray((mask[..., 0] & mask[..., 1] & mask[..., 2]) != WHITE)


def _compared(picture: CapturedPicture, now: NDArray[np.uint8] | None) -> tuple[MaskChange | None, str]:
    """How the masks differ, and why nobody can tell where that of then is lost: the rest is compared all the same."""
    try:
        then = picture.mask
    except OF_A_FILE as refusal:
        return None, str(refusal)
    return (None if then is None or now is None else mask_change(then, now)), ""


def _order(one: Replayed) -> tuple[int, float, str]:
    return list(Change).index(one.change), -abs(one.score_change), one.picture.name


def _listed(models: Iterator[str]) -> str:
    return " and ".join(dict.fromkeys(sorted(models)))
