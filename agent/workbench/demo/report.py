"""The demo's answers beside the truth: rows for a table, and one picture of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from agent.workbench.contact_sheet import Tile, contact_sheet
from agent.workbench.demo.pictures import GOOD, is_for_test, truth_of

COLUMNS = 4


@dataclass(frozen=True)
class Inspected:
    """An answer beside the truth."""

    picture: Path
    truth: str | None
    """`good`, the kind of defect, or None where nobody knows."""
    is_anomalous: bool
    score: float
    threshold: float
    area: float
    """Fraction of the picture that shows an anomaly."""
    overlay: Path
    was_fitted: bool = False
    """The model was made of this very picture: that it calls it normal says little."""

    @property
    def is_right(self) -> bool | None:
        """Whether the verdict agrees with the truth; None where that is not known."""
        return None if self.truth is None else self.is_anomalous == (self.truth != GOOD)

    @property
    def verdict(self) -> str:
        return "anomalous" if self.is_anomalous else "normal"


def read_answers(json_lines: Path, images: Path) -> list[Inspected]:
    """The sample client's answers, in its order, with the truth beside them. `images`: the folder of all pictures."""
    inspected = []
    for line in json_lines.read_text().splitlines():
        record = json.loads(line)
        picture = Path(record["image"]).resolve()
        areas = (kind["total_percentage_area"] for kind in record["anomalies"] if kind["name"] != "background")
        inspected.append(
            Inspected(
                picture,
                truth_of(picture, images),
                record["is_anomalous"],
                record["anomaly_score"],
                record["anomaly_threshold"],
                sum(areas),
                Path(record["overlay"]),
                was_fitted=not is_for_test(picture, images),
            )
        )
    return inspected


def summary(inspected: Sequence[Inspected]) -> str:
    """How many verdicts are right, where that is known."""
    known = [one for one in inspected if one.is_right is not None]
    if not known:
        return f"{len(inspected)} pictures inspected, {sum(one.is_anomalous for one in inspected)} of them anomalous"
    right = f"{sum(one.is_right is True for one in known)} of {len(known)} verdicts are right"
    if any(one.was_fitted for one in known):
        return f"{right}, but of pictures that the model was made of: put others into test/"
    return right


def write_sheet(inspected: Sequence[Inspected], sheet: Path) -> None:
    """One picture with every overlay, its truth and its verdict."""
    tiles = []
    for one in inspected:
        truth = f"truth: {one.truth}, " if one.truth else ""
        caption = f"{one.picture.name}\n{truth}verdict: {one.verdict} ({one.score:.2f})"
        with Image.open(one.overlay) as overlay:
            tiles.append(Tile(overlay.convert("RGB"), caption, one.is_right))
    contact_sheet(tiles, COLUMNS, summary(inspected)).save(sheet)
