"""One sheet of many judged pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from agent.workbench.contact_sheet import BORDER, GAP, RIGHT, TILE_WIDTH, WRONG, Tile, contact_sheet


def a_tile(caption: str = "part 1", is_right: bool = True, size: tuple[int, int] = (640, 480)) -> Tile:
    return Tile(Image.new("RGB", size, "#4060A0"), caption, is_right)


def test_a_sheet_is_as_wide_as_its_columns_and_grows_with_its_rows() -> None:
    one_row = contact_sheet([a_tile()] * 3, columns=3, title="three")
    two_rows = contact_sheet([a_tile()] * 4, columns=3, title="three")
    assert one_row.width == two_rows.width == GAP + 3 * (TILE_WIDTH + GAP)
    assert two_rows.height > one_row.height + TILE_WIDTH * 480 // 640 - BORDER


def test_right_and_wrong_verdicts_have_borders_of_their_own_colour() -> None:
    sheet = np.asarray(contact_sheet([a_tile(is_right=True), a_tile(is_right=False)], columns=2, title="two"))
    left, right = sheet[:, : GAP + TILE_WIDTH], sheet[:, GAP + TILE_WIDTH + GAP :]

    def area(pixels: np.ndarray, colour: str) -> int:
        return int((pixels == ImageColor.getrgb(colour)).all(axis=2).sum())

    border_area = 2 * BORDER * TILE_WIDTH
    assert area(left, RIGHT) > border_area
    assert area(left, WRONG) == 0
    assert area(right, WRONG) > border_area
    assert area(right, RIGHT) == 0


def test_a_long_caption_makes_its_row_higher_and_stays_inside_its_tile() -> None:
    short = contact_sheet([a_tile("part 1")], columns=1, title="one")
    long = contact_sheet([a_tile("a caption that needs several lines " * 4)], columns=1, title="one")
    assert long.height > short.height
    margin = np.asarray(long)[:, -GAP:]
    assert (margin == margin[0, 0]).all()


def test_a_word_wider_than_a_tile_is_cut() -> None:
    sheet = contact_sheet([a_tile("x" * 400)], columns=1, title="y" * 400)
    margin = np.asarray(sheet)[:, -GAP + 2 :]
    assert (margin == margin[0, 0]).all()


def test_pictures_of_different_shapes_share_a_sheet() -> None:
    sheet = contact_sheet([a_tile(size=(640, 480)), a_tile(size=(100, 300))], columns=2, title="two")
    assert sheet.height > TILE_WIDTH * 2.5


@pytest.mark.parametrize(("tiles", "columns"), [([], 3), ([a_tile()], 0)])
def test_nothing_to_show_is_refused(tiles: list[Tile], columns: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet(tiles, columns, "none")
