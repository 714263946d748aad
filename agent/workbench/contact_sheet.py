"""Many pictures on one sheet: what was found in each, and whether that was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

TILE_WIDTH = 320
BORDER = 5
GAP = 12
CAPTION_SIZE, TITLE_SIZE = 15, 24
LINE_HEIGHT = 20

PAPER, INK = "#F6F5F2", "#1C1C1C"
RIGHT, WRONG, UNKNOWN = "#1E7B34", "#C62828", "#8A8A86"


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet."""

    image: Image.Image
    caption: str  # may have several lines
    is_right: bool | None  # green border and tick, or red border and cross; grey and no mark where nobody knows


def contact_sheet(tiles: Sequence[Tile], columns: int, title: str, tile_width: int = TILE_WIDTH) -> Image.Image:
    """The tiles in rows from the top left, each `tile_width` wide and as high as its row needs, below a title."""
    if not tiles or columns < 1:
        raise ValueError("a contact sheet needs at least one tile and one column")
    drawn = [_drawn(tile, tile_width) for tile in tiles]
    rows = [drawn[first : first + columns] for first in range(0, len(drawn), columns)]
    title_lines = _wrapped(title, TITLE_SIZE, columns * (tile_width + GAP) - GAP)
    header = GAP + len(title_lines) * (TITLE_SIZE + 8)
    width = GAP + columns * (tile_width + GAP)
    height = header + GAP + sum(max(tile.height for tile in row) + GAP for row in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate(title_lines):
        draw.text((GAP, GAP + line * (TITLE_SIZE + 8)), text, fill=INK, font=ImageFont.load_default(size=TITLE_SIZE))
    top = header + GAP
    for row in rows:
        for column, tile in enumerate(row):
            sheet.paste(tile, (GAP + column * (tile_width + GAP), top))
        top += max(tile.height for tile in row) + GAP
    return sheet


def _drawn(tile: Tile, width: int) -> Image.Image:
    """The picture in its border, the mark and the caption below it."""
    colour = {True: RIGHT, False: WRONG, None: UNKNOWN}[tile.is_right]
    inner = width - 2 * BORDER
    shown = tile.image.convert("RGB")
    shown = shown.resize((inner, max(1, round(shown.height * inner / shown.width))), Image.Resampling.LANCZOS)
    mark_width = 0 if tile.is_right is None else CAPTION_SIZE + 8
    lines = [
        wrapped for line in tile.caption.splitlines() for wrapped in _wrapped(line, CAPTION_SIZE, inner - mark_width)
    ]
    framed_height = shown.height + 2 * BORDER
    drawn = Image.new("RGB", (width, framed_height + 6 + LINE_HEIGHT * max(1, len(lines))), PAPER)
    drawn.paste(colour, (0, 0, width, framed_height))
    drawn.paste(shown, (BORDER, BORDER))
    draw = ImageDraw.Draw(drawn)
    if tile.is_right is not None:
        _mark(draw, BORDER, framed_height + 6, tile.is_right)
    for line, text in enumerate(lines):
        place = (BORDER + mark_width, framed_height + 5 + line * LINE_HEIGHT)
        draw.text(place, text, fill=INK, font=ImageFont.load_default(size=CAPTION_SIZE))
    return drawn


def _mark(draw: ImageDraw.ImageDraw, left: int, top: int, is_right: bool) -> None:
    """A tick or a cross: colour alone does not tell everybody."""
    size = CAPTION_SIZE
    if is_right:
        tick = [(left, top + size * 0.55), (left + size * 0.35, top + size * 0.9), (left + size, top + size * 0.1)]
        draw.line(tick, fill=RIGHT, width=3, joint="curve")
    else:
        draw.line([left, top + 1, left + size, top + size + 1], fill=WRONG, width=3)
        draw.line([left, top + size + 1, left + size, top + 1], fill=WRONG, width=3)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines that fit, broken between words; a single word that is too long ends in an ellipsis."""
    font = ImageFont.load_default(size=size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            while font.getlength(word) > width and len(word) > 4:
                word = word.removesuffix("...")[:-1] + "..."
            lines.append(word)
    return lines
