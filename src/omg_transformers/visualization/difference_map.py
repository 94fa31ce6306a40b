"""A table of gains and losses as a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from omg_transformers.visualization.lettering import font, paste_turned, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from omg_transformers.visualization.shades import Color

PAPER, EMPTY, INK, PALE_INK = (255, 255, 255), (238, 238, 238), (30, 30, 30), (110, 110, 110)
GAIN, LOSS = (24, 92, 160), (190, 48, 32)
CELL, LETTERS, MARGIN = 56, 15, 16


def draw_difference_map(
    values: NDArray[np.float64], row_names: Sequence[str], column_names: Sequence[str], *, title: str = ""
) -> Image.Image:
    """values: (R, C), blue above 0, red below, the deeper the larger; NaN: grey. ValueError for another shape."""
    if values.shape != (len(row_names), len(column_names)):
        raise ValueError(
            f"values has shape {values.shape}: expected ({len(row_names)}, {len(column_names)}), as many as names"
        )
    rows: list[list[float]] = values.tolist()
    largest = max((abs(value) for row in rows for value in row if not math.isnan(value)), default=0.0)
    left = MARGIN + max(text_width(name, LETTERS) for name in row_names) + LETTERS
    top = 2 * MARGIN + 2 * LETTERS + max(text_width(name, LETTERS) for name in column_names)
    width = max(left + CELL * len(column_names) + MARGIN, text_width(title, LETTERS) + 2 * MARGIN)
    image = Image.new("RGB", (width, top + CELL * len(row_names) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN, MARGIN), title, PALE_INK, font(LETTERS), anchor="la")
    for column, name in enumerate(column_names):
        place = (left + column * CELL + CELL // 2, top - LETTERS // 2)
        paste_turned(image, name, LETTERS, at=place, fill=INK, anchor="start")
    for row, name in enumerate(row_names):
        y = top + row * CELL
        draw.text((left - LETTERS // 2, y + CELL // 2), name, INK, font(LETTERS), anchor="rm")
        for column, value in enumerate(rows[row]):
            _draw_cell(draw, (left + column * CELL, y), value, largest)
    return image


def _draw_cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], value: float, largest: float) -> None:
    x, y = corner
    strength = 0.0 if math.isnan(value) or not largest else abs(value) / largest
    draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), fill=_color(value, strength))
    if not math.isnan(value):
        fill = PAPER if strength > 0.6 else INK
        draw.text((x + CELL / 2 - 0.5, y + CELL / 2 - 0.5), f"{value:+.1f}", fill, font(LETTERS), anchor="mm")


def _color(value: float, strength: float) -> Color:
    if math.isnan(value):
        return EMPTY
    red, green, blue = (round(255 + (part - 255) * 0.9 * strength) for part in (GAIN if value > 0 else LOSS))
    return red, green, blue
