"""The picture of a confusion matrix: which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from omg_transformers.visualization.lettering import font, paste_turned, shortened, text_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from omg_transformers.visualization.shades import Color

MAX_CLASSES = 40
NOTHING, OTHERS = "nothing", "other classes"
MAX_NAME_WIDTH = 200
# Right answers are blue, mistakes red: the first can be told from the second without looking for the diagonal.
RIGHT, WRONG = (24, 92, 160), (190, 48, 32)
PAPER, EMPTY, INK, PALE_INK = (255, 255, 255), (238, 238, 238), (30, 30, 30), (110, 110, 110)
MARGIN = 16


@dataclass(frozen=True, slots=True)
class _Table:
    """What is shown. shares: (R, C), of each row's pixels; the first R columns are the same classes as the rows, but
    for `nothing`, which is the last of both where it occurs."""

    row_names: list[str]
    column_names: list[str]
    shares: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    num_left_out: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """Lengths in pixels. left, top: where the cells start."""

    cell: int
    letters: int
    digits: int
    left: int
    top: int


def draw_confusion(matrix: NDArray[np.integer], names: Sequence[str], *, title: str = "") -> Image.Image:
    """Pixels by true class (rows) and predicted class (columns), in percent of each row.

    matrix: (K + 1, K + 1), the last row and column are "nothing", see `PixelConfusion`. names: of the K classes.
    Classes that do not occur are left out. Of more than 40, those with the most confused pixels are shown, and the rest
    is one column. ValueError for another shape.
    """
    counts = _checked(matrix, names)
    table = _table(counts, names)
    heading = [title] if title else []
    if not table.row_names:
        heading.append("No pixels were counted.")
    else:
        heading.append("What the pixels of each true class were predicted as, in percent. Blue: right, red: wrong.")
    if table.num_left_out:
        shown = len({*table.row_names, *table.column_names} - {NOTHING, OTHERS})
        heading.append(f"The {shown} most confused of {shown + table.num_left_out} classes are shown.")
    layout = _layout(table, len(heading))
    width = layout.left + layout.cell * len(table.column_names) + MARGIN
    width = max(width, MARGIN * 2 + max(text_width(line, layout.letters + 2) for line in heading))
    height = layout.top + layout.cell * len(table.row_names) + MARGIN
    image = Image.new("RGB", (width, height), PAPER)
    _write_heading(image, heading, layout, has_title=bool(title))
    if table.row_names:
        _write_names(image, table, layout)
        _draw_cells(image, table, layout)
    return image


def _checked(matrix: NDArray[np.integer], names: Sequence[str]) -> NDArray[np.int64]:
    counts = np.asarray(matrix)
    side = len(names) + 1
    if counts.shape != (side, side):
        raise ValueError(
            f"matrix has shape {counts.shape} for {len(names)} names: expected ({side}, {side}), the last row and "
            "column are 'nothing'"
        )
    if counts.dtype.kind not in "iu" or counts.min() < 0:
        raise ValueError(f"matrix has dtype {counts.dtype} and least value {counts.min()}: expected counts of pixels")
    return counts.astype(np.int64)


def _table(counts: NDArray[np.int64], names: Sequence[str]) -> _Table:
    nothing = len(names)
    occurring = np.flatnonzero(counts[:nothing].sum(1) + counts[:, :nothing].sum(0))
    chosen = occurring
    if len(occurring) > MAX_CLASSES:
        confused = counts.sum(1) + counts.sum(0) - 2 * np.diagonal(counts)
        chosen = np.sort(occurring[np.argsort(-confused[occurring], kind="stable")[:MAX_CLASSES]])
    has_pixels = counts[chosen].sum(1) > 0
    rows = [*chosen[has_pixels].tolist(), *([nothing] if counts[nothing].sum() else [])]
    columns = [*chosen[has_pixels].tolist(), *chosen[~has_pixels].tolist()]
    parts, column_names = [counts[rows][:, columns]], [names[index] for index in columns]
    others = np.setdiff1d(occurring, chosen)
    if len(others):
        parts.append(counts[rows][:, others].sum(1, keepdims=True))
        column_names.append(OTHERS)
    if nothing in rows or counts[rows, nothing].any():
        parts.append(counts[rows][:, [nothing]])
        column_names.append(NOTHING)
    row_names = [NOTHING if index == nothing else names[index] for index in rows]
    pixels = np.concatenate(parts, axis=1)
    is_right = np.eye(len(rows), pixels.shape[1], dtype=bool)
    if nothing in rows:
        is_right[-1] = np.arange(pixels.shape[1]) == pixels.shape[1] - 1
    shares = pixels / np.maximum(pixels.sum(1, keepdims=True), 1)
    return _Table(row_names, column_names, shares, is_right, len(others))


def _layout(table: _Table, num_lines: int) -> _Layout:
    cell, letters, digits = 48, 15, 15
    if len(table.column_names) > 12:
        cell, letters, digits = 36, 14, 13
    if len(table.column_names) > 24:
        cell, letters, digits = 28, 13, 11
    row = min(MAX_NAME_WIDTH, max((text_width(name, letters) for name in table.row_names), default=0))
    column = min(MAX_NAME_WIDTH, max((text_width(name, letters) for name in table.column_names), default=0))
    line = round(letters * 1.6)
    left = MARGIN + line + row + letters
    top = MARGIN + (line + 2) * num_lines + (line + column + letters if table.row_names else 0)
    return _Layout(cell, letters, digits, left, top)


def _write_heading(image: Image.Image, lines: list[str], layout: _Layout, *, has_title: bool) -> None:
    draw = ImageDraw.Draw(image)
    line = round(layout.letters * 1.6) + 2
    for index, text in enumerate(lines):
        is_title = has_title and index == 0
        size, fill = (layout.letters + 2, INK) if is_title else (layout.letters, PALE_INK)
        draw.text((MARGIN, MARGIN + index * line), text, fill, font(size), anchor="la")


def _write_names(image: Image.Image, table: _Table, layout: _Layout) -> None:
    draw = ImageDraw.Draw(image)
    cell, letters, gap = layout.cell, layout.letters, layout.letters // 2
    for row, name in enumerate(table.row_names):
        place = (layout.left - gap, layout.top + row * cell + cell // 2)
        draw.text(place, shortened(name, letters, MAX_NAME_WIDTH), _ink(name), font(letters), anchor="rm")
    for column, name in enumerate(table.column_names):
        place = (layout.left + column * cell + cell // 2, layout.top - gap)
        text = shortened(name, letters, MAX_NAME_WIDTH)
        paste_turned(image, text, letters, at=place, fill=_ink(name), anchor="start")
    # The axes' own words, at the corner that they share.
    middle = layout.top + cell * len(table.row_names) // 2
    paste_turned(image, "true", letters + 1, at=(MARGIN + letters // 2, middle), fill=INK, anchor="middle")
    longest = max(text_width(shortened(name, letters, MAX_NAME_WIDTH), letters) for name in table.column_names)
    place = (layout.left + cell * len(table.column_names) // 2, layout.top - gap - longest - letters)
    draw.text(place, "predicted", INK, font(letters + 1), anchor="mm")


def _ink(name: str) -> Color:
    return PALE_INK if name in (NOTHING, OTHERS) else INK


def _draw_cells(image: Image.Image, table: _Table, layout: _Layout) -> None:
    draw = ImageDraw.Draw(image)
    cell = layout.cell
    for row, shares in enumerate(table.shares.tolist()):
        for column, share in enumerate(shares):
            x, y = layout.left + column * cell, layout.top + row * cell
            color = _shade(share, is_right=bool(table.is_right[row, column]))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=color)
            if share >= 0.005:
                fill = PAPER if share > 0.35 else INK
                place = (x + cell / 2 - 0.5, y + cell / 2 - 0.5)
                draw.text(place, f"{share * 100:.0f}", fill, font(layout.digits), anchor="mm")


def _shade(share: float, *, is_right: bool) -> Color:
    if not share:
        return EMPTY
    # The square root: a mistake of a few percent is to be seen too.
    strength = 0.06 + 0.94 * share**0.5
    full = RIGHT if is_right else WRONG
    red, green, blue = (round(255 + (channel - 255) * strength) for channel in full)
    return red, green, blue
