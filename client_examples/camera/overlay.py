"""Draws what the agent found over the picture that it found it in."""

from __future__ import annotations

import numpy as np
from edge_agent_client import Result
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

OPACITY = 0.4
NORMAL_COLOUR, ANOMALOUS_COLOUR = "#1E7B34", "#B3261E"


def overlay(pixels: NDArray[np.uint8], result: Result) -> Image.Image:
    """The picture (height, width, 3) with the mask's areas tinted and outlined, and a caption below it."""
    picture = pixels if result.mask is None else _tinted(pixels, result.mask)
    caption = _caption(pixels.shape[1], result)
    sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + caption.height))
    sheet.paste(Image.fromarray(picture), (0, 0))
    sheet.paste(caption, (0, pixels.shape[0]))
    return sheet


def areas(result: Result) -> str:
    """The anomaly types with their share of the picture: `scratch 0.8 %, chip 1.2 %`."""
    found = [anomaly for anomaly in result.anomalies if anomaly.name != "background"]
    return ", ".join(f"{anomaly.name} {anomaly.total_percentage_area:.1%}".replace("%", " %") for anomaly in found)


def _tinted(pixels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = (mask != 255).any(axis=2)
    tinted = pixels.copy()
    tinted[found] = ((1 - OPACITY) * pixels[found] + OPACITY * mask[found]).astype(np.uint8)
    thickness = 2 * round(max(mask.shape) / 640) + 1
    inner = Image.fromarray(found.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(max(3, thickness)))
    outline = found & (np.asarray(inner) == 0)
    tinted[outline] = mask[outline]
    return tinted


def _caption(width: int, result: Result) -> Image.Image:
    verdict = "ANOMALOUS" if result.is_anomalous else "normal"
    comparison = ">=" if result.anomaly_score >= result.anomaly_threshold else "<"
    lines = [f"{verdict}   score {result.anomaly_score:.3f} {comparison} {result.anomaly_threshold:.3f}"]
    if result.anomalies:
        lines.append(areas(result) or "no anomalous area")
    text = "\n".join(lines)
    margin = max(3, width // 80)
    size = max(10, min(28, width // 24))
    colour = ANOMALOUS_COLOUR if result.is_anomalous else NORMAL_COLOUR
    # A smaller font where the text is too long for the picture's width.
    while True:
        font = ImageFont.load_default(size=size)
        box = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
        if box[2] + 2 * margin <= width or size <= 7:
            break
        size -= 1
    # By the font and not by the letters, so that all captions of one size of picture are equally high.
    height = len(lines) * (sum(font.getmetrics()) + 4)
    caption = Image.new("RGB", (width, height + 2 * margin), colour)
    ImageDraw.Draw(caption).multiline_text((margin, margin), text, fill="white", font=font)
    return caption
