"""Letters on pictures: one font, and texts that fit where they stand."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from omg_transformers.visualization.shades import Color

DOTS = "..."


@cache
def font(size: int) -> Any:
    """Pillow's own scalable font at `size` pixels: it is there on every machine."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels that a text of one line takes."""
    return int(font(size).getlength(text)) + 1


def shortened(text: str, size: int, width: int) -> str:
    """The text, or its start and dots, in `width` pixels."""
    if text_width(text, size) <= width:
        return text
    for end in range(len(text) - 1, 0, -1):
        shorter = text[:end].rstrip() + DOTS
        if text_width(shorter, size) <= width:
            return shorter
    return ""


def paste_turned(image: Image.Image, text: str, size: int, *, at: tuple[int, int], fill: Color, anchor: str) -> None:
    """Write from bottom to top. at: (x, y) of the middle of the line, at its first letter ("start") or its middle."""
    width, height = text_width(text, size), round(size * 1.4)
    line = Image.new("L", (width, height), 0)
    ImageDraw.Draw(line).text((0, height / 2), text, 255, font(size), anchor="lm")
    turned = line.transpose(Image.Transpose.ROTATE_90)
    top = at[1] - (width if anchor == "start" else width // 2)
    image.paste(Image.new("RGB", turned.size, fill), (at[0] - height // 2, top), turned)
